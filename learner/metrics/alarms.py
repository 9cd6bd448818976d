"""Signs that a policy is collapsing, from the records of its steps.

    quiet ─▶ raised (said once, in words) ─▶ active (named in every record) ─▶ quiet again

An alarm is a suspicion: its thresholds are `[alarms]` of the recipe, and 0 turns one off. It looks at records alone,
so a resumed learner that reads them again knows what the first one knew.

Every alarm that is active is a sign of a collapse but one: a skipped update leaves the weights as they were, and one
strange batch skips one. Only steps in a row that skip some show that it is the weights.

Most compare with what the run was before. The `flat_` ones are for a run that never was anything else: they hold where
every step so far has been beyond the threshold, `flat_steps` of them at least.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from typing import Any

from chorus.protocol.config.run import AlarmsSection

FLAT = ("flat_truncated", "flat_zero_spread", "flat_no_answer", "flat_format")
NAMES = ("entropy", "accuracy", "truncated", "clip", "grad_norm", "effective", "nonfinite", *FLAT)
_MEAN_STEPS = 10
_MOST_CLIPPED = 0.3  # but not for gspo, whose bounds of some 1e-4 clip about as much as a matter of course
_NORM_STEPS = 50
_NORM_LEAST = 10  # steps before a median means anything
_SKIPPING_STEPS = 3  # of other groups each: one may be a strange batch, two chance, and weights that are broken stay so


class _Mean:
    """The mean of a metric over the last steps, and the lowest and the highest that it has been."""

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=_MEAN_STEPS)
        self.low, self.high = math.inf, -math.inf

    def add(self, value: float | None) -> float | None:
        """The mean with this step's value; None for a step without one, and before there are enough."""
        if value is None:
            return None
        self._values.append(value)
        if len(self._values) < _MEAN_STEPS:
            return None
        now = statistics.fmean(self._values)
        self.low, self.high = min(self.low, now), max(self.high, now)
        return now


class Alarms:
    """Feed it every record in order; `look` returns what the newest one newly raised, `active` are all that hold."""

    def __init__(self, config: AlarmsSection, loss: str, pays_format: bool = True) -> None:
        self.config = config
        self._pays_format = pays_format
        self._looked = 0
        self._flat = set(FLAT)
        self._most_clipped = config.clip_fraction
        if self._most_clipped is None:
            self._most_clipped = 0.0 if loss == "gspo" else _MOST_CLIPPED
        self.active: dict[str, str] = {}
        self.began: list[int] = []  # the steps at which it was no longer quiet
        self._low_entropy = self._skipping = 0
        self._accuracy, self._truncated = _Mean(), _Mean()
        self._norms: deque[float] = deque(maxlen=_NORM_STEPS)

    def look(self, record: dict[str, Any]) -> list[str]:
        """What this step newly raises, a sentence each."""
        found = {
            "entropy": self._entropy(record),
            "accuracy": self._accuracy_drop(record),
            "truncated": self._truncated_rise(record),
            "clip": self._clip(record),
            "grad_norm": self._grad_norm(record),
            "effective": self._effective(record),
            "nonfinite": self._nonfinite(record),
            **self._flat_from_the_beginning(record),
        }
        before, self.active = self.active, {name: text for name, text in found.items() if text}
        if self.active and not before:
            self.began.append(record["step"])
        return [f"step {record['step']}: {text}" for name, text in self.active.items() if name not in before]

    @property
    def collapse(self) -> dict[str, str]:
        """Those for which a run goes back, or ends, where its recipe asks for that."""
        early = self._skipping < _SKIPPING_STEPS
        return {name: text for name, text in self.active.items() if not (early and name == "nonfinite")}

    def _entropy(self, r: dict[str, Any]) -> str | None:
        c = self.config
        low = c.entropy_floor > 0 and r.get("entropy") is not None and r["entropy"] < c.entropy_floor
        self._low_entropy = self._low_entropy + 1 if low else 0
        if self._low_entropy < c.entropy_steps:
            return None
        return (
            f"entropy is {r['entropy']:.2g}, below {c.entropy_floor:g} for {self._low_entropy} steps: the policy "
            "hardly varies its answers any more, so groups teach little"
        )

    def _accuracy_drop(self, r: dict[str, Any]) -> str | None:
        now, most = self._accuracy.add(r.get("accuracy")), self.config.accuracy_drop
        if now is None or not most or self._accuracy.high - now <= most:
            return None
        return (
            f"accuracy over the last {_MEAN_STEPS} steps is {now:.3f}, it has been {self._accuracy.high:.3f}: the "
            "policy is getting worse at what it is rewarded for"
        )

    def _truncated_rise(self, r: dict[str, Any]) -> str | None:
        now, most = self._truncated.add(r.get("truncated")), self.config.truncated_rise
        if now is None or not most or now - self._truncated.low <= most:
            return None
        return (
            f"{now:.0%} of the answers of the last {_MEAN_STEPS} steps were cut off, it has been "
            f"{self._truncated.low:.0%}: they come to no end; [reward.overlong] makes that cost something, and if they "
            "are really longer, a larger sampling.max_tokens gives them room"
        )

    def _clip(self, r: dict[str, Any]) -> str | None:
        share = (r.get("clip_high_fraction") or 0.0) + (r.get("clip_low_fraction") or 0.0)
        if not self._most_clipped or share <= self._most_clipped:
            return None
        return (
            f"{share:.0%} of the tokens are clipped: the policy has moved far from the one its ratio is taken against; "
            "a smaller learning rate, fewer updates a step or less staleness would keep it nearer"
        )

    def _grad_norm(self, r: dict[str, Any]) -> str | None:
        norm, factor = r.get("grad_norm") or 0.0, self.config.grad_norm_factor
        usual = statistics.median(self._norms) if len(self._norms) >= _NORM_LEAST else math.inf
        if not math.isfinite(norm):
            return None  # that update was skipped, of which another alarm tells
        if norm > 0:
            self._norms.append(norm)
        if not factor or norm <= factor * usual:
            return None
        return f"the gradient's norm is {norm:.3g}, usually it is {usual:.3g}"

    def _effective(self, r: dict[str, Any]) -> str | None:
        share = r.get("w_effective")
        if share is None or share >= self.config.effective_share:
            return None
        return (
            f"the importance weights are worth {share:.0%} of the tokens (ESS / N): few tokens carry the step, since "
            "the policy that sampled them is far from the one that is trained"
        )

    def _nonfinite(self, r: dict[str, Any]) -> str | None:
        skipped = r.get("updates_skipped") or 0
        self._skipping = self._skipping + 1 if skipped else 0
        if not skipped:
            return None
        return f"{skipped} update(s) were skipped: the gradient was no finite number, or no token could be trained"

    def _flat_from_the_beginning(self, r: dict[str, Any]) -> dict[str, str]:
        c = self.config
        beyond = {
            "flat_truncated": c.flat_truncated and _at_least(r.get("truncated"), c.flat_truncated),
            "flat_zero_spread": c.flat_zero_spread and _at_least(r.get("zero_spread"), c.flat_zero_spread),
            "flat_no_answer": c.flat_no_answer and _at_least(r.get("no_answer"), c.flat_no_answer),
            "flat_format": self._pays_format and c.flat_format and _at_least(c.flat_format, r.get("format")),
        }
        self._looked += 1
        self._flat = {name for name in self._flat if beyond[name]}
        if not c.flat_steps or self._looked < c.flat_steps:
            return {}
        said = f"in each of the run's {self._looked} steps so far"
        words = {
            "flat_truncated": f"at least {c.flat_truncated:.0%} of the answers were cut off {said}: raise "
            "sampling.max_tokens, or see with `chorus doctor` why they come to no end",
            "flat_zero_spread": f"at least {c.flat_zero_spread:.0%} of the groups had one reward {said}, so nothing is "
            "learned: other problems (levels, pass rates, hints), or see their answers with `chorus doctor`",
            "flat_no_answer": f"no answer was found in at least {c.flat_no_answer:.0%} of the samples {said}: see with "
            "`chorus doctor` where they end, and which place the template names for the answer",
            "flat_format": f"the mean format score was {c.flat_format:g} at most {said}: a template with a prefill or "
            "fewer markers, or reward.compose = accuracy_only",
        }
        return {name: words[name] for name in FLAT if name in self._flat}


def _at_least(value: float | None, bound: float | None) -> bool:
    """False where either was not measured."""
    return value is not None and bound is not None and value >= bound
