"""The draw over a run: uniform by default, the same after a resume, and as uneven as the recipe says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from storedrun import grade, group

from chorus.learner.rollouts.template_sampler import MIN_GROUPS, TemplateDraw
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import Rollout
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.rollouts import write_step
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.templates.load import load_templates

TEMPLATES = load_templates()
ALL = sorted(TEMPLATES)
CRITICAL = {1: 10.83, 2: 13.82, 12: 32.91}  # chi-square, p = 0.001


def drawn(seed: int = 42, groups_per_step: int = 100, reward: dict[str, Any] | None = None, **templates: Any) -> Any:
    sections = {
        "run": {"seed": seed},
        "model": {"path": "any"},
        "problems": {"train": ["any"]},
        "templates": {"names": ALL} | templates,
        "learner": {"groups_per_step": groups_per_step},
        "reward": reward or {},
    }
    return TemplateDraw(RunConfig.model_validate(sections), TEMPLATES)


def names(draw: TemplateDraw, indices: Sequence[int], problems: int = 1000) -> list[str]:
    return [draw.at(i, i // problems, f"math/{i % problems}") for i in indices]


def chi_square(found: Sequence[str], shares: dict[str, float]) -> float:
    counts = Counter(found)
    assert set(counts) <= set(shares)
    return sum((counts[n] - len(found) * p) ** 2 / (len(found) * p) for n, p in shares.items())


def test_13_000_draws_are_uniform_over_the_thirteen() -> None:
    assert chi_square(names(drawn(), range(13_000)), dict.fromkeys(ALL, 1 / 13)) < CRITICAL[12]


def test_a_resumed_run_draws_what_the_whole_run_would_have_drawn() -> None:
    assert names(drawn(), range(13_000))[6_500:] == names(drawn(), range(6_500, 13_000))
    assert names(drawn(), range(1000)) != names(drawn(seed=43), range(1000))


def test_a_problem_gets_its_template_afresh_in_every_epoch() -> None:
    draw = drawn()
    pairs = [(draw.at(k, 0, f"math/{k}"), draw.at(k, 1, f"math/{k}")) for k in range(1300)]
    assert sum(a == b for a, b in pairs) / len(pairs) == pytest.approx(1 / 13, abs=0.03)


def test_weights_are_met_and_a_weight_of_0_is_never_drawn() -> None:
    weights = {"abel": 2.0, "formal": 1.0, "qwen-math": 0.0}
    found = names(drawn(names=list(weights), weights=weights), range(9_000))
    assert chi_square(found, {"abel": 2 / 3, "formal": 1 / 3}) < CRITICAL[1]


def test_one_template_is_a_draw_too() -> None:
    assert set(names(drawn(names=["abel"]), range(100))) == {"abel"}


def test_a_schedule_goes_by_the_step_that_a_group_is_admitted_for() -> None:
    draw = drawn(groups_per_step=10, schedule=[{"from_step": 3, "names": ["abel"]}])
    assert len(set(names(draw, range(20)))) > 5
    assert set(names(draw, range(20, 60))) == {"abel"}


def test_a_mixture_that_fails_at_a_later_step_is_refused_at_the_start() -> None:
    stage = {"from_step": 50, "names": ["abel"], "category_weights": {"deepseek": 1}}
    with pytest.raises(CannotGoOn, match="drawn at step 50"):
        drawn(schedule=[stage])


def graded(index: int, template: str, accuracies: Sequence[float | None]) -> Rollout:
    return group(index, template, [([5], grade(accuracy)) for accuracy in accuracies])


THREE = ["abel", "formal", "qwen-math"]
SPREAD, FLAT = (1.0, 0.0), (1.0, 1.0)  # variances 0.25 and 0


def step_of(number: int, by_template: dict[str, Sequence[float | None]]) -> list[Rollout]:
    """MIN_GROUPS groups a template."""
    rows = [(name, rewards) for name, rewards in by_template.items() for _ in range(MIN_GROUPS)]
    return [graded(100 * number + k, name, rewards) for k, (name, rewards) in enumerate(rows)]


def test_adaptive_draws_favour_templates_whose_rewards_still_differ_within_bounds() -> None:
    draw = drawn(names=THREE, adaptive={"bound": 2.0})
    assert draw.weights(1) == dict.fromkeys(THREE, 1 / 3)
    draw.observe(step_of(1, {"abel": SPREAD, "formal": FLAT, "qwen-math": FLAT}))
    assert draw.variance() == {"abel": 0.25, "formal": 0.0, "qwen-math": 0.0}
    assert draw.weights(2) == pytest.approx({"abel": 2 / 3, "formal": 1 / 6, "qwen-math": 1 / 6})
    assert chi_square(names(draw, range(6_000)), draw.weights(2)) < CRITICAL[2]


def test_adaptive_weights_take_the_composed_reward_and_leave_ungraded_samples_out() -> None:
    draw = drawn(names=THREE, adaptive={}, reward={"compose": "additive"})
    draw.observe(step_of(1, {"abel": (1.0, 0.0, None), "formal": (1.0, None)}))
    assert draw.variance() == {"abel": 0.25}


def test_a_template_seen_in_too_few_groups_keeps_its_weight() -> None:
    draw = drawn(names=THREE, adaptive={})
    draw.observe([graded(k, "abel", SPREAD) for k in range(MIN_GROUPS - 1)])
    assert draw.weights(2) == dict.fromkeys(THREE, 1 / 3)


def test_only_the_last_steps_of_the_window_count() -> None:
    draw = drawn(names=THREE, adaptive={"window": 2})
    draw.observe(step_of(1, {"abel": SPREAD, "formal": FLAT}))
    assert draw.weights(2)["abel"] > draw.weights(2)["formal"]
    for number in (2, 3):
        draw.observe(step_of(number, {"abel": FLAT, "formal": SPREAD}))
    assert draw.weights(4)["abel"] < draw.weights(4)["formal"]


def test_a_resumed_run_has_the_adaptive_weights_of_the_run_that_was_never_cut(tmp_path: Path) -> None:
    live = drawn(names=THREE, adaptive={"window": 3})
    random, weights = Random(0), []
    for number in range(1, 8):
        groups = step_of(number, {name: [float(random.random() < 0.5) for _ in range(8)] for name in THREE})
        write_step(RunFolder(tmp_path), number, groups)  # also those after the checkpoint, which the crash undid
        live.observe(groups)
        weights.append(live.weights(number + 1))
    assert len({tuple(w.values()) for w in weights}) > 3
    for durable in (1, 2, 5):
        resumed = drawn(names=THREE, adaptive={"window": 3})
        resumed.restore(RunFolder(tmp_path), durable)
        assert resumed.weights(durable + 1) == weights[durable - 1]


def test_a_run_that_is_not_adaptive_reads_no_rollouts_at_a_resume(tmp_path: Path) -> None:
    folder = tmp_path / "rollouts"
    folder.mkdir()
    (folder / "step-000001.parquet").write_bytes(b"not to be read")
    draw = drawn(names=THREE)
    draw.restore(RunFolder(tmp_path), 1)
    assert draw.weights(2) == dict.fromkeys(THREE, 1 / 3)
