"""Objectives by name: what a recipe's `[objective]` means, with the source of every number."""

from protocol.objective.config import LOSSES, LossKind, ObjectiveConfig
from protocol.objective.presets import PRESETS, explain

__all__ = ["LOSSES", "PRESETS", "LossKind", "ObjectiveConfig", "explain"]
