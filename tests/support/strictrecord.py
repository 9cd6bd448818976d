"""A step's record that refuses to be asked for a key that no row of the table has."""

from __future__ import annotations

from typing import Any

from chorus.protocol.metrics.step import AGES, BREAKDOWNS, KEYS, fill


class Strict(dict):
    """A record or a part of one. Also `get` raises KeyError for what its scope does not have."""

    def __init__(self, scope: str, **values: Any) -> None:
        super().__init__(fill(scope, values))

    def get(self, key: Any, default: Any = None) -> Any:
        return self[key] if self[key] is not None else default


def strict_record(step: int, **more: Any) -> Strict:
    """Every number is 1, every part is there once or twice."""
    part = Strict("part", **dict.fromkeys(KEYS["part"], 1.0) | {"scores": {"a": 1.0}})
    diversity = Strict("diversity", **dict.fromkeys(KEYS["diversity"], 1.0))
    parts = {f"by_{by}": {"a": part, "b": part} for by in BREAKDOWNS}
    parts["by_staleness"] = {age: Strict("age", **dict.fromkeys(KEYS["age"], 1.0)) for age in AGES}
    named: dict[str, Any] = {"groups_filtered": {}, "hints_lowered": {}, "template_weights": {"a": 1.0}}
    named |= {"scores": {"a": 1.0}, "scores_failed": {}, "shadow": {"math": {"a": {"samples": 1, "disagreement": 0.5}}}}
    named |= {"difficulty": {"easy": 1.0}, "hard_prompts_skipped": {}}
    listed = {"accuracy_histogram": [1, 0, 0, 0, 0], "alarms": [], "findings": [], "not_finite": None, "stage": "all"}
    nested = parts | named | listed | {"diversity": diversity, "diversity_by_template": {"a": diversity}}
    return Strict("step", **dict.fromkeys(KEYS["step"], 1.0) | nested | {"step": step, "steps": 9} | more)
