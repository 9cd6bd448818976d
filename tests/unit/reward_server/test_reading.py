"""What an answer's text is read as before any algebra: shapes, domains, bases, ratios, sizes, units."""

import math
from fractions import Fraction

import pytest

from chorus.reward_server.graders.math.domains import same_domain
from chorus.reward_server.graders.math.numbers import least_digits, read_based, read_ratio
from chorus.reward_server.graders.math.shapes import read_shape
from chorus.reward_server.graders.math.units import conversion


@pytest.mark.parametrize(
    ("text", "kind", "items"),
    [
        (r"\{1, 2\}", "set", ("1", "2")),
        ("1, 2", "list", ("1", "2")),
        ("1; 2", "list", ("1", "2")),
        (r"1 \text{ or } 2", "list", ("1", "2")),
        ("1, 2, and 3", "list", ("1", "2", "3")),
        (r"1 \pm 2", "list", ("1 + 2", "1 - 2")),
        ("(1,2)", "tuple", ("1", "2")),
        ("[0, 1)", "tuple", ("0", "1")),
        ("(1,2), (3,4)", "list", ("(1,2)", "(3,4)")),
        (r"\{(1,2),(3,4)\}", "set", ("(1,2)", "(3,4)")),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "matrix", ("1", "2", "3", "4")),
    ],
)
def test_brackets_and_separators_tell_the_shape(text, kind, items):
    shape = read_shape(text)
    assert shape is not None
    assert (shape.kind, shape.items) == (kind, items)


@pytest.mark.parametrize("text", ["5", "(5)", "f(1,2)", r"\{x : x > 1\}", "(1,2)(3,4)", "for", ""])
def test_a_single_thing_has_no_shape(text):
    assert read_shape(text) is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (r"x < 2 \text{ or } x > 3", r"(-\infty,2)\cup(3,\infty)", True),
        (r"x < 2 \text{ or } x > 3", r"(-\infty,2]\cup(3,\infty)", False),
        (r"1 \le x < 2", "[1,2)", True),
        (r"2 > x \ge 1", "[1,2)", True),
        ("x > 1, x < 2", "(1,2)", True),
        (r"|x| > 2", r"(-\infty,-2)\cup(2,\infty)", True),
        (r"\mathbb{R} \setminus \{1,2\}", r"x \ne 1 \text{ and } x \ne 2", True),
        (r"(0,2)\cup(1,3)", r"0 < x < 3", True),
        (r"y > 3", "x > 3", False),
        (r"x^2 < 4", "(-2,2)", None),  # not solved: the question, perhaps
        ("(1,2)", "(1,3)", None),  # points, perhaps
        ("x > y", r"(y,\infty)", None),
    ],
)
def test_parts_of_the_line_are_compared_as_sets(one, other, same):
    assert same_domain(one, other) is same
    assert same_domain(other, one) is same


@pytest.mark.parametrize(
    ("text", "digits", "base"),
    [("10101_2", "10101", 2), ("A2F_{16}", "A2F", 16), (r"(12)_{\text{three}}", "12", 3), ("0042_{10}", "42", 10)],
)
def test_a_number_keeps_its_base(text, digits, base):
    found = read_based(text)
    assert found is not None
    assert (found.digits, found.base) == (digits, base)


@pytest.mark.parametrize("text", ["x_1", "a_2", "12_2", "42", "A_1", "P_{16}"])
def test_an_index_is_no_base(text):
    assert read_based(text) is None


def test_ratios_have_terms():
    assert read_ratio(r"3 : \frac{1}{2}") == ("3", r"\frac{1}{2}")
    assert read_ratio("42") is None
    assert read_ratio(r"\{x : x > 1\}") is None


@pytest.mark.parametrize(
    ("text", "digits"),
    [("10^{6}", 6.0), ("2^{10}", math.log10(1024)), ("70!", math.log10(math.factorial(70))), ("10^3 \\cdot 10^4", 7.0)],
)
def test_a_size_is_the_logarithm(text, digits):
    assert least_digits(text) == pytest.approx(digits)


@pytest.mark.parametrize("n", [5, 30, 100])
def test_a_binomial_coefficient_is_never_said_to_be_larger_than_it_is(n):
    least = least_digits(rf"\binom{{{2 * n}}}{{{n}}}")
    assert least is not None
    assert least <= math.log10(math.comb(2 * n, n))


@pytest.mark.parametrize(
    "text", ["x^9", "9^{9}-1", "0^{9}", "0.5^{9}", r"9^{9} \bmod 7", "-3", "(" * 300, "", "9^{-9}"]
)
def test_what_is_not_a_product_of_powers_has_no_size(text):
    assert least_digits(text) is None


def test_units_convert_within_a_dimension_and_nowhere_else():
    assert conversion("cm", "m") == Fraction(1, 100)
    assert conversion("cm^2", "m^2") == Fraction(1, 10_000)
    assert conversion("h", "min") == 60
    assert conversion("ft", "in") == 12
    assert conversion("kg", "m") is None
    assert conversion("cm^2", "m") is None
