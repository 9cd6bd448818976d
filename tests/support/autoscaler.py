"""What KEDA and the HorizontalPodAutoscaler would decide, replayed from their documentation.

KEDA evaluates `scalingModifiers.formula` over its triggers. The HPA, every 15 s, for one metric of type Value:
desired = ceil(ready pods x metric / target), the current number where the ratio is within 10 % of 1; then the
stabilisation windows (the least of the window's wishes upwards, the largest downwards), then the policies' rates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

SCALED_OBJECT = Path(__file__).parents[2] / "deploy/kubernetes/overlays/keda/scaledobject.yaml"
SYNC_S = 15.0
TOLERANCE = 0.1


def scaled_object() -> dict[str, Any]:
    """The `spec` of the ScaledObject as it is deployed."""
    documents = yaml.safe_load_all(SCALED_OBJECT.read_text())
    return next(d for d in documents if d["kind"] == "ScaledObject")["spec"]


def trigger(spec: Mapping[str, Any], name: str) -> dict[str, str]:
    return next(t for t in spec["triggers"] if t["name"] == name)["metadata"]


def evaluate(formula: str, values: Mapping[str, float]) -> float:
    """As much of the expr language as a formula of ours uses: arithmetic, comparison, &&, ||, min, max, c ? a : b."""
    formula = _bare(formula.strip())
    if (split := _outside(formula, "?")) is not None:
        condition, rest = formula[:split], formula[split + 1 :]
        nested, end = 0, -1
        for k, (depth, char) in enumerate(_depths(rest)):
            nested += (char == "?") * (depth == 0)
            if depth == 0 and char == ":":
                if not nested:
                    end = k
                    break
                nested -= 1
        branch = rest[:end] if evaluate(condition, values) else rest[end + 1 :]
        return evaluate(branch, values)
    python = formula.replace("&&", " and ").replace("||", " or ")
    return eval(python, {"__builtins__": {}}, {"min": min, "max": max, **values})


def _depths(text: str) -> list[tuple[int, str]]:
    depth, found = 0, []
    for char in text:
        depth -= char == ")"
        found.append((depth, char))
        depth += char == "("
    return found


def _outside(text: str, wanted: str) -> int | None:
    return next((k for k, (depth, char) in enumerate(_depths(text)) if depth == 0 and char == wanted), None)


def _bare(text: str) -> str:
    """Without parentheses around the whole."""
    while text.startswith("(") and all(
        depth > 0 or k in (0, len(text) - 1) for k, (depth, _) in enumerate(_depths(text))
    ):
        text = text[1:-1].strip()
    return text


@dataclass
class Autoscaler:
    """One Deployment's HPA as KEDA makes it from `spec`; `current` is what the Deployment asks for."""

    spec: Mapping[str, Any]
    current: int
    formula: str = ""
    _wishes: list[tuple[float, int]] = field(default_factory=list)
    _changes: list[tuple[float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.formula = self.formula or self.spec["advanced"]["scalingModifiers"]["formula"]
        self._target = float(self.spec["advanced"]["scalingModifiers"]["target"])
        self._behaviour = self.spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]

    def decide(self, now: float, values: Mapping[str, float], ready: int) -> int:
        """The Deployment's new number of replicas."""
        if not self._wishes:
            self._wishes.append((now, self.current))
        ratio = evaluate(self.formula, values) / self._target
        wish = self.current if abs(ratio - 1.0) <= TOLERANCE else math.ceil(ratio * ready)
        wish = min(max(wish, self.spec["minReplicaCount"]), self.spec["maxReplicaCount"])
        steady = self._stabilised(now, wish)
        self._wishes.append((now, wish))
        allowed = self._limited(now, steady)
        if allowed != self.current:
            self._changes.append((now, allowed - self.current))
            self.current = allowed
        return self.current

    def _stabilised(self, now: float, wish: int) -> int:
        up = min([wish, *(w for t, w in self._wishes if now - t < self._window("scaleUp"))])
        down = max([wish, *(w for t, w in self._wishes if now - t < self._window("scaleDown"))])
        return up if self.current < up else down if self.current > down else self.current

    def _window(self, direction: str) -> float:
        return self._behaviour[direction]["stabilizationWindowSeconds"]

    def _limited(self, now: float, wish: int) -> int:
        """By the policies; several allow the larger change."""
        if wish > self.current:
            limits = [self._limit(now, policy, 1) for policy in self._behaviour["scaleUp"]["policies"]]
            return max(self.current, min(wish, max(limits)))
        if wish < self.current:
            limits = [self._limit(now, policy, -1) for policy in self._behaviour["scaleDown"]["policies"]]
            return min(self.current, max(wish, min(limits)))
        return wish

    def _limit(self, now: float, policy: Mapping[str, Any], sign: int) -> int:
        recent = sum(change for t, change in self._changes if now - t < policy["periodSeconds"])
        at_start = self.current - recent
        if policy["type"] == "Pods":
            return at_start + sign * policy["value"]
        return math.ceil(at_start * (1 + sign * policy["value"] / 100))
