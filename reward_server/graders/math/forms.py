r"""Forms with rules of their own: times of day, congruences, piecewise definitions, chains of inequalities.

>>> read_time("3:45 PM"), read_time("15:45")
((225, 'pm'), (945, ''))
>>> read_congruence("n \\equiv 1 (mod 4)")
('n', '1', '4')
"""

from __future__ import annotations

import re

_TIME = re.compile(
    r"(?P<hour>\d{1,2})(?:\s*:\s*(?P<minute>\d{2}))?\s*(?:\\text\s*\{)?\s*"
    r"(?P<half>[ap]\.?\s?m\.?)?\s*\}?(?:\\text\s*\{\s*o'clock\s*\})?",
    re.IGNORECASE,
)
_NOON = {"noon": (720, "day"), "midnight": (0, "day"), "12 noon": (720, "day"), "12 midnight": (0, "day")}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = (
    r"(?P<month>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)\.?"
)
_DAY = r"(?:the )?(?P<day>\d{1,2})(?: ?(?:st|nd|rd|th))?"
_DATES = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (
        rf"{_MONTH} {_DAY}(?: ?,? ?(?P<year>\d{{4}}))?",
        rf"{_DAY}(?: of)? {_MONTH}(?: ?,? ?(?P<year>\d{{4}}))?",
        r"(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})",
    )
)
_CONGRUENCE = re.compile(
    r"(?:(?P<name>[A-Za-z])\s*\\equiv\s*)?(?P<residue>[^()=,]{1,80}?)\s*\(mod (?P<modulus>[^()]{1,40}?)\s*\)"
)
_CASES = re.compile(
    r"(?P<name>[A-Za-z]\s*(?:_\s*(?:\{[^{}]{1,8}\}|\w)\s*)?(?:\([a-z]\))?\s*=\s*)?(?:(?:\\\{\s*)?\\begin\{cases\}"
    r"|\\\{\s*\\begin\{(?:array|aligned)\}(?:\{[lcr ]*\})?)(?P<body>.*)\\end\{(?:cases|array|aligned)\}\s*\.?",
    re.DOTALL,
)
_CONDITION_WORDS = re.compile(r"\\text\s*\{\s*,?\s*(?:if|for|when|where|as)?\s*\}|^\s*(?:if|for|when)\b|[,;]\s*$|^\s*,")
_SAYING_NOTHING = re.compile(r"(?<![\\A-Za-z])(?:if|for|when|where|as|is|are)(?![A-Za-z])")
_OTHERWISE = re.compile(r"\\text\s*\{\s*(?:otherwise|else|elsewhere)\s*\}|otherwise|else", re.IGNORECASE)
_CHAIN = re.compile(r"\\(?:le|ge|lt|gt)(?![a-zA-Z])|[<>]")
_UP = {"<": "<", "\\lt": "<", "\\le": "<=", ">": ">", "\\gt": ">", "\\ge": ">="}


def read_time(text: str) -> tuple[int, str] | None:
    """(minutes since midnight or since the half day's begin, "am" | "pm" | "" | "day"), or None."""
    text = text.strip()
    if (noon := _NOON.get(re.sub(r"\\text|[{}]", "", text).strip().lower())) is not None:
        return noon
    found = _TIME.fullmatch(text)
    if found is None or (found["minute"] is None and not found["half"] and "o'clock" not in text):
        return None
    hour, minute = int(found["hour"]), int(found["minute"] or 0)
    half = re.sub(r"[^apm]", "", (found["half"] or "").lower())
    if minute > 59 or hour > (12 if half else 23):
        return None
    return (hour % 12 if half else hour) * 60 + minute, half


def read_date(text: str) -> tuple[int | None, int, int] | None:
    """(year or None, month, day) of a date with its month's name, or year first; None for anything else."""
    words = " ".join(re.sub(r"\\text|[{}]", " ", text).replace("^", " ").split()).strip(".")
    for form in _DATES:
        if (found := form.fullmatch(words)) is not None:
            month = found["month"].lower()
            number = int(month) if month.isdigit() else _MONTHS.index(month[:3]) + 1
            day = int(found["day"])
            return (int(found["year"]) if found["year"] else None, number, day) if number <= 12 and day <= 31 else None
    return None


def same_date(answer: tuple[int | None, int, int], gold: tuple[int | None, int, int]) -> bool:
    """The year may be missing on one side."""
    return answer[1:] == gold[1:] and (None in (answer[0], gold[0]) or answer[0] == gold[0])


def same_time(answer: tuple[int, str], gold: tuple[int, str]) -> bool:
    """Half days must agree where both say one; a time without one may be of 24 hours, or of the half that is meant."""
    minutes = [m + 720 * (half == "pm") for m, half in (answer, gold)]
    if minutes[0] == minutes[1]:
        return True
    halves = (answer[1], gold[1])
    return (
        "" in halves
        and halves != ("", "")
        and answer[0] % 720 == gold[0] % 720
        and min(minutes) < 720
        and halves[0] == ""
    )


def read_congruence(text: str) -> tuple[str, str, str] | None:
    """(name or "", residue, modulus) of a normalised congruence, or None."""
    if "mod" not in text:
        return None
    found = _CONGRUENCE.fullmatch(re.sub(r"\\?b?mod\s*\{?(\d+|[a-z])\}?$", r"(mod \1)", text.strip()))
    return (found["name"] or "", found["residue"].strip(), found["modulus"].strip()) if found else None


def read_cases(text: str) -> list[tuple[str, str]] | None:
    """The (value, condition) rows of a piecewise definition; "" is "otherwise". None for anything else."""
    found = _CASES.fullmatch(text.strip())
    if found is None:
        return None
    rows: list[tuple[str, str]] = []
    for row in re.split(r"\\\\(?:\[[^\]]{0,8}\])?", found["body"]):
        if not row.strip():
            continue
        cells = (
            row.split("&") if "&" in row else re.split(r",|\\text\s*\{\s*(?:if|for|when|where)\s*\}", row, maxsplit=1)
        )
        if len(cells) != 2:
            return None
        value, condition = (_CONDITION_WORDS.sub("", _CONDITION_WORDS.sub("", cell.strip())).strip() for cell in cells)
        rows.append((value.rstrip(",").strip(), _condition(condition)))
    return rows if rows else None


def _condition(text: str) -> str:
    """`\\text{if } n \\text{ is even}` as `n even`; "otherwise" as ""."""
    plain = _SAYING_NOTHING.sub(" ", re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", text).replace("$", ""))
    plain = " ".join(plain.strip(" ,;").split())
    return "" if _OTHERWISE.fullmatch(plain) else plain


def read_chain(text: str) -> tuple[list[str], list[str]] | None:
    """(sides, signs) of a chain of inequalities in one direction, read from its small end; None for anything else."""
    signs = [_UP[sign.group()] for sign in _CHAIN.finditer(text)]
    if not signs or len({sign[0] for sign in signs}) != 1 or re.search(r"[,;]|\\text|=", text):
        return None
    sides = [side.strip() for side in _CHAIN.split(text)]
    if not all(sides):
        return None
    if signs[0].startswith(">"):
        return sides[::-1], [sign.replace(">", "<") for sign in signs[::-1]]
    return sides, signs
