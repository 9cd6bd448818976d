r"""Vectors in all their writings, as tuples: in unit vectors, as a multiple, as a column that was turned.

>>> in_components("2 i -3 k")
'(2,0,-3)'
>>> multiplied_out("\\frac{1}{2}(1,3)")
'(\\frac{1}{2} \\cdot (1),\\frac{1}{2} \\cdot (3))'
"""

from __future__ import annotations

import re

from chorus.reward_server.graders.math.comparison import Ask, Comparison
from chorus.reward_server.graders.math.shapes import read_shape

_UNIT = re.compile(r"(?<![A-Za-z\\])(?:\\text\s*\{\s*)?(?:\\hat\s*)?\{?\s*(?P<unit>[ijk])\s*\}?(?:\s*\})?(?![A-Za-z])")
_LAST_UNIT = re.compile(rf"(?P<factor>.*?)\s*(?:\\cdot\s*)?{_UNIT.pattern}\s*$", re.DOTALL)
_BRACED = r"\{[^{}]*(?:\{[^{}]*\}[^{}]*)?\}"
_FACTOR = re.compile(  # possessive: a long number is one piece
    rf"(?P<factor>-|-?\s*(?:(?>\d+(?:\.\d+)?(?:/\d+)?|\\frac{_BRACED}{_BRACED}|\\sqrt\{{\d+\}}|\\pi(?![a-z])|\s+))+)"
    r"\s*(?:\\cdot(?![a-z])|\*)?\s*(?P<of>[(\[<]\s*[^()\[\]]*[,;].*|\\langle.*)",
    re.DOTALL,
)


def by_vector(answer: str, gold: str, ask: Ask) -> Comparison | None:
    """Both as tuples, where one is in unit vectors or a multiple and the other has coordinates."""
    plain = multiplied_out(answer), multiplied_out(gold)
    if plain != (answer, gold):
        return ask(*plain)
    written = in_components(answer), in_components(gold)
    if written == (answer, gold):
        return None
    shapes = [read_shape(text) for text in written]
    if any(shape is None or shape.kind not in ("tuple", "matrix") for shape in shapes):
        return None
    return ask(*_of_one_length(*written))


def in_components(text: str) -> str:
    """A sum of multiples of i, j and k as a tuple; as it is without a j or a k, where i is the imaginary unit."""
    if not re.search(r"[jk]", text) or len(text) > 200:
        return text
    parts = {"i": "0", "j": "0", "k": "0"}
    depth, terms, start = 0, [], 0
    for at, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character in "+-" and depth == 0 and text[start:at].strip():
            terms.append(text[start:at])
            start = at
    for term in (*terms, text[start:]):
        found = _LAST_UNIT.fullmatch(term.strip())
        if found is None or _UNIT.search(found["factor"]) or parts[found["unit"]] != "0":
            return text
        factor = found["factor"].replace(" ", "") or "1"
        parts[found["unit"]] = factor + "1" if factor in ("+", "-") else factor.lstrip("+")
    if parts["j"] == parts["k"] == "0" or any("," in part for part in parts.values()):
        return text
    return f"({','.join(value for unit, value in parts.items() if unit != 'k' or value != '0')})"


def multiplied_out(text: str) -> str:
    """A number times a tuple, coordinate by coordinate."""
    found = _FACTOR.fullmatch(text.strip())
    if found is None or not found["factor"].strip():
        return text
    shape = read_shape(found["of"].strip())
    if shape is None or shape.kind != "tuple" or shape.brackets not in ("()", "[]", "<>"):
        return text
    factor = found["factor"].strip()
    items = ",".join(f"-({item})" if factor == "-" else f"{factor} \\cdot ({item})" for item in shape.items)
    return f"({items})"


def _of_one_length(one: str, other: str) -> tuple[str, str]:
    """`i + 2j` in the plane and in space."""
    lengths = [len(shape.items) if (shape := read_shape(text)) else 0 for text in (one, other)]
    if lengths == [2, 3] and one.startswith("("):
        return f"{one[:-1]},0)", other
    if lengths == [3, 2] and other.startswith("("):
        return one, f"{other[:-1]},0)"
    return one, other
