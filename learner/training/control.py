"""What a step is told by the steps before it: gates of the reward, coefficients that follow a target, resets of the
reference policy.

    at(step, groups)      before it trains: what holds for it              ─▶ the trainer, the reward, the step's record
    observe(record)       after it: KL and entropy move the coefficients
    state ─▶ manifest     of the checkpoint; a resumed learner goes on from it, and so does a run that goes back

All of it follows from the groups in the order in which they were trained, so that steps that a crash undid come out as
they were. Each decision stands in its step's record: replay and regrade read it there.

| gate          | open while                                                              | method            |
| `short`       | accuracy >= best so far, this step's included, - accuracy_margin        | arXiv 2505.12284  |
| `interleaved` | accuracy > the step's before - accuracy_margin; in the first step       | arXiv 2505.19640  |
| `cosine`      | `on_updates` optimizer updates of every `on_updates + off_updates`      | arXiv 2507.12507  |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from chorus.learner.training import reference
from chorus.protocol.config.objective import ObjectiveConfig
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import Rollout
from chorus.protocol.metrics.step import mean
from chorus.protocol.rewards import GATED, Gates

Validations = Callable[[int], Sequence[Mapping[str, Any]]]  # that decide before a step, in order: step and accuracy


@dataclass(frozen=True)
class Decisions:
    """What holds for one step. reset: why the reference becomes the current policy before it, or None."""

    gates: Gates
    kl_coefficient: float
    entropy_coefficient: float
    reset: str | None = None

    @property
    def coefficients(self) -> tuple[float, float]:
        """Of KL and entropy, as the trainer takes them."""
        return self.kl_coefficient, self.entropy_coefficient

    @classmethod
    def of_record(cls, record: Mapping[str, Any], objective: ObjectiveConfig) -> Decisions:
        """As the step had them; what an older record does not say is the objective's."""
        kl, entropy = record.get("kl_coefficient"), record.get("entropy_coefficient")
        return cls(
            Gates.of_record(record),
            objective.kl_coefficient if kl is None else kl,
            objective.entropy_coefficient if entropy is None else entropy,
            record.get("reference_reset"),
        )


@dataclass(frozen=True)
class State:
    """Everything that a checkpoint must hold of this.

    best, previous: accuracy, the highest of a step and the last step's. kl_coefficient, entropy_coefficient: None: the
    recipe's. resets: so far. reset_step: the step that the last one came after; since: triggers count from there, which
    is later where the run went back. kl: of the steps since then, as many as a trigger looks at.
    """

    best: float | None = None
    previous: float | None = None
    kl_coefficient: float | None = None
    entropy_coefficient: float | None = None
    resets: int = 0
    reset_step: int = 0
    since: int = 0
    kl: tuple[float, ...] = ()


class Control:
    """`restore` it from the manifest that the ranks started from, before the first step."""

    def __init__(self, config: RunConfig, validations: Validations) -> None:
        self.config = config
        self.state = State()
        self._validations = validations

    def restore(self, state: Mapping[str, Any], gone_back_at: int | None = None) -> None:
        """As a checkpoint has it. gone_back_at: the step after which the run went back to that checkpoint."""
        known: dict[str, Any] = {key: value for key, value in state.items() if key in State.__dataclass_fields__}
        known["kl"] = tuple(known.get("kl", ()))
        self.state = State(**known)
        if gone_back_at is not None:
            self.state = replace(self.state, since=gone_back_at, kl=())

    def kept(self) -> dict[str, Any]:
        """What `restore` takes, as a checkpoint's manifest has it."""
        return asdict(self.state)

    def at(self, step: int, groups: Sequence[Rollout]) -> Decisions:
        """For `step`, whose groups these are; every step once, in order."""
        objective, s = self.config.objective, self.state
        kl, entropy = s.kl_coefficient, s.entropy_coefficient
        decisions = Decisions(
            self._gates(step, groups),
            objective.kl_coefficient if kl is None or objective.kl_target is None else kl,
            objective.entropy_coefficient if entropy is None or objective.entropy_target is None else entropy,
            self._due(step),
        )
        if decisions.reset is not None:
            self.state = replace(self.state, resets=s.resets + 1, reset_step=step - 1, since=step - 1, kl=())
        return decisions

    def observe(self, record: Mapping[str, Any]) -> None:
        """A step's record, right after it was trained."""
        objective, s = self.config.objective, self.state
        kl = _kl_of(record, objective)
        if kl is not None and self.config.reference.kl_spike is not None:
            s = replace(s, kl=(*s.kl, kl)[-self.config.reference.kl_window - 1 :])
        if kl is not None and objective.kl_target is not None:
            s = replace(s, kl_coefficient=kl_controlled(objective, record["kl_coefficient"], kl))
        if (entropy := record.get("entropy")) is not None and objective.entropy_target is not None:
            s = replace(s, entropy_coefficient=entropy_controlled(objective, record["entropy_coefficient"], entropy))
        self.state = s

    def figures(self, step: int, decisions: Decisions) -> dict[str, Any]:
        """Of the step's record; without the gates of parts that there are not."""
        spec, s, o = self.config.reward, self.state, self.config.objective
        gates = {f"{name}_gate": int(getattr(decisions.gates, name)) for name in GATED if getattr(spec, name)}
        referred = {"reference_resets": s.resets, "reference_age": step - 1 - s.reset_step}
        return {
            **gates,
            "accuracy_best": s.best if spec.short else None,
            "kl_coefficient": decisions.kl_coefficient,
            "entropy_coefficient": decisions.entropy_coefficient,
            "reference_reset": decisions.reset,
            **(referred if o.needs_reference else {}),
        }

    def _gates(self, step: int, groups: Sequence[Rollout]) -> Gates:
        spec, before = self.config.reward, self.state
        accuracy = mean(s.grade.accuracy for r in groups for s in r.group.samples)
        if accuracy is None:
            return Gates(cosine=self._cosine(step))
        best = max(accuracy, accuracy if before.best is None else before.best)
        self.state = replace(before, best=best, previous=accuracy)
        short, inter = spec.short, spec.interleaved
        fell = inter is not None and before.previous is not None and accuracy <= before.previous - inter.accuracy_margin
        return Gates(
            short=short is None or not short.gate or accuracy >= best - short.accuracy_margin,
            cosine=self._cosine(step),
            interleaved=inter is None or not inter.gate or not fell,
        )

    def _cosine(self, step: int) -> bool:
        """By the updates before the step."""
        cosine = self.config.reward.cosine
        if cosine is None:
            return True
        updates = (step - 1) * self.config.learner.updates_per_step
        return updates % (cosine.on_updates + cosine.off_updates) < cosine.on_updates

    def _due(self, step: int) -> str | None:
        config, s = self.config.reference, self.state
        if not config.resets:
            return None
        steps = step - 1 - s.since
        return reference.due(config, steps, s.kl, self._since_reset(step) if config.validates else ())

    def _since_reset(self, now: int) -> list[float]:
        """Accuracies of the validations that count before step `now`: the newest one at the last reset, and those
        after it."""
        past = [(v["step"], float(v["accuracy"])) for v in self._validations(now)]
        before = [accuracy for step, accuracy in past if step <= self.state.since][-1:]
        return before + [accuracy for step, accuracy in past if step > self.state.since]


def _kl_of(record: Mapping[str, Any], objective: ObjectiveConfig) -> float | None:
    """To the reference, as the objective estimates it: nats a token, or a sample where the reward pays it."""
    if not objective.needs_reference:
        return None
    return record.get("kl_reward" if objective.kl_in == "reward" else f"reference_{objective.kl_estimator}")


def kl_controlled(objective: ObjectiveConfig, coefficient: float, kl: float) -> float:
    """The next coefficient: in proportion to how far the KL is off its target, at most a fifth (arXiv 1909.08593)."""
    if objective.kl_target is None:
        return coefficient
    off = min(max(kl / objective.kl_target - 1, -0.2), 0.2)
    return coefficient * (1 + objective.kl_gain * off)


def entropy_controlled(objective: ObjectiveConfig, coefficient: float, entropy: float) -> float:
    """The next coefficient: one move up below the target, one down above it, never below 0 (arXiv 2505.22312)."""
    if objective.entropy_target is None:
        return coefficient
    move = objective.entropy_move if entropy < objective.entropy_target else -objective.entropy_move
    return max(0.0, coefficient + move)
