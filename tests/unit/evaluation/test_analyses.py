"""SPARKLE's paired axes and the decomposition of a gain: the specification's numbers (methods.md 5.4, 5.5), from plain
functions and from graded answers that lie in folders."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from evaluating import Recited, Reciter, TextGrading, decode
from evaluating import spec as spec_of
from hypothesis import given
from hypothesis import strategies as st

from chorus.cli.evaluate.analyse import Waiting, _is_done, answer, conclude
from chorus.cli.main import main
from chorus.evaluation.analyses.analysis import figures, ways
from chorus.evaluation.analyses.annotations import Annotation, asked_on, read_annotations
from chorus.evaluation.analyses.decomposition import TEMPERATURES, decompose, slope
from chorus.evaluation.analyses.paired import paired, solved_chains
from chorus.evaluation.runner import Question
from chorus.protocol.messages import Problem
from chorus.protocol.runtime.exits import CANNOT_GO_ON, CannotGoOn

PROBLEMS = [Problem(id=id, problem=f"What is {id}?", answers=["1"]) for id in "pqrs"]
NOTES = {
    "p": Annotation.model_validate(
        {"id": "p", "plan": "Add.", "subproblems": [{"problem": "A?", "answer": "3"}, {"problem": "B?", "answer": "4"}]}
    ),
    "q": Annotation.model_validate(
        {"id": "q", "plan": "Halve.", "knowledge": ["2 is even.", "3 is odd."]}
        | {"subproblems": [{"problem": f"{k}?", "answer": "1"} for k in range(3)]}
    ),
    "r": Annotation.model_validate({"id": "r", "plan": "So.", "subproblems": [{"problem": "C?", "answer": "5"}]}),
    "s": Annotation.model_validate({"id": "s", "plan": "Look."}),
}


def test_with_a_plan_and_without_the_difference_is_of_the_same_problems() -> None:
    found = paired(dict(zip("abcd", [1, 0, 1, 1], strict=True)), dict(zip("abcd", [1, 1, 1, 0], strict=True)))
    assert found is not None
    assert (found.delta, found.gained, found.lost, found.problems) == (0.0, 1, 1, 4)
    assert found.interval[0] < 0 < found.interval[1]


def test_problems_that_only_one_side_has_are_left_out() -> None:
    found = paired({"a": 1.0, "x": 0.0}, {"a": 0.25, "y": 1.0})
    assert found is not None
    assert (found.problems, found.first, found.second, found.delta) == (1, 1.0, 0.25, 0.75)
    assert paired({"x": 1.0}, {"y": 1.0}) is None


def test_a_chain_is_solved_whose_every_part_is_and_fails_at_its_first_part_that_is_not() -> None:
    share, failures = solved_chains([[1, 1], [1, 0, 1], [0]])
    assert share == pytest.approx(1 / 3)
    assert failures == [None, 2, 1]
    assert solved_chains([]) == (0.0, [])


def test_a_gain_is_sharper_on_what_was_solved_before() -> None:
    base, trained = dict(zip("pqr", [0, 1, 16], strict=True)), dict(zip("pqr", [0, 8, 16], strict=True))
    found = decompose(base, trained, 16)
    assert found.precision == pytest.approx((0.354, 0.5), abs=5e-4)
    assert found.coverage[16] == pytest.approx((0.667, 0.667), abs=5e-4)
    assert (found.new_solve, found.lost_solve) == ([], [])
    assert found.gain == pytest.approx(found.covered)
    assert found.newly == 0.0
    assert found.wall, "the interval of a gain of 0 everywhere holds 0"
    assert list(found.coverage) == [1, 2, 4, 8, 16]
    assert found.coverage[1] == pytest.approx(found.precision)


def test_what_only_the_trained_model_solves_is_new_and_no_wall() -> None:
    base = {f"p{k}": 0 for k in range(40)} | {"lost": 3}
    trained = {f"p{k}": 4 for k in range(40)} | {"lost": 0}
    found = decompose(base, trained, 16)
    assert len(found.new_solve) == 40
    assert found.lost_solve == ["lost"]
    assert found.newly == pytest.approx(40 / 41 / 4)
    assert found.covered == pytest.approx(-3 / 16 / 41)
    assert not found.wall


counts = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 8), min_size=1)


@given(counts, counts)
def test_the_parts_of_a_gain_add_up_and_coverage_grows_with_k(base: dict[str, int], trained: dict[str, int]) -> None:
    if not base.keys() & trained.keys():
        with pytest.raises(ValueError, match="no problem in common"):
            decompose(base, trained, 8)
        return
    found = decompose(base, trained, 8)
    assert found.covered + found.newly == pytest.approx(found.gain)
    assert found.problems == len(base.keys() & trained.keys())
    assert not set(found.new_solve) & set(found.lost_solve)
    for side in (0, 1):
        curve = [pair[side] for pair in found.coverage.values()]
        assert curve == sorted(curve)
    assert found.gain_interval[0] <= found.gain + 1e-9
    assert found.gain - 1e-9 <= found.gain_interval[1]


def test_the_slope_says_what_heat_costs() -> None:
    assert slope([0.0, 0.5, 1.0], [0.75, 0.5, 0.25]) == -0.5
    assert slope([0.2, 0.4], [0.5, 0.5]) == 0.0
    assert slope([0.2], [0.5]) is None
    assert TEMPERATURES == (0.001, 0.003, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2)


def test_the_axes_ask_with_the_plan_with_the_facts_and_part_by_part() -> None:
    assert [p.problem for p in asked_on("plan", PROBLEMS[:1], NOTES)] == ["What is p?\n\nPlan:\nAdd."]
    [fact] = asked_on("knowledge", PROBLEMS, NOTES)
    assert (fact.id, fact.problem) == ("q", "What is q?\n\nKnown facts:\n2 is even.\n3 is odd.")
    parts = asked_on("subproblems", PROBLEMS[:1], NOTES)
    assert [(p.id, p.answers) for p in parts] == [("p/1", ["3"]), ("p/2", ["4"])]
    assert parts[1].problem == "What is p?\n\nA?\n3\n\nB?"


def test_without_annotations_only_temperatures_are_asked() -> None:
    asked = ways(PROBLEMS, {}, [0.4, 1.0], 64, 8, 0.6)
    assert [(w.name, w.samples, w.temperature) for w in asked] == [("t-0.4", 64, 0.4), ("t-1", 64, 1.0)]
    more = ways(PROBLEMS, NOTES, [1.0], 64, 8, 0.6)
    assert [(w.name, len(w.problems), w.samples) for w in more] == [
        ("t-1", 4, 64),
        ("plain", 4, 8),
        ("plan", 4, 8),
        ("knowledge", 1, 8),
        ("subproblems", 6, 8),
    ]


def store(folder: Path, rights: dict[str, Sequence[float | None]]) -> None:
    folder.mkdir(parents=True)
    lines = [
        {"benchmark": folder.name, "id": id, "run": 0, "samples": [{"accuracy": a} for a in known]}
        for id, known in rights.items()
    ]
    (folder / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def right(count: int, n: int = 16) -> list[float | None]:
    return [*[1.0] * count, *[0.0] * (n - count)]


def test_from_graded_answers_the_specification_s_numbers_come_out_and_stand_on_the_page(tmp_path: Path) -> None:
    asked = ways(PROBLEMS, NOTES, [0.4, 1.0], 16, 1, 0.6)
    for model, c in (("base", [0, 1, 16]), ("trained", [0, 8, 16])):
        store(tmp_path / model / "t-1", {id: right(k) for id, k in zip("pqr", c, strict=True)})
        store(tmp_path / model / "t-0.4", {id: right(8) for id in "pqr"})
        store(tmp_path / model / "plain", {id: [a] for id, a in zip("pqrs", [1.0, 1.0, 1.0, 0.0], strict=True)})
        store(tmp_path / model / "plan", {id: [a] for id, a in zip("pqrs", [1.0, 0.0, 1.0, 1.0], strict=True)})
        store(tmp_path / model / "knowledge", {"q": [None]})
        links = {"p/1": 1.0, "p/2": 1.0, "q/1": 1.0, "q/2": 0.0, "q/3": 1.0, "r/1": 0.0}
        store(tmp_path / model / "subproblems", {id: [a] for id, a in links.items()})
    found = figures(tmp_path, asked, NOTES, at=1.0, seed=0)
    d = found["decomposition"]
    assert d["precision"] == pytest.approx((0.354, 0.5), abs=5e-4)
    assert d["coverage"][16] == pytest.approx((0.667, 0.667), abs=5e-4)
    assert (d["new_solve"], d["wall"], d["problems"]) == ([], True, 3)
    plan = found["axes"]["plan"]["trained"]
    assert (plan["delta"], plan["gained"], plan["lost"]) == (0.0, 1, 1)
    chains = found["axes"]["subproblems"]["base"]
    assert chains["ssr"] == pytest.approx(1 / 3)
    assert chains["first_failures"] == {"p": None, "q": 2, "r": 1}
    assert found["axes"]["knowledge"]["base"] == {"problems": 0}, "a grade that failed is no answer"
    assert found["temperatures"]["base"]["slope"] == pytest.approx((17 / 48 - 0.5) / 0.6)
    args = SimpleNamespace(out=tmp_path, base="BASE", trained="<TRAINED>", at=1.0, seed=0)
    assert conclude(args, asked, NOTES) == 0
    page = (tmp_path / "report.html").read_text()
    for said in ("&lt;TRAINED&gt; against BASE", "35.4", "50.0", "66.7", "a coverage wall", "+1 / -1", "33.3"):
        assert said in page, said
    assert "<script" not in page
    assert json.loads((tmp_path / "analysis.json").read_text())["decomposition"]["wall"]


class Decoder:
    def decode_batch(self, ids: list[list[int]]) -> list[str]:
        return decode(ids)


def test_an_analysis_that_was_stopped_asks_only_what_has_no_answer_yet(tmp_path: Path) -> None:
    asked = [Problem(id=str(k), problem=f"say {k}", answers=[str(k)]) for k in range(3)]
    questions = [Question("t-1", problem, [7, k]) for k, problem in enumerate(asked)]
    one = Waiting(tmp_path / "base" / "t-1", spec_of(decoding="sampled", n=2, temperature=1.0), questions)
    assert not _is_done(one)
    say: Any = lambda k, n: [Recited([k])] * n  # noqa: E731
    dies, goes_on = Reciter(say, fails_after=2), Reciter(say)
    with pytest.raises(RuntimeError):
        asyncio.run(answer(one, dies, TextGrading(), Decoder(), 2, 1.0))
    assert not _is_done(one)
    asyncio.run(answer(one, goes_on, TextGrading(), Decoder(), 2, 1.0))
    assert sorted(k for k, *_ in (*dies.asked, *goes_on.asked)) == [0, 1, 2]
    assert _is_done(one)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"id": "p", "plans": "x"}', ":1: plans: Extra inputs are not permitted"),
        ('{"id": "p"}\n\n{"id": "p"}', ":3: id 'p' stands there twice"),
        ("{", ":1: the line: Invalid JSON"),
        ('{"id": "p", "subproblems": [{"problem": "x"}]}', "subproblems.0.answer: Field required"),
    ],
)
def test_an_annotation_that_can_not_be_used_is_refused_with_its_place(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_text(line)
    with pytest.raises(CannotGoOn, match=f"(?s){said}"):
        read_annotations(path)


def test_annotations_are_read_by_problem(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_text("".join(note.model_dump_json() + "\n\n" for note in NOTES.values()))
    assert read_annotations(path) == NOTES


@pytest.mark.parametrize(
    ("further", "said"),
    [
        (["--temperatures", "hot"], "--temperatures hot: give numbers above 0"),
        (["--at", "0.7"], "--at 0.7: give one of --temperatures"),
        (["--samples", "0"], "--samples 0: give at least 1"),
        (["--annotations", "nowhere.jsonl"], "--annotations nowhere.jsonl: can't be read"),
        (["--problems", "nowhere.jsonl"], "no such file"),
    ],
)
def test_what_can_not_be_analysed_is_one_line_and_status_3(
    further: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["analyse", "BASE", "TRAINED", "--problems", "arithmetic:one-digit", "--out", str(tmp_path / "out")]
    assert main([*asked, *further]) == CANNOT_GO_ON
    assert said in capsys.readouterr().err
