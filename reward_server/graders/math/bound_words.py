r"""Bounds in words as signs: "at least 3" is `\ge 3`, "from 2 to 5, inclusive" is `[2,5]`.

The words count only beside a part of the line: for a gold `3` "at least 3" stays another answer.

>>> in_signs("x \\text{ is at least } 3")
'x \\ge 3'
>>> in_signs("all real numbers except 0 and 1")
'\\mathbb{R}\\setminus\\{0, 1\\}'
"""

from __future__ import annotations

import re

from chorus.reward_server.graders.math.comparison import Ask, Comparison
from chorus.reward_server.graders.math.domains import has_relation, read_domain
from chorus.reward_server.graders.math.shapes import split_top

_SIGN_OF = {
    "\\ge": (
        "greater than or equal to", "more than or equal to", "larger than or equal to", "not less than", "no less than",
        "no fewer than", "no smaller than", "not smaller than", "at least",
    ),
    "\\le": (
        "less than or equal to", "smaller than or equal to", "not greater than", "no greater than", "no more than",
        "not more than", "no larger than", "at most",
    ),
    ">": ("strictly greater than", "strictly more than", "greater than", "more than", "larger than", "bigger than"),
    "<": ("strictly less than", "strictly smaller than", "less than", "fewer than", "smaller than"),
}  # fmt: skip
_BY_WORDS = {words: sign for sign, every in _SIGN_OF.items() for words in every}
_BEHIND = {
    **dict.fromkeys(("or more", "or greater", "or larger", "or above", "or higher", "and above", "and more"), "\\ge"),
    **dict.fromkeys(("or less", "or fewer", "or smaller", "or below", "or lower", "and below"), "\\le"),
}
_VALUE = r"[-+]?\s*(?:\d|\\(?:frac|sqrt|pi)(?![a-z])|\.\d)(?:[\d.,/{}\[\]^+\-*() ]|\\(?:frac|sqrt|pi|cdot)(?![a-z]))*"
_NAME = r"(?:(?P<name>[A-Za-z])\s+(?:is|must be|can be|has to be)\s+|(?P<bare>[A-Za-z])\s+)?"


def _any(words: dict[str, str]) -> str:
    return "|".join(sorted((re.escape(w).replace("\\ ", r"\s+") for w in words), key=len, reverse=True))


_BEFORE_VALUE = re.compile(rf"{_NAME}(?P<words>{_any(_BY_WORDS)})\s+(?P<value>{_VALUE})", re.IGNORECASE)
_BEHIND_VALUE = re.compile(rf"{_NAME}(?P<value>{_VALUE}?)\s*,?\s+(?P<words>{_any(_BEHIND)})", re.IGNORECASE)
_ENDS = re.compile(
    rf"(?:(?P<name>[A-Za-z])\s+(?:is\s+)?)?(?P<strictly>strictly\s+)?(?:from|between)\s+(?P<low>{_VALUE}?)\s+(?:to|and)"
    rf"\s+(?P<high>{_VALUE}?)(?:\s*,?\s*\(?(?P<how>inclusive|exclusive|both\s+inclusive|both\s+included)\)?)?",
    re.IGNORECASE,
)
_ALL = re.compile(
    r"(?:the set of )?all (?:real )?(?:numbers|reals|values|real values)(?: of)?(?: (?P<name>[A-Za-z]))?"
    r"(?: (?:such that|with|where|for which|satisfying|that are))? (?P<rest>\S.*)",
    re.IGNORECASE | re.DOTALL,
)
_EXCEPT = re.compile(r"(?:except(?: for)?|other than|excluding|but(?: not)?)\s+(?P<out>.+)", re.IGNORECASE | re.DOTALL)
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_TELLING = re.compile(
    r"than|least|most|clusive|between|\ball\b"
    r"|\b(?:or|and) (?:more|less|above|below|greater|larger|higher|fewer|smaller|lower)",
    re.IGNORECASE,
)


def by_bound_words(answer: str, gold: str, ask: Ask) -> Comparison | None:
    """Both in signs, where one is in words and both are parts of the line."""
    if not (_TELLING.search(answer) or _TELLING.search(gold)):
        return None
    signs = in_signs(answer), in_signs(gold)
    if signs == (answer, gold) or not all(has_relation(s) or read_domain(s) is not None for s in signs):
        return None
    return ask(*signs)


def in_signs(text: str) -> str:
    """The text in signs; as it is where it is no bound."""
    words = " ".join(_TEXT.sub(r" \1 ", text).split()).rstrip(".")
    return _signs(words) or text


def _signs(words: str) -> str:
    if (every := _ALL.fullmatch(words)) is not None:
        if (out := _EXCEPT.fullmatch(every["rest"])) is not None:
            items = [item.split("=")[-1].strip() for item in split_top(out["out"])]
            return f"\\mathbb{{R}}\\setminus\\{{{', '.join(items)}\\}}"
        return _signs(every["rest"]) or (every["rest"] if has_relation(every["rest"]) else "")
    if (bound := _BEFORE_VALUE.fullmatch(words)) is not None:
        sign = _BY_WORDS[" ".join(bound["words"].lower().split())]
    elif (bound := _BEHIND_VALUE.fullmatch(words)) is not None:
        sign = _BEHIND[" ".join(bound["words"].lower().split())]
    else:
        return _between(words)
    return f"{bound['name'] or bound['bare'] or ''} {sign} {bound['value'].strip()}".strip()


def _between(words: str) -> str:
    ends = _ENDS.fullmatch(words)
    if ends is None or not (ends["how"] or ends["strictly"]):
        return ""  # whether the ends belong to it, it does not say
    closed = "inclu" in (ends["how"] or "").lower()
    inner = f"{ends['low'].strip()},{ends['high'].strip()}"
    domain = f"[{inner}]" if closed else f"({inner})"
    return f"{ends['name']} \\in {domain}" if ends["name"] else domain
