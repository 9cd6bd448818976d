"""Formulas that bend or jump: equal on a stretch of the line is not equal."""

import hypothesis.strategies as st
from forge import inputs
from hypothesis import given
from kinds import FEW, accepts

letters = st.lists(st.sampled_from("abmnpxyz"), min_size=2, max_size=2, unique=True)
ends = st.integers(-9999, 9999)
factors = st.integers(2, 40)


@inputs(FEW)
@given(letters, factors)
def test_a_size_is_not_its_sum(letters, factor):
    (a, b) = letters
    gold = f"|{a}+{factor}{b}|"
    root = rf"\sqrt{{{a}^2+{2 * factor}{a}{b}+{factor**2}{b}^2}}"
    assert accepts(f"|{factor}{b}+{a}|", gold)
    assert accepts(f"|-{factor}{b}-{a}|", gold)
    assert accepts(root, gold)
    for wrong in (f"{a}+{factor}{b}", f"-{a}-{factor}{b}", f"|{a}|+{factor}|{b}|", f"|{a}-{factor}{b}|"):
        assert not accepts(wrong, gold)
        assert not accepts(wrong, root)


@inputs(FEW)
@given(ends)
def test_a_bend_is_found_wherever_it_is(end):
    sign = "-" if end >= 0 else "+"
    gold = f"|x{sign}{abs(end)}|"
    assert accepts(f"|{end}-x|", gold)
    assert accepts(rf"\max(x{sign}{abs(end)}, {end}-x)", gold)
    assert not accepts(f"{end}-x", gold)
    assert not accepts(f"x{sign}{abs(end)}", gold)
    smaller = rf"\min(n, {end})"
    assert accepts(rf"\min({end}, n)", smaller)
    assert not accepts("n", smaller)
    assert not accepts(str(end), smaller)
    assert not accepts(rf"\min(n, {end + 1})", smaller)


@inputs(FEW)
@given(factors)
def test_rounding_up_is_not_rounding_down_and_one(factor):
    gold = rf"\lfloor {factor}x \rfloor"
    assert accepts(rf"-\lceil -{factor}x \rceil", gold)
    assert accepts(rf"\lfloor {factor}x+1 \rfloor-1", gold)
    assert not accepts(rf"\lceil {factor}x \rceil-1", gold)
    assert not accepts(f"{factor}x", gold)
    assert not accepts(rf"{factor}\lfloor x \rfloor", gold)
