"""What a step is told by the steps before it, with the numbers of methods.md 5.1, 5.6 and 5.8."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from rollouts import ready, sample

from chorus.learner.training.control import Control, Decisions
from chorus.learner.training.reference import due, stalled
from chorus.protocol.config.reference import ReferenceSection
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import Rollout
from chorus.protocol.rewards import Gates

BASE: dict[str, Any] = {
    "model": {"path": "none", "context": 64},
    "problems": {"train": ["none"], "heldout": ["none"], "max_prompt_tokens": 16},
    "templates": {"names": ["qwen-math"]},
    "sampling": {"group_size": 2, "max_tokens": 16},
    "evaluation": {"every": 5},
}


def control(validations: list[tuple[int, float]] | None = None, **sections: dict[str, Any]) -> Control:
    config = RunConfig.model_validate({**BASE, **sections})
    made = Control(config, lambda _: [{"step": step, "accuracy": accuracy} for step, accuracy in validations or []])
    return made


def step_of(accuracy: float) -> list[Rollout]:
    """A hundred samples, of which this share is right."""
    right = round(100 * accuracy)
    return [ready([sample(1.0)] * right + [sample(0.0)] * (100 - right))]


def gates(control: Control, accuracies: list[float]) -> list[Gates]:
    return [control.at(step, step_of(accuracy)).gates for step, accuracy in enumerate(accuracies, 1)]


def test_lengths_are_rewarded_only_near_the_best_accuracy_so_far() -> None:
    found = gates(control(reward={"short": {}}), [0.40, 0.60, 0.54, 0.56, 0.70, 0.64])
    assert [g.short for g in found] == [True, True, False, True, True, False]
    assert all(g.short for g in gates(control(reward={"short": {"gate": False}}), [0.9, 0.1]))


def test_sub_answers_are_paid_unless_accuracy_fell_and_in_the_first_step() -> None:
    found = gates(control(reward={"interleaved": {}}), [0.50, 0.40, 0.38, 0.33, 0.60])
    assert [g.interleaved for g in found] == [True, False, True, False, True]  # 0.38 > 0.40 - 0.05; 0.33 is no more
    strict = control(reward={"interleaved": {"accuracy_margin": 0.0}})
    assert [g.interleaved for g in gates(strict, [0.50, 0.50, 0.51])] == [True, False, True]


def test_the_cosine_term_is_on_for_so_many_updates_and_off_for_so_many() -> None:
    cosine = {"on_updates": 4, "off_updates": 6}
    learner = {"groups_per_step": 2, "updates_per_step": 2}
    found = gates(control(reward={"cosine": cosine}, learner=learner), [0.5] * 11)
    assert [g.cosine for g in found] == [True, True, False, False, False] * 2 + [True]


def test_a_resumed_learner_has_the_gates_that_it_would_have_had() -> None:
    accuracies = [0.60, 0.50, 0.56, 0.54, 0.57]
    reward: dict[str, Any] = {"short": {}, "interleaved": {}}
    whole = gates(control(reward=reward), accuracies)
    first, second = control(reward=reward), control(reward=reward)
    gates(first, accuracies[:3])
    second.restore(asdict(first.state))
    assert [second.at(k, step_of(accuracies[k - 1])).gates for k in (4, 5)] == whole[3:]


def test_validations_that_gain_nothing_for_three_times_are_a_stall() -> None:
    seen = [0.30, 0.35, 0.35, 0.35, 0.34]
    assert [stalled(seen[:n], 3, 0.0) for n in range(1, 6)] == [False] * 4 + [True]
    assert stalled([0.30, 0.31, 0.32, 0.33], 3, 0.05), "gains below stall_gain are none"


def section(**fields: Any) -> ReferenceSection:
    return ReferenceSection.model_validate(fields)


@pytest.mark.parametrize(
    ("fields", "steps", "kl", "validations", "why"),
    [
        ({}, 999, [1.0] * 30, [0.9, 0.1], None),
        ({"every": 200}, 199, [], [], None),
        ({"every": 200}, 200, [], [], "every: 200 steps since the last one"),
        ({"kl_spike": 3.0, "kl_window": 4}, 9, [0.1, 0.2, 0.3, 0.2, 0.61], [], "kl_spike: 0.61 nats a token"),
        ({"kl_spike": 3.0, "kl_window": 4}, 9, [0.1, 0.2, 0.3, 0.2, 0.59], [], None),
        ({"kl_spike": 3.0, "kl_window": 4}, 9, [0.1, 0.2, 0.3, 9.0], [], None),  # no whole window before it
        ({"kl_spike": 3.0, "kl_window": 4}, 9, [0.0, 0.0, 0.0, 0.1, 1e-9], [], None),  # three times nothing
        ({"degrade": 0.1}, 9, [], [0.5, 0.41], None),
        ({"degrade": 0.1}, 9, [], [0.5, 0.39], "degrade: validation 0.390, it has been 0.500"),
        ({"stall": 3}, 9, [], [0.35, 0.35, 0.35, 0.34], "stall: no gain over 0.350 in 3 validations"),
        ({"degrade": 0.1, "cooldown_steps": 10}, 9, [], [0.5, 0.39], None),
        ({"degrade": 0.1}, 0, [], [0.5, 0.39], None),  # it has just been reset
    ],
)
def test_each_trigger_resets_the_reference_and_says_why(
    fields: dict[str, Any], steps: int, kl: list[float], validations: list[float], why: str | None
) -> None:
    found = due(section(**fields), steps, kl, validations)
    assert found is None if why is None else found is not None and found.startswith(why)


KL = {"name": "grpo", "kl_coefficient": 0.1, "kl_estimator": "k2"}


def test_resets_come_every_so_many_steps_and_are_counted_from_the_last_one() -> None:
    made = control(objective=KL, reference={"every": 3})
    told = [made.figures(step, made.at(step, step_of(0.5))) for step in range(1, 9)]
    assert [step for step, figures in enumerate(told, 1) if figures["reference_reset"]] == [4, 7]
    assert [figures["reference_age"] for figures in told] == [0, 1, 2, 0, 1, 2, 0, 1]
    assert [figures["reference_resets"] for figures in told] == [0, 0, 0, 1, 1, 1, 2, 2]


def test_after_a_reset_validations_count_anew_from_the_newest_one() -> None:
    past = [(5, 0.5), (10, 0.3)]
    made = control(past, objective=KL, reference={"degrade": 0.1})
    assert made.at(11, step_of(0.5)).reset == "degrade: validation 0.300, it has been 0.500"
    assert made.at(12, step_of(0.5)).reset is None
    past.append((15, 0.25))
    assert made.at(16, step_of(0.5)).reset is None, "0.25 is not 0.1 below 0.30"
    past.append((20, 0.19))
    assert made.at(21, step_of(0.5)).reset == "degrade: validation 0.190, it has been 0.300"


def test_a_kl_spike_is_seen_in_the_records_since_the_last_reset() -> None:
    made = control(objective=KL, reference={"kl_spike": 3.0, "kl_window": 2})
    resets = []
    for step, kl in enumerate([0.1, 0.1, 0.4, 0.5, 0.6, 0.7], 1):
        resets.append(made.at(step, step_of(0.5)).reset)
        made.observe({"reference_k2": kl, "kl_coefficient": 0.1})
    assert [reset is not None for reset in resets] == [False, False, False, True, False, False]


def test_the_way_back_goes_on_from_the_checkpoint_and_starts_the_triggers_anew() -> None:
    past = [(5, 0.9), (10, 0.1)]
    made = control(past, reward={"short": {}}, objective=KL, reference={"degrade": 0.1, "cooldown_steps": 20})
    made.at(1, step_of(0.4))
    kept = asdict(made.state)
    made.at(2, step_of(0.9))
    made.restore(kept, gone_back_at=10)
    past.append((35, 0.1))
    found = made.at(40, step_of(0.4))
    assert found.gates.short, "the accuracy of 0.9 is undone with its weights"
    assert found.reset is None, "0.9 was a validation of weights that are gone"


def test_the_kl_coefficient_follows_its_target_a_step_at_a_time() -> None:
    """arXiv 1909.08593: x (1 + K clip(KL / target - 1, +-0.2))."""
    made = control(objective=KL | {"kl_target": 0.01})
    coefficients = []
    for step, kl in enumerate([0.05, 0.011, 0.0, None], 1):
        decided = made.at(step, step_of(0.5))
        coefficients.append(decided.kl_coefficient)
        made.observe({"reference_k2": kl, "kl_coefficient": decided.kl_coefficient})
    assert coefficients == pytest.approx([0.1, 0.1 * 1.02, 0.1 * 1.02 * 1.01, 0.1 * 1.02 * 1.01 * 0.98])
    assert control(objective=KL).at(1, step_of(0.5)).kl_coefficient == 0.1


def test_the_entropy_coefficient_moves_up_below_its_target_and_down_to_0_above_it() -> None:
    made = control(objective={"entropy_target": 0.2, "entropy_move": 0.01, "entropy_coefficient": 0.005})
    coefficients = []
    for step, entropy in enumerate([0.1, 0.1, 0.3, 0.3, 0.3, 0.3], 1):
        decided = made.at(step, step_of(0.5))
        coefficients.append(decided.entropy_coefficient)
        made.observe({"entropy": entropy, "entropy_coefficient": decided.entropy_coefficient})
    assert coefficients == pytest.approx([0.005, 0.015, 0.025, 0.015, 0.005, 0.0])


def test_a_record_gives_back_what_its_step_was_told_and_an_older_one_what_the_recipe_says() -> None:
    made = control(reward={"short": {}}, objective=KL | {"kl_target": 0.01}, reference={"every": 1})
    made.at(1, step_of(0.9))
    made.observe({"reference_k2": 0.5, "kl_coefficient": 0.1})
    decided = made.at(2, step_of(0.1))
    assert Decisions.of_record(made.figures(2, decided), made.config.objective) == decided
    assert decided == Decisions(Gates(short=False), pytest.approx(0.102), 0.0, "every: 1 steps since the last one")
    assert Decisions.of_record({}, made.config.objective) == Decisions(Gates(), 0.1, 0.0)


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"reference": {"every": 9}}, "reference: it has a trigger, and there is no reference policy"),
        ({"reference": {"stall": 2}, "objective": KL, "evaluation": {}}, "set evaluation.every"),
        ({"reference": {"every": 5, "cooldown_steps": 9}}, "every is 5, below cooldown_steps 9"),
        ({"objective": {"kl_target": 0.1}}, "set a objective.kl_coefficient to begin with"),
        ({"objective": {"weight_low": 0.5}}, "set objective.weight_mode = mask"),
    ],
)
def test_what_makes_no_sense_is_refused(sections: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        RunConfig.model_validate({**BASE, **sections})
