r"""What stands beside an answer and is no part of it: conditions on its letters, labels, roundings, choice letters.

A condition (`, k \in \mathbb{Z}`, "for any constant c") may be missing on one side; where both sides state one, the two
must agree. Words that change or deny the value are no aside (`or more`, `if not`), and stay where they are.

>>> split_condition("\\frac{\\pi}{4}+k\\pi, k \\in \\mathbb{Z}")
('\\frac{\\pi}{4}+k\\pi', 'k', 'Z')
>>> exact_part("2\\pi \\approx 6.28")
('2\\pi', '6.28')
"""

from __future__ import annotations

import re

from chorus.reward_server.graders.math.shapes import split_top

_LETTERS = r"[A-Za-z](?:_\{?\w\}?)?(?:\s*(?:,|and|\\text\s*\{\s*and\s*\})\s*[A-Za-z](?:_\{?\w\}?)?){0,3}"
_TEXT_START = r"(?:\\text\s*\{\s*,?\s*\(?|\()?"
_SET = (
    r"(?:\\mathbb\s*\{?\s*(?P<set>[ZNRQC])\s*\}?|\\text\s*\{\s*(?P<bold>[ZNRQC])\s*\}|"
    r"(?P<bare>[ZNRQC])(?![A-Za-z]))(?P<part>\s*[\^_]\s*(?:\{[^{}]{0,8}\}|[+*\d]))?"
)
_MEMBER_WORDS = (
    r"(?:\\text\s*\{\s*,?\s*(?:where|for|with|for all|for any)?\s*\}|\\forall|where|for(?: all| any)?|with)?"
)
_MEMBER = re.compile(
    rf"(?P<before>.*?[^\s,;(])\s*(?:(?:[,;:(]\s*)+{_MEMBER_WORDS}\s*(?P<letters>{_LETTERS})"
    rf"|\s{_MEMBER_WORDS}\s*(?P<letter>[A-Za-z](?:_\{{?\w\}}?)?))"  # two letters behind a space: `k, k \\in`
    rf"\s*\\in(?![a-z])\s*{_SET}\s*\)?",
    re.DOTALL,
)
_BAR = r"\s*(?:\\mid(?![a-z])|:|\|)\s*"
_DESCRIBED = re.compile(
    rf"\\\{{\s*(?:(?P<name>[A-Za-z]){_BAR}(?P<rest>.+)|(?P<inner>(?![A-Za-z]\s*\\in).+?)"
    rf"{_BAR}(?P<condition>{_LETTERS}\s*\\in(?![a-z]).+?))\s*\\\}}",
    re.DOTALL,
)
_KIND = (
    r"(?:(?:any|an?|all|some|every|each|real|positive|negative|nonnegative|non-negative|nonzero|non-zero"
    r"|arbitrary|complex|rational|natural)\s+)*(?:integers?|constants?|reals?|numbers?|natural"
    r"|real numbers?)"
)
_WORDS_BEHIND = re.compile(
    rf"(?P<before>.*?[^\s,;(\\])\s*[,;(]*\s*(?:\\text\s*\{{)?\s*[,(]*\s*(?:"
    rf"(?:where|for|with|and)\s+(?:\}}\s*)?{_LETTERS}\s*(?:\\text\s*\{{)?\s*(?:is|are|being)\s+{_KIND}"
    rf"|(?:where|for|with)\s+{_KIND}\s*(?:\}}\s*)?(?:{_LETTERS})?"
    rf"|for\s+(?:all|any|every|each)\s*(?:real\s*|positive\s*|\}}\s*|integers?\s*"
    rf"|values? of\s*)*(?:{_LETTERS})?(?:\s*\\in\s*\\mathbb\s*\{{?[RZNQC]\}}?)?"
    rf"|{_LETTERS}\s*(?:\\text\s*\{{)?\s*(?:is|are|being)\s+{_KIND}"
    rf"|{_LETTERS}\s*(?:\\text\s*\{{)?\s*,?\s*{_KIND}"
    r")\s*\)?\s*\}?\s*\)?\.?",
    re.DOTALL,
)
_RESTRICTION = re.compile(
    r"(?P<before>.*?[^\s,;(])\s*(?:(?P<open>,?\s*\()|[,;]|\\text\s*\{\s*,?\s*(?:for|where|when|if"
    r"|with)\s*\})\s*(?:\\text\s*\{\s*(?:for|where|when|if|with)\s*\}\s*)?"
    r"(?P<condition>(?:-?[\w\\{}/]{1,12}\s*(?:<|\\le(?![a-z]))\s*)?(?P<letter>[a-zA-Z])\s*(?:\\ne|>|<|\\ge|\\le)(?![a-zA-Z])\s*-?[\w\\{}/]{1,12})"
    r"\s*(?(open)\))",
    re.DOTALL,
)
_LABEL = re.compile(
    r"\s*\\text\s*\{\s*(?P<words>[A-Za-z][A-Za-z ']{0,40}?)\s*"
    r"(?:(?::|=|\bis\b|\bare\b|\bequals\b)\s*\}|(?<=\w\w)\}\s*[:=])\s*(?=\S)"
)
_NO_LABEL = re.compile(
    r"\b(?:not|either|neither|or|at|least|most|than|wrong|if|but|no|never|about|unless|option|choice)\b", re.IGNORECASE
)
# In front of the answer alone they say that the value is meant to be another one.
TURNING = re.compile(r"\b(?:opposite|bound|guess|minus|negative|reciprocal|half|twice)\b", re.IGNORECASE)
_EMPTY_WORDS = frozenset(
    {"the", "a", "an", "so", "then", "thus", "hence", "therefore", "answer", "final", "value", "result", "of", "total"}
)
# Of what (the first letter) they are, and which of it.
_OPPOSED_TEXT = """
e1 max maximum maximal largest greatest highest biggest most longest upper
e2 min minimum minimal smallest least lowest shortest fewest lower
c1 vertex vertices
c2 focus foci
c3 center centre
c4 directrix
d1 length
d2 width breadth
d3 height depth
p1 odd
p2 even
o1 first
o2 second
o3 third
m1 perimeter circumference
m2 area
m3 volume
a1 mean average
a2 median
a3 mode
"""
_OPPOSED = {row.split()[0]: frozenset(row.split()[1:]) for row in _OPPOSED_TEXT.strip().splitlines()}
_APPROX_WORDS = re.compile(
    r"(?P<before>.*\S)\s*\\text\s*\{\s*(?:,|or|\()?\s*(?:which is )?(?:approximately|about|approx\.?|roughly)"
    r"\s*(?P<behind>-?[\d.,]+)[^{}]{0,20}\}\s*",
    re.DOTALL,
)
_APPROX = re.compile(
    r"\\(?:approx|simeq|sim|doteq)(?![a-zA-Z])|\\text\s*\{\s*(?:,|or|\()?\s*(?:approximately|about"
    r"|approx\.?|roughly)\s*\}"
)
_LETTER = re.compile(
    r"\(?\s*(?:\\text\s*\{\s*)?(?:[Oo]ption\s+|[Cc]hoice\s+)?\(?\s*(?P<letter>[A-J])\s*\)?[.:]?\s*\}?\s*\)?[.:]?"
)
_LABELLED = re.compile(
    r"(?:\\text\s*\{\s*(?:option|choice)?\s*\(?\s*(?P<wrapped>[A-J])\s*[).:]\s*\}?|\(\s*"
    r"(?P<plain>[A-J])\s*\)|(?P<open>[A-J])\s*[).:]"
    r"|(?:\\text\s*\{\s*)?(?:option|choice)\s+\(?(?P<named>[A-J])\)?[.:]?\s*\}?)\s*(?P<rest>.*)",
    re.DOTALL | re.IGNORECASE,
)


def undescribed(text: str) -> str:
    """`\\{2k\\pi \\mid k \\in \\mathbb{Z}\\}` as the formula with its condition behind it."""
    if not text.startswith("\\{") or (found := _DESCRIBED.fullmatch(text)) is None:
        return text
    if found["rest"] is not None:
        return found["rest"] if split_condition(found["rest"])[1] not in ("", found["name"]) else text
    return f"{found['inner']}, {found['condition']}"


def split_condition(text: str) -> tuple[str, str, str]:
    """(the text without its condition, the letters of the condition, the set or kind that they are of)."""
    if "\\in" in text and (found := _MEMBER.fullmatch(text)) is not None:
        domain = (found["set"] or found["bold"] or found["bare"]) + (found["part"] or "").replace(" ", "")
        return _closed(found["before"]), (found["letters"] or found["letter"]).strip(), domain
    if "\\text" in text or re.search(r"\b(?:where|for|integer|constant)", text):
        found = _WORDS_BEHIND.fullmatch(text)
        behind = text[found.end("before") :] if found else ""
        if found is not None and not _RELATION.search(behind):
            return _closed(found["before"]), "", next((s for word, s in _KINDS.items() if word in behind), "")
    return text, "", ""


def split_restriction(text: str) -> tuple[str, str]:
    """(`x+1, x \\ne 1` without the restriction of its variable, the restriction)."""
    found = _RESTRICTION.fullmatch(text)
    if found is None or found["letter"] not in _variables(found["before"]):
        return text, ""
    return _closed(found["before"]), found["condition"]


def labels(text: str) -> dict[str, str] | None:
    """What the parts of `\\text{Tom is } 12, \\text{Ann is } 8` are called, and what they are; None without labels."""
    found = [_label(item) for item in split_top(text)]
    if not found or (first := found[0]) is None:
        return None
    if not any(found[1:]):  # one label of a value or of a list
        return {first["words"].casefold(): text.lstrip()[first.end() :]}
    named = {label["words"].casefold(): label.string[label.end() :] for label in found if label}
    return named if len(named) == len(found) else None


def _label(text: str) -> re.Match[str] | None:
    label = _LABEL.match(text)
    return None if label is None or _NO_LABEL.search(label["words"]) else label


def same_label(one: str, other: str) -> bool:
    """Whether two labels of a list name the same thing: what one says and the other does not is no other name."""
    words = [{word.removesuffix("'s") for word in label.split()} - _EMPTY_WORDS for label in (one, other)]
    return not at_odds(one, other) and (words[0] <= words[1] or words[1] <= words[0])


def at_odds(one: str, other: str) -> bool:
    """Whether two labels can't be of one value: a maximum is no minimum. "Price" and "cost" may be."""
    kinds = [{kind for kind, words in _OPPOSED.items() if words & set(label.split())} for label in (one, other)]
    return any(a != b and a[0] == b[0] for a in kinds[0] for b in kinds[1])


def exact_part(text: str) -> tuple[str, str] | None:
    """(what stands before "approximately", what behind), or None; the name of a quantity before it is no value."""
    if (worded := _APPROX_WORDS.fullmatch(text)) is not None:
        return worded["before"].strip(), worded["behind"].strip(" )")
    found = _APPROX.search(text)
    if found is None:
        return None
    before, behind = text[: found.start()].strip(" ,("), text[found.end() :].strip(" ,)")
    return before.strip(), behind.strip()


def letter_alone(text: str) -> str:
    """The choice letter that a text is, or ""."""
    found = _LETTER.fullmatch(text)
    return found["letter"] if found else ""


def labelled(text: str) -> tuple[str, str, bool]:
    """(letter, what it labels, whether the label is marked so) of `\\text{(C)} 12`; ("", text, False) of others."""
    found = _LABELLED.fullmatch(text)
    if found is None or not found["rest"].strip():
        return "", text, False
    letter = found["wrapped"] or found["plain"] or found["open"] or found["named"]
    rest = found["rest"].strip()
    if rest.endswith("}") and rest.count("{") < rest.count("}"):
        rest = rest[:-1].strip()
    return letter.upper(), rest, not found["plain"]


_RELATION = re.compile(r"[<>=]|\\(?:le|ge|ne|not)(?![a-z])|\bnot\b|\bor\b")
_KINDS = {"integer": "Z", "natural": "N", "real": "R"}


def _closed(text: str) -> str:
    text = text.strip().rstrip(",;:").strip()
    return text[:-1].strip() if text.endswith("(") else text


def _variables(text: str) -> set[str]:
    return set(re.findall(r"(?<![\\A-Za-z])[A-Za-z](?![A-Za-z])", text)) | set(
        re.findall(r"(?<=\d)[a-z](?![A-Za-z])", text)
    )
