"""Arbitrary constants of general solutions: their names are free, what they stand before is not."""

import hypothesis.strategies as st
from forge import inputs
from hypothesis import given
from kinds import FEW, accepts

PARTS = ["", "x", "x^2", "e^{x}", "e^{-2x}", r"\sin x", r"\cos x", r"\sin 2x", r"\frac{1}{x}"]
NAMES = [["A", "B", "D"], ["a", "b", "c"], ["c_1", "c_2", "c_3"], ["K_1", "K_2", "K_3"], ["C_3", "C_1", "C_2"]]


@st.composite
def solutions(draw):
    """A general solution under two sets of names, in another order; then one with another part, and one of fewer."""
    count = draw(st.integers(1, 3))
    parts = draw(st.lists(st.sampled_from(PARTS), min_size=count + 1, max_size=count + 1, unique=True))
    *parts, other = parts
    if not any(parts) or (count == 1 and other == ""):
        parts, other = [r"x e^{x}", *parts[1:]], "x^3"
    own = draw(st.sampled_from(["", "", "+7", "+5x^3"]))
    gold = "+".join(f"C_{number}{part}" for number, part in enumerate(parts, 1)) + own
    names = draw(st.sampled_from(NAMES))
    terms = [f"{name}{part}" for name, part in zip(names, parts, strict=False)]
    turned = draw(st.permutations(terms))
    changed = [*terms[:-1], f"{names[count - 1]}{other}"]
    return gold, "+".join(turned) + own, "+".join(changed) + own, "+".join(terms[:-1]) + own


@inputs(FEW)
@given(solutions(), st.sampled_from(["", "y=", "y(x) = "]))
def test_the_names_of_arbitrary_constants_are_free(drawn, name):
    gold, same, other, fewer = (name + text for text in drawn)
    assert accepts(same, gold)
    assert not accepts(other, gold)
    assert not accepts(fewer, gold)


@inputs(FEW)
@given(st.integers(2, 9), st.sampled_from("AKck"))
def test_a_lone_constant_may_be_called_otherwise_a_given_letter_may_not(number, letter):
    assert accepts(f"{letter}e^{{{number}x}}", f"Ce^{{{number}x}}")
    assert not accepts(f"{letter}e^{{-{number}x}}", f"Ce^{{{number}x}}")
    assert not accepts(f"xe^{{{number}x}}", f"Ce^{{{number}x}}")
    assert not accepts(f"m x^{number}", f"k x^{number}")
    assert not accepts(rf"\frac{{{number}Q}}{{K}}", rf"\frac{{{number}Q}}{{C}}")


@inputs(FEW)
@given(st.sampled_from("Ckcm"), st.sampled_from(["V", "x", "U^2"]), st.integers(2, 9))
def test_what_the_problem_gave_keeps_its_name(letter, other, factor):
    """Two capacitors, springs or masses: which of them it is counts."""
    one, two = f"{letter}_1", f"{letter}_2"
    divided = rf"\frac{{{factor}{one}}}{{{one}+{two}}}{other}"
    assert accepts(divided, divided)
    assert not accepts(rf"\frac{{{factor}{two}}}{{{one}+{two}}}{other}", divided)
    if (letter, other) not in (("C", "x"), ("c", "x")):
        assert not accepts(f"{factor}{two}{other}", f"{factor}{one}{other}")
        assert not accepts(f"{factor}A{other}", f"{factor}{one}{other}")
