"""Answers with parts: sets, lists, tuples and matrices, told apart by their brackets. No sympy here.

>>> read_shape("\\\\{1, 2\\\\}")
Shape(kind='set', items=('1', '2'), brackets='', columns=0)
>>> read_shape("(1, \\\\frac{1}{2})").items
('1', '\\\\frac{1}{2}')
>>> read_shape("1 \\\\pm \\\\sqrt{2}").items
('1 + \\\\sqrt{2}', '1 - \\\\sqrt{2}')
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Literal

MAX_COMPARISONS = 2500  # of parts in either order; more parts than that must agree as text

_OPEN, _CLOSE = "([{", ")]}"
_BETWEEN = re.compile(
    r"[,;]|\\text\s*\{\s*(?:and|or)\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|\\(?:lor|vee)(?![a-z])"
)
_MATRIX = re.compile(
    r"[(\[]?\s*\\begin\{(?P<name>[pbB]?matrix|smallmatrix|array)\}(?:\{[lcr| ]*\})?(?P<body>.*?)"
    r"\\end\{(?P=name)\}\s*[)\]]?",
    re.DOTALL,
)
_SYSTEM = re.compile(
    r"(?:(?:\\\{|\[)\s*)?\\begin\{(?P<name>cases|aligned|array|gathered)\}(?:\{[lcr ]*\})?(?P<body>.*?)"
    r"\\end\{(?P=name)\}",
    re.DOTALL,
)
_NAMED_TUPLE = re.compile(r"\((?P<names>[A-Za-z](?:\s*,\s*[A-Za-z])+)\)\s*=\s*\((?P<values>.+)\)", re.DOTALL)
_NAMED_ALIKE = re.compile(r"(?P<names>[A-Za-z](?:\s*=\s*[A-Za-z])+)\s*=\s*(?P<value>(?!\s*[A-Za-z]\s*$)[^=,;<>]+)")
_NAMED = re.compile(  # x, a_1, \alpha, f(1), \angle ABC, AB
    r"\s*(?P<name>[A-Za-z](?:_\{?\w+\}?)?'*(?:\([^()=]{1,20}\))?|\\angle\s*[A-Z]{1,3}|[A-Z]{2,3}|\\[a-z]+)"
    r"\s*=(?!=)\s*(?P<value>.+)",
    re.DOTALL,
)
_MEMBER = re.compile(r"\s*[A-Za-z]\s*\\in(?![a-z])\s*(?=\\?[{(\[])")
_ANGLED = re.compile(r"(?:\\langle(?![a-z])|<)(?P<items>.*)(?:\\rangle|>)", re.DOTALL)
_LEFT_ANGLE, _RIGHT_ANGLE = re.compile(r"\\langle(?![A-Za-z])"), re.compile(r"\\rangle(?![A-Za-z])")
_SIGNS = re.compile(r"\\(?:pm|mp)(?![a-z])")
_POINT_NAME = re.compile(r"[A-Z](?=\()")
_TURNED = re.compile(r"(?P<of>.*[)\]}])\s*\^\s*(?:T|\{\s*T\s*\})", re.DOTALL)
_ROW = re.compile(r"\[[^\[\]]*\]")


@dataclass(frozen=True)
class Shape:
    """An answer's parts. A tuple keeps its `brackets`, a matrix its rows one after the other and `columns`."""

    kind: Literal["set", "list", "tuple", "matrix"]
    items: tuple[str, ...]
    brackets: str = ""
    columns: int = 0


def read_shape(text: str) -> Shape | None:
    """The parts of a normalised answer, or None when it is a single thing."""
    text = _MEMBER.sub("", text).strip()
    if (turned := _TURNED.fullmatch(text)) is not None:
        return _transposed(read_shape(turned["of"]))
    if (system := _SYSTEM.fullmatch(text)) is not None and (rows := _system(system["body"])) is not None:
        return rows
    if (matrix := _MATRIX.fullmatch(text)) is not None:
        return _matrix(matrix["body"])
    if (names := _NAMED_TUPLE.fullmatch(text)) is not None and (items := _assigned(names["names"], names["values"])):
        return Shape("list", items)
    if (chain := _NAMED_ALIKE.fullmatch(text)) is not None:
        return Shape("list", tuple(f"{name}={chain['value']}" for name in re.findall("[A-Za-z]", chain["names"])))
    if text.startswith("\\{") and text.endswith("\\}") and _closes_at_end(text[1:]):
        inner = text[2:-2]
        if re.search(r":|\\mid|\|", inner):
            return None  # a set described, not listed
        return Shape("set", tuple(_expanded(split_top(inner))))
    if (angle := _ANGLED.fullmatch(text)) is not None and len(items := split_top(angle["items"], ",;")) > 1:
        return Shape("tuple", tuple(items), "<>")
    text = _RIGHT_ANGLE.sub(")", _LEFT_ANGLE.sub("(", text)) if "angle" in text else text
    bare = _POINT_NAME.sub("", text, count=1) if _POINT_NAME.match(text) else text
    if bare[:1] in ("(", "[") and bare[-1:] in (")", "]") and _closes_at_end(bare):
        items = split_top(bare[1:-1], ",;")
        if bare[0] == "[" and all(_ROW.fullmatch(item) for item in items) and (rows := _rows(items)) is not None:
            return rows
        if len(items) < 2:
            return None
        if (several := _both_signs(bare)) is not None:
            return Shape("list", several)
        return Shape("tuple", tuple(items), bare[0] + bare[-1])
    items = _expanded(split_top(text))
    return Shape("list", tuple(items)) if len(items) > 1 else None


def split_top(text: str, separators: str | None = None) -> list[str]:
    """The pieces between separators that no bracket encloses; empty pieces are dropped."""
    depth, start, pieces = 0, 0, []
    at = 0
    while at < len(text):
        if depth == 0 and (found := _BETWEEN.match(text, at)) and (separators is None or found.group() in separators):
            pieces.append(text[start:at])
            start = at = found.end()
            continue
        depth += (text[at] in _OPEN) - (text[at] in _CLOSE)
        at += 1
    pieces.append(text[start:])
    return [piece.strip() for piece in pieces if piece.strip()]


def named(items: tuple[str, ...]) -> dict[str, str] | None:
    """Names to values when every item is `name = value` and no name occurs twice."""
    found = [_NAMED.fullmatch(item) for item in items]
    names = {re.sub(r"[{}\s]", "", match["name"]): match["value"] for match in found if match}
    return names if len(names) == len(items) else None


def is_equation(item: str) -> bool:
    """Whether an item is an equation that names no value: `3x + 2y = 0`."""
    return "=" in item and _NAMED.fullmatch(item) is None


def unnamed(items: tuple[str, ...]) -> tuple[str, ...]:
    """`x = 1, x = 2` and `x = 1, 2` without the name that all of them share."""
    found = [_NAMED.fullmatch(item) for item in items]
    if len({match["name"] for match in found if match}) != 1:
        return items
    return tuple(match["value"] if match else item for match, item in zip(found, items, strict=True))


def same_items(answer: tuple[str, ...], gold: tuple[str, ...], same: Callable[[str, str], bool]) -> bool:
    """Whether each item of one is in the other: order and repetition do not count."""
    left = [item for item in dict.fromkeys(answer) if item not in gold]
    missing = [item for item in dict.fromkeys(gold) if item not in answer]
    if len(left) * len(gold) + len(missing) * len(answer) > MAX_COMPARISONS:
        return False
    return all(any(same(a, g) for g in gold) for a in left) and all(any(same(a, g) for a in answer) for g in missing)


def _expanded(items: list[str]) -> list[str]:
    """`a \\pm b` stands for two items."""
    pairs = [_both_signs(item) or (item,) for item in items]
    return [item.strip() for pair in pairs for item in pair]


def _both_signs(item: str) -> tuple[str, ...] | None:
    """The two items that `\\pm` stands for; with a second `\\pm` the signs are free, and `\\mp` is the opposite one."""
    count = len(_SIGNS.findall(item))
    if not count or count > 3:
        return None
    if "\\mp" in item or count == 1:
        plus = {"\\pm": "+", "\\mp": "-"}, {"\\pm": "-", "\\mp": "+"}
        return tuple(_SIGNS.sub(lambda m, signs=signs: signs[m.group()], item) for signs in plus)
    written = []
    for choice in product("+-", repeat=count):
        signs = iter(choice)
        written.append(_SIGNS.sub(lambda _, signs=signs: next(signs), item))
    return tuple(written)


def _matrix(body: str) -> Shape | None:
    rows = [row for row in re.split(r"\\\\", body) if row.strip()]
    cells = [[cell.strip() for cell in row.split("&")] for row in rows]
    if not cells or any(len(row) != len(cells[0]) for row in cells) or not all(all(row) for row in cells):
        return None
    return Shape("matrix", tuple(cell for row in cells for cell in row), columns=len(cells[0]))


def _rows(items: list[str]) -> Shape | None:
    """`[[1, 2], [3, 4]]`, as programs print a matrix."""
    rows = [split_top(item[1:-1], ",") for item in items]
    if not rows or not rows[0] or any(len(row) != len(rows[0]) for row in rows):
        return None
    return Shape("matrix", tuple(cell for row in rows for cell in row), columns=len(rows[0]))


def _transposed(shape: Shape | None) -> Shape | None:
    """A row as a column, a matrix with its rows as columns."""
    if shape is None or shape.kind not in ("tuple", "matrix"):
        return None
    columns = shape.columns or len(shape.items)
    cells = tuple(cell for column in range(columns) for cell in shape.items[column::columns])
    return Shape("matrix", cells, columns=len(cells) // columns)


def _assigned(names: str, values: str) -> tuple[str, ...]:
    """`(x, y) = (1, 2)` as `x=1` and `y=2`; nothing where there are more values, or several tuples."""
    pairs = list(zip(split_top(names, ","), split_top(values, ",;"), strict=False))
    alike = len(pairs) == len(split_top(names, ",")) == len(split_top(values, ",;"))
    return tuple(f"{name}={value}" for name, value in pairs) if alike and _closes_at_end(f"({values})") else ()


def _system(body: str) -> Shape | None:
    """`x = 1` and `y = 2` under one brace; rows with conditions are a piecewise definition, and no list."""
    rows = [row.replace("&", "").strip().rstrip(",;") for row in re.split(r"\\\\", body) if row.strip(" &")]
    if len(rows) < 2 or not all(_NAMED.fullmatch(row) and not re.search(r"[,;<>]|\\text", row) for row in rows):
        return None
    return Shape("list", tuple(rows))


def _closes_at_end(text: str) -> bool:
    depth = 0
    for at, character in enumerate(text):
        depth += (character in _OPEN) - (character in _CLOSE)
        if depth == 0:
            return at == len(text) - 1
    return False
