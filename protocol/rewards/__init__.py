"""How the parts of a reward make one number: pure, configured by data, the same on every side.

spec.py     [reward] as data          compose.py     one completion          group.py     a group's samples
"""

from chorus.protocol.rewards.compose import RewardParts, compose, overlong_penalty
from chorus.protocol.rewards.group import GATED, OPEN, Gates, compose_group
from chorus.protocol.rewards.spec import (
    CosineSpec,
    InterleavedSpec,
    OverlongSpec,
    PointsSpec,
    RewardSpec,
    ShortSpec,
    Term,
)

__all__ = [
    "GATED",
    "OPEN",
    "CosineSpec",
    "Gates",
    "InterleavedSpec",
    "OverlongSpec",
    "PointsSpec",
    "RewardParts",
    "RewardSpec",
    "ShortSpec",
    "Term",
    "compose",
    "compose_group",
    "overlong_penalty",
]
