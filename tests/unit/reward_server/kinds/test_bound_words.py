"""Bounds in words and open ends with brackets turned outwards: the part of the line counts."""

import hypothesis.strategies as st
import pytest
from forge import inputs
from hypothesis import given
from kinds import FEW, accepts

BOUNDS = {
    r"\ge": [r"\text{at least } %s", r"x \text{ is at least } %s", r"%s \text{ or more}", r"\text{no less than } %s"],
    r"\le": [
        r"\text{at most } %s",
        r"%s \text{ or less}",
        r"\text{no more than %s}",
        r"x \text{ is less than or equal to } %s",
    ],
    ">": [r"\text{more than } %s", r"\text{greater than } %s", r"x \text{ must be greater than } %s"],
    "<": [r"\text{less than } %s", r"\text{fewer than } %s", r"\text{all real numbers less than } %s"],
}
ends = st.lists(st.integers(-50, 50), min_size=2, max_size=2, unique=True).map(sorted)


@inputs(2 * FEW)
@given(st.sampled_from(sorted(BOUNDS)), st.sampled_from(sorted(BOUNDS)), st.integers(-99, 99), st.data())
def test_a_bound_in_words_is_its_sign(sign, other, number, data):
    words = data.draw(st.sampled_from(BOUNDS[sign])) % number
    assert accepts(words, f"x {sign} {number}")
    assert accepts(f"x {sign} {number}", words)
    assert not accepts(words, str(number))
    assert not accepts(words, f"x {sign} {number + 1}")
    if other != sign:
        assert not accepts(words, f"x {other} {number}")


@inputs(FEW)
@given(ends)
def test_both_ends_in_words(ends):
    low, high = ends
    inclusive = rf"\text{{from }} {low} \text{{ to }} {high} \text{{, inclusive}}"
    assert accepts(inclusive, f"[{low},{high}]")
    assert accepts(rf"\text{{between }} {low} \text{{ and }} {high} \text{{ inclusive}}", rf"{low} \le x \le {high}")
    assert accepts(rf"\text{{strictly between }} {low} \text{{ and }} {high}", f"({low},{high})")
    assert not accepts(inclusive, f"({low},{high})")
    for ends in (f"[{low},{high}]", f"({low},{high})"):
        assert not accepts(rf"\text{{between }} {low} \text{{ and }} {high}", ends)


@inputs(FEW)
@given(ends)
def test_all_but_some(ends):
    a, b = ends
    gold = rf"\mathbb{{R}} \setminus \{{{a}, {b}\}}"
    assert accepts(rf"\text{{all real numbers except }} {a} \text{{ and }} {b}", gold)
    assert accepts(rf"\text{{All real numbers except }} x={b} \text{{ and }} x={a}", gold)
    assert not accepts(rf"\text{{all real numbers except }} {a}", gold)


@inputs(2 * FEW)
@given(ends, st.sampled_from(["()", "[)", "(]", "[]"]), st.sampled_from(",;"))
def test_open_ends_have_their_brackets_turned(ends, kind, between):
    low, high = ends
    turned = ("]" if kind[0] == "(" else "[") + f"{low}{between}{high}" + ("[" if kind[1] == ")" else "]")
    gold = f"{kind[0]}{low},{high}{kind[1]}"
    assert accepts(turned, gold)
    assert accepts(rf"{turned} \cup ]{high + 1}, \infty[", rf"{gold} \cup ({high + 1}, \infty)")
    for other in {"()", "[)", "(]", "[]"} - {kind}:
        assert not accepts(turned, f"{other[0]}{low},{high}{other[1]}")


@pytest.mark.parametrize("gold", ["3", r"3 \text{ apples}"])
def test_beside_a_value_a_bound_is_another_answer(gold):
    assert not accepts(r"\text{at least } 3", gold)
    assert not accepts(r"3 \text{ or more}", gold)
