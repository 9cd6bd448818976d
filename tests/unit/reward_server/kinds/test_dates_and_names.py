"""Dates, ordinals, combinations by name, solutions by name, definitions with a letter of their own."""

import math

import hypothesis.strategies as st
import pytest
from forge import inputs
from hypothesis import given
from kinds import FEW, accepts

MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
SUFFIXES = {1: "st", 2: "nd", 3: "rd", 21: "st", 22: "nd", 23: "rd"}


def ordinal(number):
    return f"{number}{SUFFIXES.get(number, 'th')}"


@inputs(2 * FEW)
@given(st.integers(1, 12), st.integers(1, 28), st.integers(1900, 2100), st.integers(1, 11), st.data())
def test_a_date_has_many_writings(month, day, year, more, data):
    def forms(m, d):
        name = MONTHS[m - 1]
        return [
            f"{name} {d}, {year}", f"{d} {name} {year}", rf"\text{{{name} {ordinal(d)}, {year}}}",
            f"{year}-{m:02d}-{d:02d}", rf"\text{{{name} }} {d}", rf"\text{{{ordinal(d)} of {name}}}",
            f"{name[:3]}. {d}",
        ]  # fmt: skip

    answer, gold = data.draw(st.permutations(forms(month, day)))[:2]
    assert accepts(answer, gold)
    for other in (forms((month + more - 1) % 12 + 1, day), forms(month, day % 28 + 1)):
        assert not accepts(data.draw(st.sampled_from(other)), gold)


@inputs(FEW)
@given(st.integers(4, 20), st.sampled_from(["%d%s", r"%d\text{%s}", r"%d^{\text{%s}}", "%d^{%s}"]))
def test_an_ordinal_is_its_number(number, form):
    assert accepts(form % (number, "th"), str(number))
    assert not accepts(form % (number, "th"), str(number + 1))
    assert not accepts(form % (number, "nd"), str(number))


@inputs(2 * FEW)
@given(st.integers(2, 20), st.data())
def test_combinations_by_name(n, data):
    k = data.draw(st.integers(1, n - 1))
    for form in ("C(%d,%d)", r"%d \text{ choose } %d", "%d choose %d", r"{}_{%d}C_{%d}", "%dC%d"):
        assert accepts(form % (n, k), str(math.comb(n, k)))
        assert not accepts(form % (n, k), str(math.comb(n, k) + 1))
    assert accepts(f"P({n},{k})", str(math.perm(n, k)))


@inputs(2 * FEW)
@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=2, max_size=3, unique=True), st.data())
def test_solutions_by_name_are_points(points, data):
    gold = ", ".join(f"({x},{y})" for x, y in points)
    between, form = data.draw(
        st.sampled_from([("; ", "x=%d, y=%d"), (r" \text{ or } ", "x=%d, y=%d"), (", ", "(x=%d, y=%d)")])
    )
    order = data.draw(st.permutations(points))
    assert accepts(between.join(form % point for point in order), gold)
    (x, y), *rest = points
    moved = [(x, y + 50), *rest]
    assert not accepts(between.join(form % point for point in moved), gold)


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        ("f(t)=t^2+1", "f(x)=x^2+1", True),
        ("a_k=2k+1", "a_n=2n+1", True),
        ("f(t)=t^3+1", "f(x)=x^2+1", False),
        ("f(t)=xt", "f(x)=x^2", False),
        ("a_k=2k+1", "b_n=2n+1", False),
        (r"\text{I and II only}", "I, II", True),
        (r"\text{II only}", "I, II", False),
        (r"\text{infinitely many solutions}", r"\infty", True),
        (r"1 \text{ out of } 6", r"\frac{1}{6}", True),
        (r"1 \text{ out of } 5", r"\frac{1}{6}", False),
        ("1'234'567", "1234567", True),
        ("1'234'56", "123456", False),
        (r"6.02\mathrm{E}23", r"6.02 \times 10^{23}", True),
        (r"\Re(z)", r"\operatorname{Re}(z)", True),
        (r"\Re(z)", r"\operatorname{Im}(z)", False),
        ("O(n)", r"\mathcal{O}(n)", True),
        (r"X \sim N(0,1)", r"\mathcal{N}(0,1)", True),
        (r"X \sim N(0,2)", r"\mathcal{N}(0,1)", False),
        (r"x = 2 \text{ (double root)}", "x=2", True),
        (r"2 (multiplicity 2), 3", "2, 3", True),
        ("f'(x)=2x", "y'=2x", True),
        (r"\frac{dy}{dx}=2x", "y'=2x", True),
        ("y''=2x", "y'=2x", False),
        ("y=2x", "f'(x)=2x", False),
        (r"\int 2x\,dx=x^2+C", "x^2+C", True),
        (r"\int_0^1 2x\,dx=2", "2", False),
        (r"\{1,2\} \text{ or } \{3,4\}", r"\{3,4\},\{1,2\}", True),
        (r"\{1,2\} \text{ or } \{3,5\}", r"\{3,4\},\{1,2\}", False),
        (r"1 \text{ century}", r"100 \text{ years}", True),
        (r"3 \text{ o'clock}", "3:00", True),
        (r"4 \text{ o'clock}", "3:00", False),
        (r"1.6\times10^{-19}\,\mathrm{C}", r"1.6\cdot 10^{-19} C", True),
        (r"5\ \mu m", r"5\times10^{-6}\text{ m}", True),
        (r"\arctan 1", r"45^\circ", True),
        (r"\arctan 1", r"44^\circ", False),
    ],
)
def test_other_writings(answer, gold, right):
    assert accepts(answer, gold) is right
