"""math-verify by itself, as its documentation uses it: the second opinion that `reward.shadow` asks for.

Most golds parse to nothing without a box, so each is given one, which makes the stronger peer. Its own timeouts work by
a signal and are off: the pool's limit ends it.
"""

from __future__ import annotations

from collections.abc import Sequence

from math_verify import parse, verify


def accepts(completion: str, golds: Sequence[str]) -> bool:
    """Whether it finds one of the golds in the completion."""
    answer = parse(completion, parsing_timeout=0)
    return any(verify(parse(boxed(gold), parsing_timeout=0), answer, timeout_seconds=None) for gold in golds)


def boxed(gold: str) -> str:
    """The gold in a box, unless it comes in one or in dollars.

    >>> boxed("1/2"), boxed("$x$")
    ('\\\\boxed{1/2}', '$x$')
    """
    return gold if "boxed" in gold or "$" in gold.replace("\\$", "") else f"\\boxed{{{gold}}}"
