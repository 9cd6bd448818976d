"""The probe set's accuracy, of every group that came back since the last step, also those that the filter dropped."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any


class Probe:
    def __init__(self) -> None:
        self._groups: list[list[float]] = []

    def add(self, accuracies: Sequence[float]) -> None:
        """The graded samples of one unhinted group of a probe problem."""
        self._groups.append(list(accuracies))

    def take(self) -> dict[str, Any]:
        """probe_solved: the share of groups with a right sample. None: no group came."""
        groups, self._groups = self._groups, []
        samples = [a for group in groups for a in group]
        return {
            "probe_groups": len(groups),
            "probe_accuracy": fmean(samples) if samples else None,
            "probe_solved": fmean(float(max(group) == 1.0) for group in groups) if groups else None,
        }
