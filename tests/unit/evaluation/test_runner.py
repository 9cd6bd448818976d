"""From problems to answers on disk: every problem as often as asked, no more after a kill, never two evaluations in one
folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from evaluating import Recited, Reciter, TextGrading, decode, questions, spec

from chorus.evaluation.records import Spec, Store
from chorus.evaluation.runner import Progress, Question, answer_all, check_room, digests
from chorus.evaluation.summary import summarize
from chorus.protocol.run_folder.files import read_lines
from chorus.protocol.runtime.exits import CannotGoOn


def right(i: int, n: int) -> list[Recited]:
    return [Recited([i])] * n


async def ask(folder: Path, what: Spec, asked: list[Question], engine: Reciter, at_once: int = 3) -> list[Progress]:
    seen: list[Progress] = []
    with Store(folder, what) as store:
        await answer_all(what, asked, store, engine, TextGrading(), decode, at_once, 10.0, seen.append)
    return seen


async def test_greedy_runs_pass_over_all_problems_one_after_another(tmp_path: Path) -> None:
    engine = Reciter(right)
    await ask(tmp_path, spec(n=2), questions(4), engine, at_once=1)
    assert [problem for problem, *_ in engine.asked] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert {(n, temperature, top_p) for _, n, temperature, _, top_p in engine.asked} == {(1, 0.0, 1.0)}
    records = read_lines(tmp_path / "answers.jsonl")
    assert {(r["id"], r["run"]) for r in records} == {(f"sums/{i}", run) for i in range(4) for run in (0, 1)}
    assert all(r["samples"][0]["accuracy"] == 1.0 and r["clusters"] is None for r in records)


async def test_sampled_answers_are_asked_for_once_a_problem_and_clustered(tmp_path: Path) -> None:
    engine = Reciter(lambda i, n: [Recited([0])] * 2 + [Recited([1])] * (n - 2))
    await ask(tmp_path, spec(decoding="sampled", n=5, temperature=0.7, top_p=0.95), questions(2), engine)
    assert [(n, temperature, top_p) for _, n, temperature, _, top_p in engine.asked] == [(5, 0.7, 0.95)] * 2
    first, second = sorted(read_lines(tmp_path / "answers.jsonl"), key=lambda r: r["id"])
    assert first["clusters"] == [0, 0, 2, 2, 2]
    assert [s["accuracy"] for s in second["samples"]] == [0.0, 0.0, 1.0, 1.0, 1.0]


async def test_an_answer_is_as_long_as_the_context_has_room(tmp_path: Path) -> None:
    engine = Reciter(right)
    await ask(tmp_path, spec(n=1, context=20, max_tokens=30), questions(1), engine)
    assert engine.asked == [(0, 1, 0.0, 17, 1.0)]
    with pytest.raises(CannotGoOn, match=r"the prompt of sums/0 has 3 tokens and the context 3; raise --context"):
        check_room(questions(1), 3)


@pytest.mark.parametrize("torn", ["", '{"benchmark": "sums", "id": "su'])
async def test_a_killed_evaluation_asks_only_what_it_has_not_written_down(tmp_path: Path, torn: str) -> None:
    with pytest.raises(RuntimeError, match="the engine has died"):
        await ask(tmp_path, spec(n=2), questions(5), Reciter(right, fails_after=4), at_once=2)
    path = tmp_path / "answers.jsonl"
    before = path.read_text()
    done = {(r["id"], r["run"]) for r in read_lines(path)}
    assert 0 < len(done) < 10
    path.write_text(before + torn)  # what a kill leaves of a line
    engine = Reciter(right)
    seen = await ask(tmp_path, spec(n=2), questions(5), engine)
    assert len(engine.asked) == 10 - len(done)
    assert (seen[-1].asked, seen[-1].wanted) == (10, 10)
    assert path.read_text().startswith(before)
    keys = [(r["id"], r["run"]) for r in read_lines(path)]
    assert sorted(keys) == sorted({(f"sums/{i}", run) for i in range(5) for run in (0, 1)})
    assert summarize(tmp_path)["answers"] == 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_tokens": 31}, r"max_tokens is 31, there 30"),
        ({"top_p": 0.95}, r"top_p is 0\.95, there 1\.0"),
        ({"weights": "v", "mode": "paper"}, r"weights is 'v', there 'w'; mode is 'paper', there 'strict'"),
        ({"problems": {"sums": "e"}}, r"problems is .*'e'.* there .*'d'"),
    ],
)
async def test_a_folder_of_another_evaluation_is_refused_with_what_differs(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    await ask(tmp_path, spec(), questions(1), Reciter(right))
    with pytest.raises(CannotGoOn, match=message), Store(tmp_path, spec(**change)):
        pass
    with Store(tmp_path, spec()) as store:  # a refusal holds no lock
        assert len(store.done) == 2


def test_two_evaluations_do_not_write_into_one_folder(tmp_path: Path) -> None:
    second = Store(tmp_path, spec())
    with Store(tmp_path, spec()), pytest.raises(CannotGoOn, match="another evaluation is writing there"):
        second.__enter__()


def test_the_digests_tell_problems_from_prompts() -> None:
    problems, prompts = digests(questions(3))
    assert digests(questions(3)) == (problems, prompts)
    longer = [Question(q.benchmark, q.problem, [1, *q.prompt]) for q in questions(3)]
    assert digests(longer) == (problems, digests(longer)[1])
    assert digests(longer)[1] != prompts
    assert digests(questions(2))[0] != problems
