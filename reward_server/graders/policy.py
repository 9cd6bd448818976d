"""Decisions that mathematics does not make: each has a key, and docs/grading.md says what it decides."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Policy:
    """What a grader pays for where people disagree.

    percent_sign_optional: in train mode `10\\%` is right for a gold `10` that names no unit (its question asked for
    the percentage). unfinished_reasoning: an answer in reasoning that never ends is paid.
    """

    percent_sign_optional: bool = True
    unfinished_reasoning: bool = False
