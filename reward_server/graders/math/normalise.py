r"""The normal form of an answer, which keeps what changes a value and drops how it was typeset.

Two answers with the same normal form are the same answer, so equality of normal forms needs no algebra.

>>> normalise("$\\dfrac12$") == normalise("\\boxed{1/2}.")
True
"""

from __future__ import annotations

import re

from chorus.reward_server.graders.math.braces import braced
from chorus.reward_server.graders.math.functions import named
from chorus.reward_server.graders.math.marks import without_vectors
from chorus.reward_server.graders.math.shapes import split_top
from chorus.reward_server.graders.math.spellings import sign_for, spelled
from chorus.reward_server.graders.math.styles import EDGES, closes_at_end, unstyled
from chorus.reward_server.graders.math.typography import plain

_SENTENCE = re.compile(
    r"(?:\\text\s*\{\s*)?(?:(?:so|thus|hence|therefore),? )?(?:the )?(?:final )?(?:answer|result)(?: is"
    r"|:)[:\s]*(?:\}\s*)?(?=\S)",
    re.IGNORECASE,
)
_BOX_PREFIX = re.compile(r"\\(?:f?box(?:ed)?|framebox)\s*\{")
_ORDINAL = re.compile(
    r"(?P<number>\d*?(?P<last>\d))\s*(?:\^\s*)?\{?\s*(?:\\text\s*\{\s*)?(?P<suffix>st|nd|rd|th)(?:\s*\}){0,2}",
    re.IGNORECASE,
)
_ONLY = re.compile(r"(?<=[\w)}])\s*,?\s*(?:\\text\s*\{\s*only\s*\}|(?<![A-Za-z])only)$")
# `{1,2,3}` for `\{1,2,3\}`; `{1,000}` is a number, and `{\{1,2\}}` has its backslashes.
_LOST_BACKSLASHES = re.compile(r"(?!\{\d{1,3}(?:,\d{3})+\})\{(?!\s*\\[^A-Za-z])[^,]*,.*[^\\]\}", re.DOTALL)


def unwrap(text: str) -> str:
    """An answer without what encloses all of it: `$...$`, `\\(...\\)`, `\\[...\\]`, `\\boxed{...}`."""
    while True:
        before = text = EDGES.sub("", text.strip())
        box = _BOX_PREFIX.match(text)
        if box and text.endswith("}") and closes_at_end(text, box.end() - 1):
            text = text[box.end() : -1]
        for opening, closing in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
            inner = text[len(opening) : len(text) - len(closing)]
            if (
                len(text) > len(opening) + len(closing)
                and text.startswith(opening)
                and text.endswith(closing)
                and (opening if opening[0] == "\\" else "$") not in inner
                and not inner.endswith("\\")
            ):
                text = inner
                break
        if text == before:
            return text


def normalise(text: str) -> str:
    """The normal form of an answer: same value, no typography. Letters keep their case."""
    text = spelled(without_vectors(plain(unstyled(unwrap(text).replace("\0", "")))))
    text = named(unwrap(unwrap(text).rstrip(".,; \\")))  # a line's end as well
    text = braced(text)
    while text.startswith("{") and closes_at_end(text, 0) and len(split_top(text[1:-1], ",;")) == 1:
        text = EDGES.sub("", text[1:-1])
    if _LOST_BACKSLASHES.fullmatch(text) and closes_at_end(text, 0):
        text = f"\\{text[:-1]}\\}}"
    while (whole := re.fullmatch(r"\\text\s*\{([^{}]*)\}", text)) is not None:
        text = whole.group(1).rstrip(".").strip()
    text = unwrap(_SENTENCE.sub("", text, count=1)) if _SENTENCE.match(text) else text
    text = _ONLY.sub("", re.sub(r"\s+", " ", text))
    if text[:1].isdigit() and (ordinal := _ORDINAL.fullmatch(text)) is not None:
        text = ordinal["number"] if _has_suffix(ordinal) else text
    return sign_for(text)


def _has_suffix(ordinal: re.Match[str]) -> bool:
    """Whether it is 1st, 2nd, 3rd, 11th: `2^{th}` may be a product."""
    teen = ordinal["number"][-2:-1] == "1"
    return ordinal["suffix"].lower() == ("th" if teen else {"1": "st", "2": "nd", "3": "rd"}.get(ordinal["last"], "th"))


def squeeze(text: str) -> str:
    """A normal form without its spaces, for comparison only: "1 1/2" and "11/2" must not meet here."""
    return re.sub(r"(?<=\d) (?=\d)", "_", text).replace(" ", "")
