"""Which rows are taken: `where=level>=3`, `where=answer!=proof`, `where=source~^(amc|aime)`.

The signs: = != < <= > >= and, for patterns, ~ !~. Nothing behind `=` is an empty value. `column?` passes over the
condition where the row has no such column. Of a list one item must fit, or none for != and !~.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from chorus.problems.adapters.columns import NoColumn, as_text, columns_of, compiled, look_up

_CONDITION = re.compile(r"([^=!<>~]+?)(\?)?\s*(!=|>=|<=|!~|=|>|<|~)(.*)", re.DOTALL)
_ORDER: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
# "Level 5", "5", "grade 12", "L3". A level that nobody gave is none.
_LEVEL = re.compile(r"(?:[A-Za-z]+[\s:#-]*)?(\d{1,6})(?:\.0+)?")
_NO_LEVEL = re.compile(r"(?:level\s*)?(?:\?|n/?a|none|null|unknown|nan)?", re.IGNORECASE)


@dataclass(frozen=True)
class Where:
    """One condition, read. Raises ValueError for one that can't be."""

    text: str
    column: str
    sign: str
    value: str
    optional: bool = False

    @classmethod
    def parse(cls, text: str) -> Where:
        match = _CONDITION.fullmatch(text)
        if match is None:
            raise ValueError(f"where={text}: give a column, one of = != < <= > >= ~ !~, and a value")
        column, optional, sign, value = match.groups()
        if sign.endswith("~"):
            compiled(value, f"where={text}")
        elif sign in _ORDER:
            _number(value, text)
        return cls(text, column.strip(), sign, value.strip(), bool(optional))

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Raises ValueError where the column is not there or can't be compared so."""
        try:
            found = look_up(row, self.column)
        except NoColumn:
            if self.optional:
                return True
            raise ValueError(
                f"where={self.text}: there is no column {self.column!r}; the row has {columns_of(row)}"
            ) from None
        items = found if isinstance(found, list) else [found]
        if self.sign in _ORDER:
            return any(
                as_text(item) != "" and _ORDER[self.sign](self._level(item), float(self.value)) for item in items
            )
        fits = any(map(self._fits, items)) or (not items and self.value == "")
        return fits != self.sign.startswith("!")

    def _fits(self, item: Any) -> bool:
        text = as_text(item)
        if self.sign.endswith("~"):
            return re.search(self.value, text) is not None
        if isinstance(item, bool):
            return self.value.casefold() in (text.casefold(), str(int(item)), "yes" if item else "no")
        if isinstance(item, int | float) and text:
            return _is_number(self.value) and float(item) == float(self.value)
        return text == self.value

    def _level(self, item: Any) -> float:
        if isinstance(item, str) and not _is_number(item) and (level := _LEVEL.fullmatch(item.strip())):
            return float(level[1])
        return _number(item, self.text)


def level_of(value: Any) -> int | None:
    """A level as a whole number; None where there is none. Raises ValueError for words and parts of numbers."""
    text = as_text(value)
    if not isinstance(value, bool | list | dict):
        if (match := _LEVEL.fullmatch(text)) is not None:
            return int(match[1])
        if _NO_LEVEL.fullmatch(text):
            return None
        if re.fullmatch(r"-\d{1,6}", text):
            return int(text)
    raise ValueError(
        f"level: {text!r:.40} is no whole number; name a column that has one, or leave it out with `level=`"
    )


def _is_number(text: Any) -> bool:
    try:
        float(text)
    except (TypeError, ValueError):
        return False
    return True


def _number(value: Any, text: str) -> float:
    if not _is_number(value):
        raise ValueError(f"where={text}: {value!r:.40} is no number; compare it with = != ~ or !~")
    return float(value)
