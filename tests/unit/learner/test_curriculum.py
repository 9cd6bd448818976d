"""Admission under a curriculum: problems chosen, hints given under every template, the probe, lengths, and figures."""

from __future__ import annotations

import json
import logging
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tinymodel import TEMPLATE

from chorus.learner.metrics.curriculum import labels, step_metrics
from chorus.learner.rollouts.admission import Admission
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import Entry, Rollout
from chorus.protocol.messages import Grade, RolloutGroup, Sample, Task, Timing, pack_floats, pack_ids, unpack_ids
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.reward_server.graders.text import grade_choice

OTHER = "simplerl"
SOLUTION = "First we add the two. Then we have 7, the sum of both."


def row(k: int, **fields: Any) -> dict[str, Any]:
    return {"id": f"p{k}", "problem": f"What is {k} + 4?", "answer": "7", "solution": SOLUTION} | fields


def admission(
    model: Path,
    folder: Path,
    rows: list[dict[str, Any]],
    stages: list[dict[str, Any]],
    hints: dict[str, Any] | None = None,
    rates: list[dict[str, Any]] | None = None,
    longest: int = 300,
    templates: tuple[str, ...] = (TEMPLATE,),
    **run: Any,
) -> Admission:
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    curriculum: dict[str, Any] = {"stages": stages, "hints": {"probe_share": 0.0} | (hints or {})}
    if rates:
        (folder / "rates.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rates))
        curriculum["pass_rates"] = [str(folder / "rates.jsonl")]
    sections = {
        "run": run,
        "model": {"path": str(model), "context": 900},
        "problems": {"train": [str(path)], "max_prompt_tokens": longest},
        "templates": {"names": list(templates)},
        "curriculum": curriculum,
        "sampling": {"max_tokens": 64, "group_size": 2},
        "learner": {"groups_per_step": 4},
    }
    return Admission(RunConfig.model_validate(sections), "run")


def text(some: Admission, task: Task) -> str:
    return str(some.tokenizer.decode(unpack_ids(task.prompt_ids).tolist()))


def ids(some: Admission, indices: range) -> list[str]:
    return [some.task(k, 0).problem_id for k in indices]


def test_a_run_without_a_curriculum_draws_a_fresh_permutation_of_its_problems_every_pass(
    tiny_model: Path, tmp_path: Path
) -> None:
    some = admission(tiny_model, tmp_path, [row(k) for k in range(7)], [], seed=3)
    wanted = []
    for epoch in range(3):
        order = [f"p{k}" for k in range(7)]
        random.Random(f"3/{epoch}").shuffle(order)
        wanted += order
    assert ids(some, range(21)) == wanted
    assert {some.task(k, 0).hint_ratio for k in range(21)} == {0.0}


def test_a_hint_stands_in_the_user_s_turn_under_every_template(tiny_model: Path, tmp_path: Path) -> None:
    rows = [row(k) for k in range(20)]
    some = admission(tiny_model, tmp_path, rows, [{"name": "half", "hint_ratio": 0.5}], templates=(TEMPLATE, OTHER))
    tasks = [some.task(k, 0) for k in range(20)]
    assert {t.template for t in tasks} == {TEMPLATE, OTHER}
    half = SOLUTION[: len(SOLUTION) // 2]
    for task in tasks:
        suffix = some.templates[task.template].user_suffix
        user = f"What is {task.problem_id[1:]} + 4?\n\n## Hint.{half}{suffix}"
        assert f"user\n{user}<|im_end|>" in text(some, task)
        assert task.hint_ratio == 0.5


def test_hints_by_tokens_are_cut_by_the_model_s_own_tokenizer(tiny_model: Path, tmp_path: Path) -> None:
    some = admission(tiny_model, tmp_path, [row(1)], [{"name": "half", "hint_ratio": 0.5}], {"unit": "tokens"})
    count = len(some.tokenizer.encode(SOLUTION, add_special_tokens=False))
    given = some.hints.prefix(some.problems[0], 0.5)
    assert SOLUTION.startswith(given)
    assert len(some.tokenizer.encode(given, add_special_tokens=False)) == count // 2


def test_problems_whose_hint_can_not_be_given_are_left_out_of_that_stage_and_counted(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [
        row(0),
        row(1, solution=None),
        row(2, solution="The sum is seven, as anyone can see."),
        row(3, solution="It is 7 at once. That is all there is to say."),
        row(4, solution=f"{'A long way round. ' * 30}{SOLUTION}"),
    ]
    stages = [{"name": "half", "hint_ratio": 0.5, "steps": 1}, {"name": "alone"}]
    with caplog.at_level(logging.WARNING):
        some = admission(tiny_model, tmp_path, rows, stages)
    chosen = [pool.chosen for pool in some.stages.pools]
    assert [p.id for p in chosen[0].problems] == ["p0"]
    assert chosen[0].left_out == Counter(no_solution=1, answer_not_in_solution=1, answer_in_hint=1, too_long=1)
    assert chosen[0].answer_in_hint == pytest.approx(1 / 3), "of the three that have a hint"
    assert "stage half: 1 problems, without 1 answer_in_hint, 1 answer_not_in_solution" in caplog.text
    assert len(chosen[1].problems) == 5, "a stage without hints takes them all"


def test_without_the_guard_the_hint_with_the_answer_is_given_and_its_rate_still_told(
    tiny_model: Path, tmp_path: Path
) -> None:
    rows = [row(0), row(1, solution="It is 7 at once. That is all there is to say.")]
    stages = [{"name": "half", "hint_ratio": 0.5}]
    some = admission(tiny_model, tmp_path, rows, stages, {"reject_if_answer_in_hint": False})
    assert [p.id for p in some.stages.pools[0].chosen.problems] == ["p0", "p1"]
    assert some.stages.pools[0].chosen.answer_in_hint == 0.5


def test_problems_are_chosen_by_pass_rate_level_and_domain(tiny_model: Path, tmp_path: Path) -> None:
    rows = [row(k, level=k % 3, domain="code" if k % 2 else "math") for k in range(12)]
    rates = [{"id": f"p{k}", "model": "m", "hint_ratio": 0.0, "samples": 8, "correct": k % 9} for k in range(11)]
    stages = [
        {"name": "hard", "pass_rate": {"high": 0.25}, "steps": 1},
        {"name": "level", "levels": [1, 2], "steps": 1},
        {"name": "code", "domains": {"code": 1}},
    ]
    some = admission(tiny_model, tmp_path, rows, stages, rates=rates)
    by_stage = [sorted(int(p.id[1:]) for p in pool.chosen.problems) for pool in some.stages.pools]
    assert by_stage == [[0, 1, 2, 9, 10], [k for k in range(12) if k % 3], [1, 3, 5, 7, 9, 11]]
    assert some.stages.pools[0].chosen.left_out == Counter(pass_rate=6, not_measured=1)


def test_a_stage_of_which_nothing_is_left_is_refused_at_the_start(tiny_model: Path, tmp_path: Path) -> None:
    stages = [{"name": "one", "steps": 5}, {"name": "two", "levels": [9]}]
    with pytest.raises(CannotGoOn, match=r"curriculum.stages: two: of 2 problems none is left \(2 level\)"):
        admission(tiny_model, tmp_path, [row(0), row(1)], stages)
    blend = {"name": "blend", "domains": {"math": 1, "code": 1}}
    with pytest.raises(CannotGoOn, match=r"blend: no problem of the domain code is left .* there are math"):
        admission(tiny_model, tmp_path, [row(0, domain="math")], [blend])


def test_domains_are_blended_exactly_in_every_step_s_admissions(tiny_model: Path, tmp_path: Path) -> None:
    rows = [row(k, domain="general" if k < 5 else "math") for k in range(8)]
    some = admission(tiny_model, tmp_path, rows, [{"name": "blend", "domains": {"general": 3, "math": 1}}])
    domains = {f"p{k}": "general" if k < 5 else "math" for k in range(8)}
    drawn = ids(some, range(40))
    for step in range(10):
        assert Counter(domains[id] for id in drawn[4 * step : 4 * step + 4]) == Counter(general=3, math=1)
    general = [id for id in drawn if domains[id] == "general"]
    for k in range(0, 30, 5):
        assert len(set(general[k : k + 5])) == 5, "without replacement"


def test_a_length_stage_samples_up_to_its_own_length(tiny_model: Path, tmp_path: Path) -> None:
    stages = [{"name": "short", "max_tokens": 16, "steps": 2}, {"name": "long"}]
    some = admission(tiny_model, tmp_path, [row(k) for k in range(4)], stages)
    some.stages.advance(2, 12)
    assert [some.task(k, 0).sampling.max_tokens for k in (0, 11, 12, 30)] == [16, 16, 64, 64]


def test_the_probe_is_a_fixed_share_that_never_gets_a_hint(tiny_model: Path, tmp_path: Path) -> None:
    rows = [row(k) for k in range(200)]
    some = admission(tiny_model, tmp_path, rows, [{"name": "half", "hint_ratio": 0.5}], {"probe_share": 0.25})
    hinted = {task.problem_id: task.hint_ratio for task in (some.task(k, 0) for k in range(400))}
    probe = {id for id, ratio in hinted.items() if ratio == 0.0}
    assert 30 <= len(probe) <= 70
    assert probe == {f"p{k}" for k in range(200) if some.hints.is_probe(f"p{k}")}


def group(task: Task, *accuracies: float) -> Rollout:
    sample = Sample(
        token_ids=pack_ids([5]),
        logprobs=pack_floats([-0.5]),
        versions=[(1, 0, 1)],
        finish_reason="stop",
        grade=Grade(verdict="any", accuracy=None, format=1.0),
    )
    samples = [sample.model_copy(update={"grade": sample.grade.model_copy(update={"accuracy": a})}) for a in accuracies]
    timing = Timing(started=1.0, generated=2.0, graded=3.0)
    made = RolloutGroup(task=task, generator_id="g", attempt=1, samples=samples, timing=timing)
    return Rollout(Entry("1-0", task.index, b""), made)


ONLINE = [{"name": "online", "hint_ratio": "online"}]


def test_online_hints_follow_what_came_back_and_fall_to_none_by_the_end(tiny_model: Path, tmp_path: Path) -> None:
    some = admission(tiny_model, tmp_path, [row(0), row(1)], ONLINE, {"online": {"start": 0.25}}, steps=100)
    some.open(RunFolder(tmp_path))
    before = {t.problem_id: t for t in (some.task(k, 0) for k in range(2))}
    assert {t.hint_ratio for t in before.values()} == {0.25}
    some.observe(group(before["p0"], 0.0, 0.0).group)
    some.observe(group(before["p1"], 1.0, 1.0).group)
    after = {t.problem_id: t.hint_ratio for t in (some.task(k, 0, 3) for k in range(2, 4))}
    assert after == {"p0": 0.375, "p1": 0.125}
    assert {some.task(k, 0, 81).hint_ratio for k in range(4)} == {0.0}
    resumed = admission(tiny_model, tmp_path, [row(0), row(1)], ONLINE, {"online": {"start": 0.25}}, steps=100)
    resumed.open(RunFolder(tmp_path))
    assert {t.problem_id: t.hint_ratio for t in (resumed.task(k, 0, 3) for k in range(2, 4))} == after


def test_an_online_hint_that_holds_the_answer_is_lowered_and_counted(tiny_model: Path, tmp_path: Path) -> None:
    rows = [row(0, solution="Add both and you get 7, as one can see at once and without any doubt.")]
    some = admission(tiny_model, tmp_path, rows, ONLINE, {"online": {"start": 0.75}}, steps=100)
    task = some.task(0, 0)
    assert 0 < task.hint_ratio < 0.5
    assert " 7" not in some.hints.prefix(some.problems[0], task.hint_ratio)
    figures = step_metrics([group(task, 1.0, 0.0)], some)
    assert figures["hints_lowered"]["answer_in_hint"] >= 2
    assert 0.5 < figures["answer_in_hint"] < 1


def test_an_online_hint_too_short_to_be_given_asks_the_problem_itself(tiny_model: Path, tmp_path: Path) -> None:
    rows = [row(0, solution="4 + 3 = 7 is all.")]
    unhinted = admission(tiny_model, tmp_path, rows, [{"name": "alone"}]).task(0, 0)
    online = {"online": {"start": 0.25}, "reject_if_answer_in_hint": False}
    some = admission(tiny_model, tmp_path, rows, ONLINE, online, steps=100)
    some.open(RunFolder(tmp_path))
    task = some.task(0, 0)
    assert (task.hint_ratio, task.prompt_ids) == (0.25, unhinted.prompt_ids)
    for _ in range(4):  # failing at it, it gets more until there is a hint
        some.observe(group(task, 0.0, 0.0).group)
        task = some.task(task.index + 1, 0, 1)
    assert task.hint_ratio == 0.75
    assert "## Hint.4 + 3 = 7" in text(some, task)
    fixed = admission(tiny_model, tmp_path, rows, [{"name": "quarter", "hint_ratio": 0.25}], {"probe_share": 0.0})
    assert fixed.task(0, 0).prompt_ids != unhinted.prompt_ids, "the published code's blank line"


def test_a_step_says_its_stage_its_hints_and_the_probe_apart(tiny_model: Path, tmp_path: Path) -> None:
    rows = [row(k, domain="math" if k % 2 else "code", level=k % 2) for k in range(40)]
    stages = [{"name": "half", "hint_ratio": 0.5, "steps": 1}, {"name": "alone"}]
    some = admission(tiny_model, tmp_path, rows, stages, {"probe_share": 0.3})
    tasks = [some.task(k, 0) for k in range(40)]
    probe = [t for t in tasks if t.hint_ratio == 0.0][:2]
    hinted = [t for t in tasks if t.hint_ratio > 0.0][:2]
    ready = [group(t, 1.0, 0.0) for t in hinted] + [group(probe[0], 0.0, 0.0), group(probe[1], 0.0, 1.0)]
    for r in ready:
        some.observe(r.group)
    figures = step_metrics(ready, some)
    assert (figures["stage"], figures["stage_number"]) == ("half", 0)
    assert figures["hint_ratio"] == 0.25
    assert figures["hint_characters"] == len(SOLUTION) // 2
    assert (figures["probe_groups"], figures["probe_accuracy"], figures["probe_solved"]) == (2, 0.25, 0.5)
    assert step_metrics(ready, some)["probe_groups"] == 0, "each step's own"
    by = labels(some)
    assert set(by) == {"by_hint", "by_domain", "by_level", "by_stage"}
    assert {by["by_hint"](t) for t in tasks} == {"0", "0.5"}
    assert {by["by_domain"](t) for t in tasks} == {"math", "code"}
    some.stages.advance(1, 38)
    assert step_metrics([group(tasks[37], 1.0, 0.0), group(tasks[39], 1.0, 0.0)], some)["stage"] == "half"
    assert step_metrics([group(tasks[38], 1.0, 0.0)], some)["stage"] == "alone"


def test_a_run_without_a_curriculum_records_nothing_of_one(tiny_model: Path, tmp_path: Path) -> None:
    some = admission(tiny_model, tmp_path, [row(0)], [])
    ready = [group(some.task(0, 0), 1.0, 0.0)]
    some.observe(ready[0].group)
    assert step_metrics(ready, some) == {}
    assert labels(some) == {}


PARTED = "We add.\n\nThe sum is near.\n\nIt comes to 7.\n\nSo 7 it is."
MIXED = {"name": "pss", "hint_ratio": [0.0, 0.25, 0.5, 0.75, 1.0]}
SPARKLE = {"unit": "parts", "place": "assistant", "reject_if_answer_in_hint": False}


def test_every_problem_comes_once_a_pass_with_each_number_of_parts(tiny_model: Path, tmp_path: Path) -> None:
    rows = [row(k, solution=PARTED) for k in range(3)]
    some = admission(tiny_model, tmp_path, rows, [MIXED], SPARKLE)
    tasks = [some.task(k, 0) for k in range(30)]
    wanted = {(f"p{k}", level / 4) for k in range(3) for level in range(5)}
    for first in (0, 15):
        assert {(t.problem_id, t.hint_ratio) for t in tasks[first : first + 15]} == wanted
    assert {t.epoch for t in tasks[:15]} == {0}
    assert [t.hint_ratio for t in tasks[:15]] != sorted(t.hint_ratio for t in tasks[:15]), "mixed"
    assert some.stages.pools[0].chosen.answer_in_hint == 0.5, "leakage is the rule at levels 3 and 4, and told"


@pytest.mark.parametrize(
    ("template", "before", "opened"),
    [("open-r1", "<think>\n", "<think>\n"), ("open-r1-teacher", "<think>\n", ""), ("qwen-math", "", "")],
)
def test_the_parts_begin_the_assistant_s_reasoning_behind_the_tag_that_opens_it(
    tiny_model: Path, tmp_path: Path, template: str, before: str, opened: str
) -> None:
    rows = [row(k, solution=PARTED) for k in range(3)]
    some = admission(tiny_model, tmp_path, rows, [MIXED], SPARKLE, templates=(template,))
    for task in (some.task(k, 0) for k in range(15)):
        prefix = "".join(f"{part}\n\n" for part in PARTED.split("\n\n")[: round(4 * task.hint_ratio)])
        begun = before + (PARTED if task.hint_ratio == 1.0 else prefix) if task.hint_ratio else ""
        asked = text(some, task)
        prefill = some.templates[template].prefill
        assert asked.endswith(f"assistant\n{begun or prefill}")
        assert task.opened == (opened if task.hint_ratio else "")
        assert f"user\nWhat is {task.problem_id[1:]} + 4?" in asked
        assert "## Hint." not in asked


def test_with_the_guard_the_levels_that_hold_the_answer_are_left_out(tiny_model: Path, tmp_path: Path) -> None:
    hints = SPARKLE | {"reject_if_answer_in_hint": True}
    some = admission(tiny_model, tmp_path, [row(0, solution=PARTED)], [MIXED], hints)
    chosen = some.stages.pools[0].chosen
    assert chosen.ratios == [0.0, 0.25, 0.5]
    assert chosen.left_out == Counter(answer_in_hint=2)


def test_a_probe_problem_comes_once_without_a_hint_where_ratios_are_mixed(tiny_model: Path, tmp_path: Path) -> None:
    rows = [row(k, solution=PARTED) for k in range(40)]
    some = admission(tiny_model, tmp_path, rows, [MIXED], SPARKLE | {"probe_share": 0.5})
    ratios: dict[str, list[float]] = {}
    for problem, ratio in zip(some.stages.pools[0].chosen.problems, some.stages.pools[0].chosen.ratios, strict=True):
        ratios.setdefault(problem.id, []).append(ratio)
    assert {id for id, found in ratios.items() if found == [0.0]} == {id for id in ratios if some.hints.is_probe(id)}


def test_a_ratio_that_stands_there_twice_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="hint_ratio names one share twice"):
        admission(tiny_model, tmp_path, [row(0)], [{"name": "a", "hint_ratio": [0.5, 0.5]}])


def test_a_step_tells_its_stages_apart(tiny_model: Path, tmp_path: Path) -> None:
    some = admission(tiny_model, tmp_path, [row(k) for k in range(4)], [{"name": "a", "steps": 1}, {"name": "b"}])
    some.stages.advance(1, 6)
    assert [labels(some)["by_stage"](some.task(k, 0)) for k in (5, 6)] == ["a", "b"]
    alone = admission(tiny_model, tmp_path, [row(0)], [{"name": "a"}])
    assert "by_stage" not in labels(alone)


def test_a_choice_travels_with_its_options_so_that_the_text_of_one_is_as_good_as_its_letter(
    tiny_model: Path, tmp_path: Path
) -> None:
    rows = [row(0, problem="Which?\n\n(A) oxygen\n(B) helium", answer="B", kind="choice"), row(1, answer="7")]
    some = admission(tiny_model, tmp_path, rows, [])
    asked = {task.problem_id: task for task in (some.task(k, 0) for k in range(2))}
    assert asked["p0"].grading()["options"] == ["oxygen", "helium"]
    assert "options" not in asked["p1"].grading()
    assert Task.decode(asked["p0"].encode()) == asked["p0"]
    graded = {said: grade_choice(f"\\boxed{{{said}}}", ["B"], asked["p0"].options, "train").verdict for said in "AB"}
    assert graded == {"A": "wrong", "B": "correct"}
    for said, verdict in (("helium", "correct"), ("oxygen", "wrong"), ("A and B", "wrong")):
        assert grade_choice(f"\\boxed{{{said}}}", ["B"], asked["p0"].options, "train").verdict == verdict
