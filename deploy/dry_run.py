"""What a configuration implies, told before anything is built, downloaded or started."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel

from chorus.deploy.hours import Speed, told_time
from chorus.deploy.learner_state import reference_bytes, state_of
from chorus.deploy.memory import (
    GIB,
    USUAL_CARD_GIB,
    Needs,
    Verdict,
    activation_bytes,
    fewest,
    host_bytes,
    kept_by_each,
    leaner,
    sequences_at_once,
    share_of,
    verdict,
    weight_bytes,
)
from chorus.deploy.placement import Placement, graders
from chorus.deploy.shapes import Model, model_of
from chorus.deploy.sizes import STORED_BYTES_PER_TOKEN, planned, redis_bytes, size
from chorus.protocol.config.presets import PRESETS, explain, in_words
from chorus.protocol.config.run import RunConfig
from chorus.protocol.rewards import GATED
from chorus.protocol.templates.load import choose_templates
from chorus.protocol.templates.sampling import base_weights

_UNKNOWN = Speed()


def describe(config: RunConfig, placement: Placement, speed: Speed = _UNKNOWN, card_gib: float | None = None) -> str:
    """The resolved configuration as JSON, then what it means, for people.

    speed: what is known of the run's; without it the time is given for several rates. card_gib: of one GPU.
    """
    c, model = config, model_of(config.model.path)
    samples = c.learner.groups_per_step * c.largest_group
    longest = c.problems.max_prompt_tokens + c.sampling.max_tokens
    updates = c.run.steps * c.learner.updates_per_step
    lines = [
        f"placement   {placement.describe()}",
        f"steps       {c.run.steps}, of {c.learner.groups_per_step} groups x {c.largest_group} = "
        f"{samples} samples; {updates} optimizer updates",
        f"rate        {_rate(config)}",
        f"templates   {_templates(config)}",
        *(f"curriculum  {line}" for line in _curriculum(config)),
        f"tokens      at most {c.run.steps * samples * c.sampling.max_tokens:,} generated; at most "
        f"{longest:,} a sequence (context {c.model.context:,})",
        *(f"time        {line}" for line in told_time(c, model, placement, speed)),
        f"staleness   {_staleness(config)}",
        f"redis       at most {size(redis_bytes(c))} of rollouts at a time"
        + ("" if c.redis.url else ", in an embedded Valkey"),
        f"disk        {_disk(config)}",
        *_memory(config, model, placement, card_gib or USUAL_CARD_GIB),
        f"objective   {c.objective.name} ({PRESETS[c.objective.name].source})",
        f"              {in_words(lambda key: getattr(c.objective, key))}",
        *(f"              {line}" for line in explain(c.objective)),
        *([f"reference   {_reference(config)}"] if c.reference.resets else []),
        *(f"reward      {line}" for line in _reward(config)),
        f"graders     {'those of ' + c.reward.url if c.reward.url else graders(c, placement)}",
        f"evaluation  {_evaluation(config)}",
    ]
    return json.dumps(c.model_dump(mode="json"), indent=2) + "\n\n" + "\n".join(lines)


def _rate(config: RunConfig) -> str:
    c, steps = config.learner, config.run.steps
    rises = f", reached after {c.warmup_steps} steps" if c.warmup_steps else ""
    falls = "" if c.lr_schedule == "constant" else f", then {c.lr_schedule} to {c.lr_floor:g} at step {steps:,}"
    return f"{c.lr:g}{rises}{falls or ', constant'}"


def _staleness(config: RunConfig) -> str:
    """The oldest that a group on time can be is derived in docs/design.md."""
    target, most = config.staleness.target, config.staleness.max
    on_time = target + 1 if target else 0
    text = f"aimed at {target}, bounded by {most}; at most {config.capacity} groups outstanding"
    if most >= on_time:
        return text
    return (
        f"{text}. A group that is finished in time can be {on_time} steps old, so some of those would be dropped: set "
        f"staleness.max to {on_time} or more"
    )


def _templates(config: RunConfig) -> str:
    """How the run draws, at its start and at every step from which that changes."""
    section = config.templates
    templates = choose_templates(section.names, [Path(file) for file in section.files])
    stages = []
    for step in sorted({1, *(stage.from_step for stage in section.schedule)}):
        weights = base_weights(*section.at(step), templates, step)
        if len(set(weights.values())) == 1:
            text = f"{len(weights)}, each with the same chance" if len(weights) > 1 else next(iter(weights))
        else:
            text = ", ".join(f"{name} {share:.0%}" for name, share in weights.items())
        stages.append(f"from step {step}: {text}" if step > 1 else text)
    if section.adaptive:
        bound, window = section.adaptive.bound, section.adaptive.window
        stages.append(f"adapted by up to {bound:g}x to the reward's variance over {window} steps")
    return "; ".join(stages)


def _curriculum(config: RunConfig) -> list[str]:
    """A line a stage: what it asks, and when it ends; none for a run without stages."""
    lines = []
    for stage in config.curriculum.stages:
        parts = [f"hint {stage.hint_ratio}" if stage.gives_hints else "no hint"]
        if stage.pass_rate:
            parts.append(f"pass rate {stage.pass_rate.low:g} to {stage.pass_rate.high:g}")
        if stage.levels:
            parts.append(f"levels {', '.join(map(str, stage.levels))}")
        if stage.domains:
            total = sum(stage.domains.values())
            shares = ", ".join(f"{name} {weight / total:.0%}" for name, weight in stage.domains.items())
            parts.append(f"{shares}, {'exactly' if stage.stratified else 'on average'}")
        if stage.max_tokens:
            parts.append(f"at most {stage.max_tokens:,} tokens")
        if stage.drop_above is not None:
            parts.append(f"after each pass without what is solved above {stage.drop_above:g}")
        own = {"group_size": "groups of {}", "temperature": "temperature {:g}", "lr": "lr {:g}"}
        own |= {"entropy_coefficient": "entropy coefficient {:g}", "kl_coefficient": "KL coefficient {:g}"}
        parts += [text.format(value) for key, text in own.items() if (value := getattr(stage, key)) is not None]
        if stage.overlong_filter is not None:
            parts.append(f"cut-off samples {'out of' if stage.overlong_filter else 'in'} the loss")
        parts += ["a fresh optimizer"] if stage.reset_optimizer else []
        ends = [f"{stage.steps} steps"] if stage.steps else []
        ends += [f"a plateau of {stage.plateau.figure}"] if stage.plateau else []
        ends += [f"a fall of entropy by {stage.entropy_fall.share:.0%}"] if stage.entropy_fall else []
        lines.append(f"{stage.name}: {'; '.join(parts)}; until {' or '.join(ends) or 'the end'}")
    return lines


def _reward(config: RunConfig) -> list[str]:
    """A line for each grader of the user's own, and one for the second opinion; none for a run without."""
    section, weights = config.reward, {term.grader: term.weight for term in config.reward.terms}
    lines = []
    for grader in section.graders:
        does = [f"problems of the kind {grader.name}"]
        does += [f"{weights[grader.name]:g} x its score for every problem"] if grader.name in weights else []
        given = f", with {', '.join(grader.columns)}" if grader.columns else ""
        lines.append(f"{grader.name} ({grader.function}{given}): {'; '.join(does)}")
    if section.shadow:
        lines.append(f"{section.shadow} gives a second opinion on {section.shadow_share:.0%} of the samples, unpaid")
    return lines + [f"{name}: {_told(getattr(section, name))}" for name in ("points", *GATED) if getattr(section, name)]


def _told(part: BaseModel) -> str:
    return ", ".join(f"{key} {value}" for key, value in part.model_dump().items() if value is not None)


def _reference(config: RunConfig) -> str:
    """When the reference policy is reset, and what becomes of the optimizer then."""
    r = config.reference
    triggers = [f"every {r.every} steps"] if r.every else []
    triggers += [f"at a KL of {r.kl_spike:g} times its median over {r.kl_window} steps"] if r.kl_spike else []
    triggers += [f"after {r.stall} validations without a gain"] if r.stall else []
    triggers += [f"when validation falls by {r.degrade:g}"] if r.degrade else []
    then = "begins anew" if r.reset_optimizer else "goes on"
    return f"reset {', or '.join(triggers)}, not within {r.cooldown_steps} steps; the optimizer {then}"


def _memory(config: RunConfig, model: Model | None, placement: Placement, card_gib: float) -> Iterator[str]:
    """What is taken, then whether it fits; on CPUs there is no card that it could fit into."""
    cache = f"each generator's KV cache takes {config.generator.kv_cache_gib:g} GiB"
    if model is None:
        yield f"memory      the model {config.model.path!r} is not here yet, so its size is not known" + (
            "" if placement.learner_gpus else f"; {cache}"
        )
        return
    tensor_parallel = len(placement.generator_gpus[0]) if placement.generator_gpus else 1
    learner = state_of(config, model).on_cards / placement.learner_ranks
    known = "an unknown amount"
    if model.shape:
        known = f"about {size(activation_bytes(config, model.shape, model.count, placement.learner_ranks))}"
    text = (
        f"{model.count / 1e6:,.1f} M parameters{model.known}: learner {size(learner)} a rank and {known} of "
        f"activations, weights {size(weight_bytes(config, model, tensor_parallel))} a generator"
        f"{' GPU' if tensor_parallel > 1 else ''}"
    )
    if reference := reference_bytes(config, model):
        text += f", reference policy {size(reference / placement.learner_ranks)} a rank"
    if not placement.learner_gpus:
        yield f"memory      {text}; {cache}"
        if config.model.dtype != "float32":
            enough = _at_least(fewest(config, model, card_gib), card_gib)
            yield f"verdict     can't fit here, where there is no GPU: {enough}"
        return
    at_once = sequences_at_once(config, model, tensor_parallel, card_gib, share_of(config, placement))
    text += f", and KV cache for {at_once:,.0f} sequences of {config.model.context:,} tokens" if model.shape else ""
    yield f"memory      {text}"
    each = (f"{told} {size(kept)}" for told, kept in kept_by_each(config, model, placement.learner_ranks))
    yield f"state       a rank could keep less: {'; '.join(each)} (docs/models.md)"
    yield f"host        {size(host_bytes(config, model, placement.learner_ranks))} of the machine's memory"
    yield from _verdict(config, model, placement, card_gib)


def _verdict(config: RunConfig, model: Model, placement: Placement, card_gib: float) -> Iterator[str]:
    found = verdict(config, model, placement, card_gib)
    cards = f"{len(placement.all_gpus)} x {card_gib:g} GiB"
    if model.shape is None:
        yield f"verdict     unknown: no config.json tells the model's shape; without activations it takes {_of(found)}"
    elif found.as_is is None:
        yield f"verdict     fits {cards}: {_of(found)}"
    else:
        asks = f"as it is it would take {_taken(found.as_is)}"
        if found.cards is None:
            yield f"verdict     fits {cards} with {_set(found.changes)}: {_of(found)}; {asks}"
        else:
            yield f"verdict     can't fit here ({cards}), {_at_least(found, card_gib)}; {asks}"
            if less := leaner(config, model, placement, card_gib):
                yield f"            or here, with {_set(less.changes)}: {_of(less)} (docs/models.md)"


def does_not_fit(config: RunConfig, placement: Placement, card_gib: float | None) -> str | None:
    """One line for a run that starts on cards which are foreseen to be too small; None where nothing is known of it."""
    model = model_of(config.model.path)
    if model is None or model.shape is None or card_gib is None or not placement.learner_gpus:
        return None
    found = verdict(config, model, placement, card_gib)
    if found.as_is is None:
        return None
    mend = _at_least(found, card_gib) if found.cards is not None else f"it fits with {_set(found.changes)}"
    cards = f"{len(placement.all_gpus)} x {card_gib:.1f} GiB"
    return f"this run is not foreseen to fit {cards} ({_taken(found.as_is)}): {mend}"


def _at_least(found: Verdict, card_gib: float) -> str:
    """The fewest cards that hold the run, and with which settings."""
    if not found.cards:
        return f"no number of cards of {card_gib:g} GiB holds it"
    text = f"needs {found.cards} x {card_gib:g} GiB"
    if found.cards > 1:
        learner, generator = found.split
        text += f" ({learner} for the learner, {generator} for a generator)"
    settings = [change for change in found.changes if not change.startswith("placement.")]
    return f"{text} with {_set(settings)}" if settings else text


def _set(changes: Sequence[str]) -> str:
    return " ".join(f"--set {change}" for change in changes)


def _of(found: Verdict) -> str:
    return f"{_taken(found.needs)} (a tenth left free)"


def _taken(needs: Needs) -> str:
    parts = (("learner", needs.learner), ("generator", needs.generator))
    return ", ".join(f"{who} {need.bytes / GIB:,.1f} of {need.room / GIB:,.1f} GiB" for who, need in parts)


def _disk(config: RunConfig) -> str:
    disk = planned(config)
    own = "" if config.redis.url else f", {size(disk.redis)} of Valkey's file"
    selected = " and the selected one" if config.evaluation.every else ""
    known = f", {disk.whole} of them: with the one being written{selected}" if disk.checkpoints else ""
    exports = f"{size(disk.exports)} of exports of all the others, " if disk.exports else ""
    return (
        f"at most {size(disk.most)}: {size(disk.checkpoints)} of checkpoints at a time"
        f"{known or ' (the model is of unknown size)'}; {exports}{size(disk.rollouts)} of rollouts "
        f"({STORED_BYTES_PER_TOKEN} bytes a token){own}"
    )


def _evaluation(config: RunConfig) -> str:
    e, parts = config.evaluation, []
    if e.problems:
        under = f" under {', '.join(e.templates)}" if e.templates else ""
        parts.append(
            f"{e.problems} held-out problems{under}, {e.samples} samples and one greedy answer each, before and after"
        )
    if e.every:
        parts.append(
            f"{e.validation_problems} validation problems under {config.validation_template} every {e.every} steps"
        )
    return "; ".join(parts) or "none"
