r"""A value of a row: a path into nested columns, then steps.

    reward_model.ground_truth          a column within a column, also where that one is JSON in a string
    prompt.0.content                   the first item of a list; -1 is the last
    solution|boxed                     what the last \boxed{} holds
    answer|after:####                  what follows the last ####; before:#### what stands before it
    response|match:The answer is (.*)  the last match of a pattern, or of its first group
    question|cut:\s*Think hard\.$      without what the pattern matches
    golds|first                        of a list, also of one that is JSON in a string; `joined` by commas; `several`:
                                       each is right. `several?` leaves a text alone that is no list of texts
    answer|index                       which of the choices, from 0 (`index:1`: from 1); or by `letter`, or by `text`

`cut` and `match` take all the rest as their pattern, so each is the last step.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

WAYS = ("letter", "index", "text")  # in which an answer may name one of the choices
_PLAIN = ("boxed", "first", "joined", "several", "several?", *WAYS)
_WITH_TEXT = ("after", "before", "match", "cut")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:\{|(?P<bare>[^\s{}$\\]+))")
_LIST_OF_TEXTS = re.compile(r"\[\s*[\"'].*[\"']\s*\]", re.DOTALL)
_UNPARTED = re.compile(r"([\"'])\s+\1")  # ['a' 'b'], as numpy prints lists: Python would read one text


class NoColumn(ValueError):
    """The row has no such column."""


class Unusable(ValueError):
    """One row can't be trained on. `reason` is what such rows are counted under; `gold` what was read."""

    def __init__(self, reason: str, said: str, gold: str = "") -> None:
        super().__init__(said)
        self.reason, self.gold = reason, gold


@dataclass(frozen=True)
class Column:
    """`path|step|step:argument`, read. Raises ValueError for a step that is none."""

    path: str
    steps: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Column:
        path, *rest = text.split("|")
        steps: list[tuple[str, str]] = []
        while rest:
            name, colon, argument = rest.pop(0).partition(":")
            name = name.strip()
            if name in ("match", "cut") and colon:
                argument, rest = "|".join([argument, *rest]), []
                compiled(argument, text)
            elif not (
                (name in _WITH_TEXT and argument) or (name in _PLAIN and not colon) or (name, argument) in _COUNTED
            ):
                known = ", ".join([*_PLAIN, "index:1", *(f"{n}:..." for n in _WITH_TEXT)])
                raise ValueError(f"{text!r}: the step {name!r} is not understood; use one of {known}")
            steps.append((name, argument))
        return cls(path, tuple(steps))

    @property
    def way(self) -> tuple[str, str] | None:
        """How an answer names its choice, where the column says so."""
        return next((step for step in self.steps if step[0] in WAYS), None)

    def of(self, row: Any) -> Any:
        """The value, None where there is none. Raises NoColumn, Unusable, and ValueError for a step that can't be."""
        value = self.found(row)
        for name, argument in self.steps:
            if value is not None and name not in WAYS:
                value = _step(value, name, argument, self.path)
        return value

    def found(self, row: Any) -> Any:
        """What stands at the path; of several paths with commas between them, a tuple."""
        try:
            return look_up(row, self.path)
        except NoColumn:
            if "," not in self.path:
                raise
            return tuple(look_up(row, part.strip()) for part in self.path.split(","))


_COUNTED = {("index", "0"), ("index", "1")}


def look_up(row: Any, path: str) -> Any:
    """The value at a path; None within what is null. A key may have dots of its own. Raises NoColumn."""
    inside = parsed(row) if isinstance(row, str) else row
    if isinstance(inside, Mapping):
        if path in inside:
            return inside[path]
        for dot in (found.start() for found in re.finditer(r"\.", path)):
            if path[:dot] in inside:
                try:
                    below = inside[path[:dot]]
                    return None if below is None else look_up(below, path[dot + 1 :])
                except NoColumn:
                    continue
    if isinstance(inside, list):
        head, _, rest = path.partition(".")
        if re.fullmatch(r"-?\d+", head) and -len(inside) <= int(head) < len(inside):
            item = inside[int(head)]
            return look_up(item, rest) if rest and item is not None else item
    raise NoColumn(path)


def columns_of(row: Mapping[str, Any]) -> str:
    """The row's columns as a spec would name them, those within objects too."""
    return ", ".join(name for key, value in row.items() for name in _names(str(key), value))


def _names(key: str, value: Any) -> Iterator[str]:
    inside = parsed(value) if isinstance(value, str) else value
    if isinstance(inside, Mapping) and inside:
        yield from (f"{key}.{below}" for below in inside)
    else:
        yield key


def parsed(text: str) -> Any:
    """The list or the object that a text spells, as JSON or as Python prints it; else None."""
    text = text.strip()
    if not text or text[0] + text[-1] not in ("[]", "{}") or len(text) > 2**24:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        try:
            value = None if _UNPARTED.search(text) else ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    return value if isinstance(value, dict | list) else None


def as_text(value: Any) -> str:
    """A value as the text of an answer: a whole number has no point, and what is no number is nothing."""
    if value is None or value != value:
        return ""
    if isinstance(value, bytes):
        raise Unusable("bytes that are no text", f"{value!r:.40} are bytes that are no UTF-8; name another column")
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    return str(value).strip()


def compiled(pattern: str, given: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{given!r}: the pattern {pattern!r} can't be read ({error}); mend it") from None


def _step(value: Any, name: str, argument: str, path: str) -> Any:
    if name in ("first", "joined", "several"):
        return _of_list(value, name, path)
    if name == "several?":
        texts = parsed(value) if isinstance(value, str) and _LIST_OF_TEXTS.fullmatch(value.strip()) else None
        return value if texts is None else _of_list(texts, "several", path)
    if isinstance(value, list | tuple | dict):
        raise ValueError(f"{path} is a {_kind(value)} where `{name}` needs a text; put `first` or `joined` before it")
    return _of_text(as_text(value), name, argument, path)


def _of_list(value: Any, name: str, path: str) -> Any:
    inside = parsed(value) if isinstance(value, str) and value.strip().startswith("[") else value
    if inside is None or isinstance(inside, dict):
        raise Unusable("no list", f"{path} {str(value)!r:.80} can't be read as a list")
    items = list(inside) if isinstance(inside, list | tuple) else [inside]
    if name == "several":
        return items
    if name == "first":
        return items[0] if items else None
    return ", ".join(map(as_text, items))


def _of_text(text: str, name: str, argument: str, path: str) -> str:
    if name == "boxed":
        return _boxed(text, path)
    if name == "cut":
        return re.sub(argument, "", text).strip()
    if name == "match":
        matches = list(re.finditer(argument, text))
        if not matches:
            raise Unusable(f"no match in {path}", f"{path} {text[-80:]!r} has nothing that matches {argument!r}")
        return (matches[-1][1 if matches[-1].re.groups else 0] or "").strip()
    before, found, after = text.rpartition(argument)
    if not found:
        raise Unusable(f"no {argument} in {path}", f"{path} {text[-80:]!r} has no {argument!r}")
    return (after if name == "after" else before).strip()


def _boxed(text: str, path: str) -> str:
    r"""What the last box holds; its line breaks mean nothing to LaTeX.

    >>> _boxed(r"so \boxed{1}, no: \boxed{\frac{1}{2}}.", "solution")
    '\\frac{1}{2}'
    """
    box = next(iter(list(_BOX.finditer(text))[-1:]), None)
    if box is None:
        raise Unusable(f"no \\boxed in {path}", f"{path} {text[-80:]!r} has no \\boxed{{}}")
    if box["bare"]:
        return box["bare"].rstrip(".,;")
    depth = 1
    for at in range(box.end(), len(text)):
        if text[at - 1] != "\\" and text[at] in "{}":
            depth += 1 if text[at] == "{" else -1
        if not depth:
            return " ".join(text[box.end() : at].split())
    raise Unusable(f"no \\boxed in {path}", f"{path} {text[-80:]!r} has a \\boxed{{ that never closes")


def _kind(value: Any) -> str:
    return "object" if isinstance(value, dict) else "list"
