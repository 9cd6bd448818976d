"""The checks: each looks at the groups of a run's first steps and says at most one thing, with its mend.

Thresholds are `[doctor]` of the recipe. A share is judged over MIN_SAMPLES samples or MIN_GROUPS groups at least:
before that it may be chance.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from chorus.learner.metrics.doctor import tokens
from chorus.protocol.config.run import RunConfig
from chorus.protocol.messages import RolloutGroup, Sample, unpack_ids
from chorus.protocol.rewards import OPEN, Gates, compose_group
from chorus.protocol.templates.template import Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MIN_SAMPLES, MIN_GROUPS = 16, 8
_GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """`name`: of what was found, for a machine. `text`: what, where, and the mend, in one line."""

    name: str
    text: str


@dataclass(frozen=True)
class Look:
    """What is examined. filtered: groups that dynamic sampling replaced, by why. memory_peak, memory_limit: the
    learner's, in bytes; None where nobody measured. gates: of each group's step; none: all were open."""

    config: RunConfig
    groups: Sequence[RolloutGroup]
    tokenizer: PreTrainedTokenizerFast
    templates: Mapping[str, Template]
    filtered: Mapping[str, int] = field(default_factory=Counter)
    memory_peak: int | None = None
    memory_limit: int | None = None
    gates: Sequence[Gates] = ()

    @cached_property
    def samples(self) -> list[Sample]:
        return [sample for group in self.groups for sample in group.samples]

    def share(self, holds: Callable[[Sample], bool], samples: Sequence[Sample] | None = None) -> float:
        """Of the samples; 0 where they are too few to judge."""
        judged = self.samples if samples is None else samples
        return statistics.fmean(map(holds, judged)) if len(judged) >= MIN_SAMPLES else 0.0

    def by_template(self) -> dict[str, list[RolloutGroup]]:
        found: dict[str, list[RolloutGroup]] = {}
        for group in self.groups:
            if group.task.template in self.templates:
                found.setdefault(group.task.template, []).append(group)
        return found


def examine(look: Look) -> list[Finding]:
    """Everything that is wrong; empty for a run that can learn."""
    found = (check(look) for check in CHECKS)
    return [finding for finding in found if finding is not None]


def _ends(look: Look) -> Finding | None:
    """Answers that are cut off, or that never come to an end at all."""
    share, longest = look.share(_cut_off), _longest(look)
    if share <= look.config.doctor.truncated:
        return None
    if any(not _cut_off(s) for s in look.samples):
        text = (
            f"{share:.0%} of {len(look.samples)} answers were cut off at {longest} tokens: raise sampling.max_tokens "
            "(and model.context), or let [reward.overlong] make length cost something"
        )
        return Finding("cut_off", text)
    stop = look.groups[0].task.sampling.stop
    text = f"all {len(look.samples)} answers were cut off at {longest} tokens, and none came to an end token "
    text += f"({tokens.named(look.tokenizer, stop)}): "
    held = Counter(id for s in look.samples for id in set(unpack_ids(s.token_ids).tolist()))
    special = [id for id in held if id in look.tokenizer.all_special_ids and id not in stop]
    if special and held[likeliest := max(special, key=lambda id: held[id])] > len(look.samples) / 2:
        name, times = tokens.named(look.tokenizer, [likeliest]), held[likeliest] / len(look.samples)
        return Finding("no_end", f"{text}{times:.0%} hold {name}; add it to eos_token_id in its generation_config.json")
    mend = "set templates.chat to the format that the model was trained in, or raise sampling.max_tokens"
    return Finding("no_end", text + mend)


def _unknown_ends(look: Look) -> Finding | None:
    """An engine that stops at tokens which the learner does not take for ends."""
    ends = Counter(
        int(unpack_ids(s.token_ids)[-1])
        for group in look.groups
        for s in group.samples
        if s.finish_reason == "stop" and s.n_tokens and group.task.sampling.stop
    )
    known = {id for group in look.groups for id in group.task.sampling.stop}
    if not (unknown := [id for id, _ in ends.most_common() if id not in known]):
        return None
    text = f"the engine ends answers at {tokens.named(look.tokenizer, unknown[:3])}, which is no end to the learner: "
    return Finding("end_tokens", f"{text}add it to eos_token_id in the model's generation_config.json")


def _empty(look: Look) -> Finding | None:
    share = look.share(lambda s: s.n_tokens <= 1)
    if share <= look.config.doctor.empty:
        return None
    text = f"{share:.0%} of {len(look.samples)} answers end with their first token: the prompt does not look to the "
    return Finding("empty", text + "model like one to answer; set templates.chat to the format that it was trained in")


def _spread(look: Look) -> Finding | None:
    """Groups from which nothing is learned, since all of their samples have one reward."""
    gates = look.gates or [OPEN] * len(look.groups)
    found = (_one_reward(look.config, *of) for of in zip(look.groups, gates, strict=True))
    kinds = Counter(kind for kind in found if kind)
    kinds.update({kind: look.filtered.get(kind, 0) for kind in ("all_wrong", "all_right")})
    total = len(look.groups) + sum(look.filtered.values())
    if total < MIN_GROUPS or kinds.total() <= look.config.doctor.zero_spread * total:
        return None
    [(kind, _)] = kinds.most_common(1)
    text = f"{kinds.total() / total:.0%} of {total} groups have one reward for all samples, so nothing is learned from "
    text += f"them: {kinds['all_wrong']} are all wrong, {kinds['all_right']} all right; "
    return Finding(kind, text + _SPREAD_MENDS[kind])


_SPREAD_MENDS = {
    "all_wrong": "take easier problems (curriculum: levels, pass rates, hints) or larger groups (sampling.group_size), "
    "and look with `chorus data` whether the golds are answers",
    "all_right": "take harder problems (curriculum: levels, pass rates)",
    "no_spread": "a larger sampling.temperature or other problems would make the samples differ",
}


def _one_reward(config: RunConfig, group: RolloutGroup, gates: Gates) -> str | None:
    """`all_wrong`, `all_right` or `no_spread`; None for a group that teaches, or whose rewards are not known."""
    rewards = {part.total for part in compose_group(config.reward_spec, group.samples, gates)} - {None}
    if len(rewards) != 1:
        return None
    accuracies = {s.grade.accuracy for s in group.samples} - {None}
    return "all_wrong" if accuracies == {0.0} else "all_right" if accuracies == {1.0} else "no_spread"


def _same_answers(look: Look) -> Finding | None:
    same = [len({s.token_ids for s in group.samples}) == 1 for group in look.groups]
    if len(same) < MIN_GROUPS or statistics.fmean(same) <= look.config.doctor.same_answers:
        return None
    text = f"in {statistics.fmean(same):.0%} of {len(same)} groups all samples are one and the same text: "
    heat = look.config.sampling.temperature
    return Finding("same_answers", f"{text}raise sampling.temperature ({heat:g}), or take a model that still varies")


def _no_answer(look: Look) -> Finding | None:
    share = look.share(lambda s: s.grade.verdict == "no_answer")
    if share <= look.config.doctor.no_answer:
        return None
    places = "; ".join(f"{name}: {look.templates[name].answer_place}" for name in list(look.by_template())[:3])
    text = f"no answer was found in {share:.0%} of {len(look.samples)} samples (the templates ask for it {places}): "
    return Finding("no_answer", text + "name the place in the template's system text, or end it with a prefill")


def _format(look: Look) -> Finding | None:
    """A template whose format is paid and never met, not even in part."""
    if not look.config.pays_format:
        return None
    never = []
    for name, groups in look.by_template().items():
        samples = [s for group in groups for s in group.samples if s.grade.format is not None]
        if look.templates[name].markers and look.share(_formless, samples) > look.config.doctor.no_format:
            never.append(name)
    if not never:
        return None
    markers = " ".join(map(repr, look.templates[never[0]].markers[:3]))
    text = f"the format of {', '.join(never)} is paid and never met, not even in part (it asks for {markers}): "
    return Finding("no_format", text + "show the layout in its system text, open it with a prefill, or leave it out")


def _odd_tokens(look: Look) -> Finding | None:
    for name, groups in look.by_template().items():
        ids = unpack_ids(groups[0].task.prompt_ids).tolist()
        limit = look.config.doctor.tokens_per_character
        if odd := next(tokens.oddities(look.tokenizer, look.templates[name], ids, limit), None):
            text = f"prompts under {name} are split oddly: {odd}; set templates.chat to the format that the model was "
            return Finding("odd_tokens", f"{text}trained in, or give its folder the fast tokenizer that belongs to it")
    return None


def _begin(look: Look) -> Finding | None:
    for group in look.groups[:1]:
        if fault := tokens.begin_fault(look.tokenizer, unpack_ids(group.task.prompt_ids).tolist()):
            mend = "templates.chat = 'model' or a chat template that writes {{ bos_token }} once has it right"
            return Finding("begin_token", f"{fault}: {mend}")
    return None


def _verifier(look: Look) -> Finding | None:
    failed = [s.grade for s in look.samples if s.grade.accuracy is None]
    if look.share(lambda s: s.grade.accuracy is None) <= look.config.doctor.verifier_failures:
        return None
    kinds = ", ".join(f"{n} {verdict}" for verdict, n in Counter(g.verdict for g in failed).most_common())
    reason = next((f"; {g.reason[:80]}" for g in failed if g.reason), "")
    text = f"the verifier failed on {len(failed)} of {len(look.samples)} samples ({kinds}{reason}): raise "
    return Finding("verifier", text + "reward.timeout_s or reward.workers, or see the reward server's log")


def _length(look: Look) -> Finding | None:
    mean, longest, limit = statistics.fmean(s.n_tokens for s in look.samples), _longest(look), look.config.doctor
    if len(look.samples) < MIN_SAMPLES or mean <= limit.length * longest or look.share(_cut_off) > limit.truncated:
        return None
    text = f"answers take {mean:.0f} of {longest} tokens on average, and mostly grow while a policy learns: "
    return Finding("length", text + "raise sampling.max_tokens (and model.context)")


def _memory(look: Look) -> Finding | None:
    c, peak, limit = look.config, look.memory_peak, look.memory_limit
    if c.shares_gpu_memory and limit:
        limit = round(limit * (1 - (c.generator.gpu_memory or 0.4)))
    if not peak or not limit or peak <= c.doctor.memory * limit:
        return None
    text = f"the learner took {peak / _GIB:.1f} of {limit / _GIB:.1f} GiB: lower learner.token_budget "
    return Finding("memory", f"{text}({c.learner.token_budget}), or set learner.gradient_checkpointing")


def _time(look: Look) -> Finding | None:
    """Whether the longest answer that is allowed could be sampled and graded within a group's deadline."""
    longest = [(group, max(s.n_tokens for s in group.samples)) for group in look.groups]
    told = [(group, n) for group, n in longest if n > _longest(look) / 10]  # of short ones most of the time is waiting
    rates = [(group.timing.graded - group.timing.started) / n for group, n in told]
    if len(rates) < MIN_GROUPS:
        return None
    foreseen, deadline_s = statistics.median(rates) * _longest(look), look.config.generator.group_deadline_s
    if foreseen <= deadline_s:
        return None
    text = f"a group whose answers are as long as they may be ({_longest(look)} tokens) would take {foreseen:.0f} s at "
    text += f"the pace that is seen, and is given up after generator.group_deadline_s = {deadline_s:g} s: raise it to "
    return Finding("time", f"{text}{2 * foreseen:.0f}, or lower generator.max_num_seqs")


def _cut_off(sample: Sample) -> bool:
    return sample.finish_reason == "length"


def _formless(sample: Sample) -> bool:
    return not sample.grade.format


def _longest(look: Look) -> int:
    """A curriculum's stage may allow less than sampling.max_tokens."""
    return max(group.task.sampling.max_tokens for group in look.groups)


CHECKS: Iterable[Callable[[Look], Finding | None]] = (
    *(_odd_tokens, _begin, _unknown_ends, _ends, _empty, _length),
    *(_no_answer, _format, _verifier, _same_answers, _spread, _memory, _time),
)
