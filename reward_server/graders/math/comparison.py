"""What a rule answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Comparison:
    """The outcome for one gold: equal or not, the rule that decided, and its reason in words."""

    equal: bool
    rule: str
    reason: str


Ask = Callable[[str, str], Comparison]  # all rules again, about (a piece of the answer, a piece of the gold)
