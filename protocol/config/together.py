"""What a recipe's sections say together and can't mean: each refusal names the keys and the mend."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

from chorus.protocol.config.settings import refusal

if TYPE_CHECKING:
    from chorus.protocol.config.run import RunConfig


def refusals(config: RunConfig) -> Iterator[str]:
    """Why this recipe can't be right; the first one is what its writer is told."""
    looks = _of_sampling, _of_the_learner, _of_the_reference, _of_supervision, _of_evaluation, _of_stages
    return chain.from_iterable(look(config) for look in looks)


def _of_sampling(config: RunConfig) -> Iterator[str]:
    s, t = config.sampling, config.staleness
    if s.top_p < 1.0:
        yield (
            f"sampling.top_p is {s.top_p}; training needs 1.0, because the behaviour log-probabilities "
            "would not be those of the distribution that was sampled"
        )
    if s.group_size < 2:
        yield (
            f"sampling.group_size is {s.group_size}; a group needs at least 2 samples, because its "
            "advantages are differences within the group"
        )
    if t.max < t.target:
        yield (
            f"staleness.max ({t.max}) is below staleness.target ({t.target}); every group on time "
            "would be dropped: set staleness.max >= staleness.target"
        )


def _of_the_learner(config: RunConfig) -> Iterator[str]:
    learner, objective, stalest = config.learner, config.objective, config.staleness.max
    if learner.groups_per_step % learner.updates_per_step:
        yield (
            f"learner.groups_per_step ({learner.groups_per_step}) is no multiple of "
            f"learner.updates_per_step ({learner.updates_per_step}); change one of them"
        )
    if fault := learner.fault(config.run.steps, config.model.dtype):
        yield fault
    prompt, answer, context = config.problems.max_prompt_tokens, config.sampling.max_tokens, config.model.context
    if prompt + answer > context:
        yield (
            f"problems.max_prompt_tokens ({prompt}) + sampling.max_tokens "
            f"({answer}) exceed model.context ({context}): lower one or raise it"
        )
    if objective.loss == "policy_gradient" and objective.weight == "none" and stalest > 0:
        yield (
            f"objective.loss policy_gradient has no ratio, so nothing corrects for groups that are up to {stalest} "
            "steps old: set staleness.target and staleness.max to 0, or objective.proximal = recompute and "
            "objective.weight = token"
        )
    if learner.delta and config.model.lora:
        yield (
            "learner.delta sends what differs between whole weights, and with model.lora adapters travel, small "
            "and new all over: leave out one"
        )


def _of_the_reference(config: RunConfig) -> Iterator[str]:
    reference = config.reference
    if reference.resets and config.model.lora:
        yield "reference resets, and with model.lora the reference is the model without its adapters: leave out one"
    if reference.resets and not config.objective.needs_reference:
        yield "reference: it has a trigger, and there is no reference policy: set objective.kl_coefficient above 0"
    if reference.validates and not config.evaluation.every:
        yield "reference: stall and degrade look at validations, and none is made: set evaluation.every"


def _of_supervision(config: RunConfig) -> Iterator[str]:
    room, t = config.model.context - config.problems.max_prompt_tokens, config.staleness
    if fault := config.relift.fault(config.objective.dynamic_sampling, t.target, t.max, room):
        yield fault
    if config.relift.enabled and config.finetune.data:
        yield "finetune.data takes the place of rollouts, which relift learns of: leave out one of them"


def _of_evaluation(config: RunConfig) -> Iterator[str]:
    evaluation, problems = config.evaluation, config.problems
    if evaluation.problems and not problems.heldout:
        yield "evaluation.problems is set, but problems.heldout names no source: give one"
    if evaluation.every and not (problems.validation or problems.heldout):
        yield (
            "evaluation.every is set, but there is nothing to validate on: name sources in problems.validation, "
            "or in problems.heldout"
        )
    if evaluation.decides_after > evaluation.every:
        yield (
            f"evaluation.decides_after ({evaluation.decides_after}) is more than evaluation.every "
            f"({evaluation.every}): the next validation would be asked before; lower it"
        )


def _of_stages(config: RunConfig) -> Iterator[str]:
    for stage in config.curriculum.stages:
        punishes_length = config.reward_spec.overlong is not None
        validates, longest = bool(config.evaluation.every), config.sampling.max_tokens
        if text := refusal(stage, config.objective, longest, validates, punishes_length):
            yield f"curriculum.stages: {stage.name} {text}"
