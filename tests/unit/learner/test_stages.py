"""Stages end by steps, plateau or fall of entropy, begin at a recorded admission, and survive a crash in order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from chorus.learner.curriculum.sampler import Chosen, Pool
from chorus.learner.curriculum.stages import Stages, ended
from chorus.protocol.config.curriculum import Stage
from chorus.protocol.config.run import RunConfig
from chorus.protocol.messages import Problem
from chorus.protocol.runtime.exits import CannotGoOn

GROUPS = 4  # a step


def stage(name: str = "s", **fields: Any) -> Stage:
    return Stage.model_validate({"name": name, **fields})


def config_of(*stages: Stage, **objective: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "model": {"path": "any"},
            "problems": {"train": ["any"], "heldout": ["any"]},
            "templates": {"names": ["qwen-math"]},
            "curriculum": {"stages": [s.model_dump() for s in stages]},
            "evaluation": {"every": 10},
            "objective": objective,
        }
    )


def problems(count: int, prefix: str = "p") -> list[Problem]:
    return [Problem(id=f"{prefix}{k}", problem="?", answers=["1"]) for k in range(count)]


def plan(*stages: Stage, pools: Sequence[int] = (10, 10, 10), folder: Path | None = None, seed: int = 0) -> Stages:
    made = [Pool(Chosen(problems(n, s.name)), s, seed, GROUPS) for s, n in zip(stages, pools, strict=False)]
    found = Stages(config_of(*stages), made)
    if folder is not None:
        found.open(folder / "stages.json")
    return found


def records(values: Sequence[float], figure: str = "accuracy", number: int = 0) -> list[dict[str, Any]]:
    blank = {"accuracy": None, "probe_accuracy": None, "validation_accuracy": None, "entropy": None}
    return [blank | {"step": k + 1, "stage_number": number, figure: value} for k, value in enumerate(values)]


def test_a_stage_ends_after_its_steps() -> None:
    assert ended(stage(steps=3), 2, []) is None
    assert ended(stage(steps=3), 3, []) == "its 3 steps are done"
    assert ended(stage(), 10_000, []) is None


@pytest.mark.parametrize(
    ("values", "over"),
    [
        ([0.1, 0.1, 0.1], False),  # not yet two windows
        ([0.1, 0.1, 0.2, 0.2], False),
        ([0.1, 0.1, 0.1, 0.125], True),  # 0.0125 on average: not above the gain
        ([0.1, 0.1, 0.05, 0.05], True),
        ([0.5, 0.5, 0.1, 0.1, 0.2, 0.2], False),  # only the last two windows count
    ],
)
def test_a_plateau_is_a_window_that_gained_no_more_than_the_one_before(values: list[float], over: bool) -> None:
    asked = stage(plateau={"window": 2, "gain": 0.02})
    assert (ended(asked, 99, records(values)) is not None) is over


def test_a_plateau_may_be_that_of_the_probe_and_steps_without_a_figure_do_not_count() -> None:
    asked = stage(plateau={"window": 1, "gain": 0.0, "figure": "probe_accuracy"})
    seen = records([0.5, 0.5], "probe_accuracy")
    assert ended(asked, 99, records([0.5] * 9)) is None
    assert ended(asked, 99, [seen[0], *records([0.5]), seen[1]]) is not None


def test_a_plateau_of_validations_counts_those_of_its_own_stage(tmp_path: Path) -> None:
    asked = {"figure": "validation_accuracy", "window": 1, "gain": 0.0}
    stages = plan(stage("a", plateau=asked), stage("b", plateau=asked), stage("c"))
    for record in records([0.5] * 30):
        stages.take(record)
    stages.take_validation(10, 0.4)
    assert stages.advance(11, 44) is None
    stages.take_validation(20, 0.3)
    begun = stages.advance(21, 84)
    assert begun is not None
    assert begun.name == "b"
    stages.take_validation(30, 0.2)
    assert stages.advance(31, 124) is None, "one validation of its own is no plateau"


@pytest.mark.parametrize(
    ("values", "over"),
    [
        ([1.0, 1.0], False),  # no window before
        ([1.0, 1.0, 0.9], False),
        ([1.0, 1.0, 0.5, 0.5], True),
        ([0.2, 0.2, 1.0, 1.0, 0.7, 0.7], True),  # below its highest, not its first
        ([0.5, 0.6, 0.7, 0.8], False),
    ],
)
def test_entropy_has_fallen_when_its_window_is_a_share_below_the_highest(values: list[float], over: bool) -> None:
    asked = stage(entropy_fall={"window": 2, "share": 0.2})
    assert (ended(asked, 99, records(values, "entropy")) is not None) is over


def test_the_first_of_several_ends_counts() -> None:
    both = stage(steps=50, plateau={"window": 1, "gain": 0.0})
    assert "accuracy over 1 steps" in str(ended(both, 2, records([0.5, 0.5])))
    assert ended(both, 50, records([0.1])) == "its 50 steps are done"


def test_the_next_stage_begins_with_the_next_admission_and_draws_from_its_own_problems() -> None:
    stages = plan(stage("a", steps=2), stage("b"))
    assert stages.advance(1, 12) is None
    begun = stages.advance(2, 16)
    assert begun is not None
    assert (begun.name, begun.step, begun.index, begun.why) == ("b", 2, 16, "its 2 steps are done")
    assert [stages.number(k) for k in (0, 15, 16, 99)] == [0, 0, 1, 1]
    assert {stages.at(k)[1].id[0] for k in range(16)} == {"a"}
    assert {stages.at(k)[1].id[0] for k in range(16, 40)} == {"b"}
    assert stages.advance(99, 400) is None, "the last stage ends with the run"


def test_every_pass_of_a_stage_holds_each_problem_once_and_epochs_count_on() -> None:
    stages = plan(stage("a", steps=1), stage("b"))
    stages.advance(1, 14)  # one pass over a and a part of the second
    drawn = [stages.at(k) for k in range(14, 34)]
    assert [epoch for epoch, _ in drawn] == [2] * 10 + [3] * 10
    for half in (drawn[:10], drawn[10:]):
        assert len({problem.id for _, problem in half}) == 10
    assert [p.id for _, p in drawn[:10]] != [p.id for _, p in drawn[10:]]


def test_figures_of_groups_from_the_stage_before_end_no_stage() -> None:
    stages = plan(stage("a", steps=1), stage("b", plateau={"window": 1, "gain": 0.0}), stage("c"))
    stages.advance(1, 8)
    for record in records([0.5] * 4):  # steps 1 to 4, all of stage 0
        stages.take(record)
    assert stages.advance(4, 20) is None
    for step in (5, 6):
        stages.take(records([0.5], number=1)[0] | {"step": step})
    begun = stages.advance(6, 28)
    assert begun is not None
    assert begun.name == "c"


def test_a_resumed_run_is_in_its_stage_and_draws_the_same_from_there(tmp_path: Path) -> None:
    three = stage("a", steps=2), stage("b", steps=3), stage("c")
    first = plan(*three, folder=tmp_path)
    first.advance(2, 16)
    first.advance(5, 31)
    again = plan(*three, folder=tmp_path)
    assert again.starts == first.starts
    assert [again.at(k) for k in range(60)] == [first.at(k) for k in range(60)]
    assert [s["name"] for s in json.loads((tmp_path / "stages.json").read_text())] == ["a", "b", "c"]


def test_steps_that_a_crash_undid_begin_no_stage_a_second_time(tmp_path: Path) -> None:
    two = stage("a", steps=4), stage("b", steps=1), stage("c")
    plan(*two, folder=tmp_path).advance(4, 24)
    again = plan(*two, folder=tmp_path)  # its checkpoint is of step 2: 3 and 4 are trained again
    assert [again.advance(step, 24) for step in (3, 4)] == [None, None]
    begun = again.advance(5, 28)
    assert begun is not None
    assert begun.name == "c"


def test_stages_of_another_recipe_are_refused(tmp_path: Path) -> None:
    plan(stage("a", steps=1), stage("b"), folder=tmp_path).advance(1, 8)
    with pytest.raises(CannotGoOn, match=r"its stages are a, b, not those of the recipe; resume with the recipe"):
        plan(stage("a", steps=1), stage("z"), folder=tmp_path)


def test_a_file_that_is_damaged_is_refused(tmp_path: Path) -> None:
    (tmp_path / "stages.json").write_text("[{]")
    with pytest.raises(CannotGoOn, match=r"stages.json: can't be read .*restore it, or start a new run"):
        plan(stage("a", steps=1), stage("b"), folder=tmp_path)


def easy_plan(folder: Path, *stages: Stage, pools: Sequence[int] = (5, 5)) -> Stages:
    found = plan(*stages, pools=pools, folder=folder)
    found.solved.open(folder / "solved.jsonl")
    return found


def drawn(stages: Stages, first: int, end: int) -> list[str]:
    return [stages.at(k)[1].id for k in range(first, end)]


def test_after_a_pass_what_has_become_easy_is_left_out_and_steps_and_records_count_on(tmp_path: Path) -> None:
    two = stage("a", drop_above=0.5, steps=4), stage("b")
    stages = easy_plan(tmp_path, *two)
    for index, id in enumerate(drawn(stages, 0, 5)):
        stages.observe(index, id, 1.0 if id in ("a0", "a1") else 0.5)
    assert stages.advance(1, 4) is None, "the pass is not done"
    again = stages.advance(2, 7)
    assert again is not None
    assert (again.stage, again.name, again.index, again.without) == (0, "a", 7, ("a0", "a1"))
    assert "2 are easy by now, 3 are left" in again.why
    assert sorted(set(drawn(stages, 7, 40))) == ["a2", "a3", "a4"]
    assert [stages.number(k) for k in (6, 7)] == [0, 0]
    resumed = easy_plan(tmp_path, *two)
    assert (resumed.starts, drawn(resumed, 0, 30)) == (stages.starts, drawn(stages, 0, 30))
    assert stages.advance(3, 9) is None
    begun = stages.advance(4, 12)
    assert begun is not None
    assert (begun.name, begun.why) == ("b", "its 4 steps are done"), "counted from the stage's own beginning"
    assert set(drawn(stages, 12, 40)) == {f"b{k}" for k in range(5)}


def test_only_the_newest_group_of_this_pass_says_whether_a_problem_is_easy(tmp_path: Path) -> None:
    stages = easy_plan(tmp_path, stage("a", drop_above=0.5))
    for index, accuracy in enumerate([1.0, 0.25]):
        stages.observe(index, "a0", accuracy)
    stages.observe(2, "a1", 0.75)
    stages.observe(2, "a1", 0.0)  # an index counts once
    begun = stages.advance(1, 5)
    assert begun is not None
    assert begun.without == ("a1",)
    assert stages.advance(2, 9) is None, "nothing of the pass that followed is known to be easy"


def test_where_all_have_become_easy_the_stage_goes_on_with_them(tmp_path: Path) -> None:
    stages = easy_plan(tmp_path, stage("a", drop_above=0.5), pools=(2,))
    for index, id in enumerate(("a0", "a1")):
        stages.observe(index, id, 1.0)
    assert stages.advance(1, 4) is None
    assert set(drawn(stages, 0, 8)) == {"a0", "a1"}


def test_a_stage_that_drops_nothing_observes_nothing(tmp_path: Path) -> None:
    stages = easy_plan(tmp_path, stage("a"))
    stages.observe(0, "a0", 1.0)
    assert not (tmp_path / "solved.jsonl").exists()


def test_a_line_of_solved_that_a_crash_cut_short_is_forgotten_and_a_broken_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "solved.jsonl"
    path.write_text('{"index": 0, "id": "a0", "accuracy": 1.0}\n{"index": 1, "i')
    stages = easy_plan(tmp_path, stage("a", drop_above=0.5))
    stages.observe(1, "a1", 0.0)
    assert [json.loads(line)["index"] for line in path.read_text().splitlines()] == [0, 1]
    assert stages.solved.easy(0, lambda accuracy: accuracy > 0.5) == ["a0"]
    path.write_text('{"index": 0}\n')
    with pytest.raises(CannotGoOn, match=r"solved.jsonl:1: no observation"):
        easy_plan(tmp_path, stage("a", drop_above=0.5))
