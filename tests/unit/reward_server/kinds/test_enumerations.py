"""Lists with dots and sets of integers that a condition describes: the items count, not how they are said."""

import hypothesis.strategies as st
from forge import inputs
from hypothesis import given
from kinds import FEW, accepts

DOTS = [", \\ldots, ", ", \\dots, ", ",\\cdots,", ", ..., ", ", …, "]
MEMBERS = [r"\{x \in \mathbb{Z} \mid %s\}", r"\{x\in\mathbb{Z}: %s\}", r"%s, x \in \mathbb{Z}"]


def braced(items):
    return rf"\{{{', '.join(map(str, items))}\}}"


@st.composite
def progressions(draw):
    """All terms of a progression of eight or more, the first three and the last with dots between, and the braces."""
    start, step, count = draw(st.integers(-20, 20)), draw(st.sampled_from([-3, -1, 1, 2, 5])), draw(st.integers(8, 30))
    terms = [start + k * step for k in range(count)]
    around = draw(st.sampled_from([r"\{%s\}", "%s"]))
    shown = draw(st.integers(2 if abs(step) == 1 else 3, 4))
    short = ", ".join(map(str, terms[:shown])) + draw(st.sampled_from(DOTS)) + str(terms[-1])
    return terms, around, around % short


@inputs(2 * FEW)
@given(progressions())
def test_dots_stand_for_what_goes_on(drawn):
    terms, around, short = drawn
    whole = around % ", ".join(map(str, terms))
    assert accepts(whole, short)
    assert accepts(short, whole)
    assert not accepts(around % ", ".join(map(str, terms[:-1])), short)
    assert not accepts(short, around % ", ".join(map(str, terms[1:])))


def test_dots_that_may_go_on_otherwise_stay():
    assert not accepts("2, 4, 6, 8, 10, 12, 14, 16", r"2, 4, \ldots, 16")
    assert not accepts("1, 2, 3, 4", r"1, 2, 3, \ldots")
    assert accepts("1, 2, 3, 4, 5, 6, 7", r"1, 2, \ldots, 7")


@inputs(2 * FEW)
@given(st.integers(-15, 15), st.integers(1, 12), st.sampled_from(MEMBERS), st.booleans(), st.booleans())
def test_integers_between_bounds(low, length, member, below, above):
    high = low + length
    signs = (r"\le" if below else "<"), (r"\le" if above else "<")
    described = member % f"{low} {signs[0]} x {signs[1]} {high}"
    items = list(range(low + (not below), high + above))
    if not items:
        return
    listed = braced(items)
    assert accepts(described, listed)
    assert accepts(listed, described)
    assert not accepts(braced([*items, high + 1]), described)
    assert not accepts(f"[{low}, {high}]" if below and above else f"({low}, {high})", listed)
