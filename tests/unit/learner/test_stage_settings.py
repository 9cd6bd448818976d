"""What a stage may have of its own: how its groups are sampled, and what a step of them trains with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rollouts import ready, sample
from tinymodel import TEMPLATE

from chorus.learner.curriculum.stages import Schedule, Start, latest
from chorus.learner.objectives.advantages import Batch, grpo
from chorus.learner.rollouts.admission import Admission
from chorus.learner.training.batch import TrainingSequence, cut
from chorus.learner.training.distributed import DistributedTrainer, _flatten, _restore
from chorus.learner.training.experience import make_experience, minibatches
from chorus.protocol.config.run import RunConfig
from chorus.protocol.config.settings import StepSettings
from chorus.protocol.ledger import Rollout

MATH = {"name": "math", "steps": 2, "max_tokens": 8, "group_size": 4, "lr": 1e-6}
CODE = {"name": "code", "group_size": 2, "temperature": 0.6, "lr": 5e-6, "reset_optimizer": True}


def config(model: Path | str, *stages: dict[str, Any], **objective: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "run": {"seed": 1},
            "model": {"path": str(model), "dtype": "float32", "context": 400},
            "problems": {"train": ["arithmetic:one-digit"], "max_prompt_tokens": 300},
            "templates": {"names": [TEMPLATE]},
            "curriculum": {"stages": list(stages)},
            "sampling": {"group_size": 8, "max_tokens": 16},
            "learner": {"groups_per_step": 2, "lr": 1e-3},
            "objective": {"advantage": "dr_grpo", **objective},
            "reward": {"compose": "accuracy_only"},
        }
    )


def in_stages(settled: RunConfig, index: int) -> Schedule:
    """The second stage begins with this admission."""
    schedule = Schedule(settled)
    schedule.begin(Start(1, settled.curriculum.stages[1].name, 2, index, "so"))
    return schedule


def group(index: int, accuracies: list[float], temperature: float = 1.0, finish: str = "stop") -> Rollout:
    made = ready([sample(a, finish=finish) for a in accuracies], index)
    task = made.group.task
    sampled = task.sampling.model_copy(update={"temperature": temperature})
    task = task.model_copy(update={"sampling": sampled})
    return replace(made, group=made.group.model_copy(update={"task": task}))


def test_a_stage_s_groups_are_sampled_as_it_says(tiny_model: Path) -> None:
    some = Admission(config(tiny_model, MATH, CODE), "run")
    some.stages.advance(2, 6)
    tasks = [some.task(k, 0) for k in (5, 6)]
    assert [(t.group_size, t.sampling.temperature, t.sampling.max_tokens) for t in tasks] == [(4, 1.0, 8), (2, 0.6, 16)]


def test_a_step_trains_with_the_settings_of_its_oldest_group_s_stage() -> None:
    schedule = in_stages(config("any", MATH, CODE), 6)
    assert [schedule.settings(indices).lr for indices in ([4, 5], [7, 5], [6, 7])] == [1e-6, 1e-6, 5e-6]


def test_what_a_stage_does_not_say_is_the_run_s() -> None:
    plain = config("any", name="grpo", kl_coefficient=0.02, entropy_coefficient=0.003)
    assert Schedule(plain).settings([3]) == StepSettings(1e-3, 0.003, 0.02)
    staged = config(
        "any",
        {"name": "first", "steps": 1, "entropy_coefficient": 0.0, "kl_coefficient": 0.5},
        {"name": "rest"},
        **{"name": "grpo", "kl_coefficient": 0.02, "entropy_coefficient": 0.003},
    )
    schedule = in_stages(staged, 6)
    assert schedule.settings([3]) == StepSettings(1e-3, 0.0, 0.5)
    assert schedule.settings([6]) == StepSettings(1e-3, 0.003, 0.02)


def test_the_optimizer_is_forgotten_once_before_the_first_step_of_a_stage_that_asks_for_it() -> None:
    schedule = in_stages(config("any", MATH, CODE), 6)
    assert not schedule.settings([6]).reset_optimizer, "nothing was trained before"
    schedule.trained = 0
    assert [schedule.settings([k]).reset_optimizer for k in (5, 6)] == [False, True]
    schedule.trained = 1
    assert not schedule.settings([7]).reset_optimizer
    assert not schedule.settings([5]).reset_optimizer, "a straggler of the stage before"
    assert latest(1, 0) == latest(None, 1) == latest(1, None) == 1, "after which the stage does not begin again"
    kept = in_stages(config("any", MATH, CODE | {"reset_optimizer": False}), 6)
    kept.trained = 0
    assert not kept.settings([6]).reset_optimizer, "a switch keeps the optimizer unless it is asked not to"


def test_groups_of_two_sizes_and_temperatures_train_in_one_step() -> None:
    settled = config("any", MATH, CODE)
    groups = [group(5, [1.0, 0.0, 0.0, 0.0]), group(6, [1.0, 0.0], temperature=0.6)]
    made = make_experience(groups, settled)
    assert [float(s.advantage) for s in made.sequences] == [0.75, -0.25, -0.25, -0.25, 0.5, -0.5]
    assert [s.temperature for s in made.sequences] == [1.0] * 4 + [0.6] * 2
    assert [len(part) for part in minibatches(made, 2)] == [4, 2], "a part of equally many groups each"
    alone = make_experience(groups[:1], settled)
    assert {s.temperature for s in alone.sequences} == {None}, "the run's own costs nothing"


@given(st.lists(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=5), min_size=1, max_size=5))
def test_advantages_of_uneven_groups_are_those_of_each_group_alone(rewards: list[list[float]]) -> None:
    flat = np.array([r for row in rewards for r in row])
    batch = Batch(flat, np.ones(len(flat)), [len(row) for row in rewards], np.full(len(flat), -1))
    found = batch.by_group(lambda row: grpo(row, 1e-6))
    assert np.array_equal(np.array(found), np.concatenate([grpo(np.array(row), 1e-6) for row in rewards]))


def test_truncated_samples_leave_the_loss_in_the_stage_that_says_so() -> None:
    schedule = in_stages(config("any", {"name": "L2", "steps": 2}, {"name": "L3", "overlong_filter": True}), 6)
    groups = [group(k, [1.0, 0.0], finish="length") for k in (5, 6)]
    made = make_experience(groups, schedule.config, filters_overlong=schedule.filters_overlong)
    assert [len(s.completion) for s in made.sequences] == [3, 3, 0, 0]
    assert made.overlong == 2


def sequences(temperature: float | None) -> list[TrainingSequence]:
    rng = np.random.default_rng(0)
    return [
        TrainingSequence(
            rng.integers(0, 50, 3), rng.integers(0, 50, n), np.full(n, -3.0, np.float32), 1.0, 0, temperature
        )
        for n in (2, 4)
    ]


def test_log_probabilities_are_taken_at_the_temperature_that_a_sample_was_drawn_at(tiny_model: Path) -> None:
    trainer = DistributedTrainer(config(tiny_model), torch.device("cpu"), None).trainer
    [batch] = cut([sequences(0.5)[0], replace(sequences(2.0)[1])], 4096)
    logp, entropy = trainer.policy(batch.input_ids, batch.index, batch.target, temperature=batch.temperature)
    with torch.no_grad():
        logits = trainer.policy.hf(batch.input_ids).logits.reshape(-1, trainer.policy.hf.config.vocab_size)
    heat = torch.tensor([2.0] * 4 + [0.5] * 2).unsqueeze(-1)  # the longest comes first
    wanted = torch.log_softmax(logits[batch.index].float() / heat, -1)
    assert torch.allclose(logp, wanted.gather(-1, batch.target.unsqueeze(-1)).squeeze(-1), atol=1e-6)
    assert torch.allclose(entropy, -(wanted.exp() * wanted).sum(-1), atol=1e-5)


def test_the_other_ranks_get_each_sample_s_temperature() -> None:
    assert [_restore(_flatten(s)).temperature for s in (*sequences(0.6), *sequences(None))] == [0.6, 0.6, None, None]


def test_a_step_s_rate_and_a_fresh_optimizer_are_what_its_settings_say(tiny_model: Path) -> None:
    ranks = DistributedTrainer(config(tiny_model), torch.device("cpu"), None)
    usual = StepSettings.of(ranks.config)
    assert ranks.step([sequences(None)]).lr == 1e-3
    assert ranks.step([sequences(None)], replace(usual, lr=5e-6)).lr == 5e-6
    updates = {int(state["step"]) for state in ranks.trainer.optimizer.state.values()}
    ranks.step([sequences(None)], replace(usual, reset_optimizer=True))
    assert (updates, {int(state["step"]) for state in ranks.trainer.optimizer.state.values()}) == ({2}, {1})


def test_a_step_s_entropy_coefficient_moves_the_loss(tiny_model: Path) -> None:
    losses, usual = [], StepSettings.of(config(tiny_model))
    for coefficient in (0.0, 0.5):
        ranks = DistributedTrainer(config(tiny_model), torch.device("cpu"), None)
        stats = ranks.step([sequences(None)], replace(usual, entropy_coefficient=coefficient))
        losses.append(stats.loss + coefficient * (stats.mean("entropy") or 0.0))
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ({"group_size": 1}, "greater than or equal to 2"),
        ({"temperature": 0.0}, "greater than 0"),
        ({"kl_coefficient": 0.01}, "needs a reference policy and a KL term in the loss"),
        ({"max_tokens": 17}, "raise sampling.max_tokens to the longest stage's"),
    ],
)
def test_a_stage_that_can_not_be_is_refused(stage: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        config("any", {"name": "one", **stage})
