"""Several conditions, values and statements in one answer: what joins them counts."""

import hypothesis.strategies as st
import pytest
from forge import inputs
from hypothesis import given
from kinds import FEW, accepts

letters = st.lists(st.sampled_from("abcmnxyz"), min_size=2, max_size=2, unique=True)
numbers = st.lists(st.integers(-50, 50), min_size=2, max_size=2, unique=True)
signs = st.sampled_from(["=", ">", "<", r"\le ", r"\ge "])


@inputs(FEW)
@given(letters, numbers, signs)
def test_and_is_not_or_between_conditions_on_different_letters(letters, numbers, sign):
    (a, b), (n, m) = letters, numbers
    one, other = f"{a}{sign}{n}", f"{b}{sign}{m}"
    both, either = rf"{one} \text{{ and }} {other}", rf"{one} \text{{ or }} {other}"
    assert accepts(rf"{other} \text{{ and }} {one}", both)
    assert accepts(f"{other}, {one}", both)
    assert accepts(rf"{other} \text{{ or }} {one}", either)
    assert not accepts(either, both)
    assert not accepts(both, either)


@inputs(FEW)
@given(numbers)
def test_the_solutions_for_one_letter_may_be_joined_by_any_word(numbers):
    n, m = numbers
    assert accepts(rf"x={n} \text{{ or }} x={m}", rf"x={m} \text{{ and }} x={n}")
    assert accepts(rf"{n} \text{{ or }} {m}", rf"{m} \text{{ and }} {n}")


@inputs(FEW)
@given(letters, numbers)
def test_one_value_of_two_names_is_two_answers(letters, numbers):
    (a, b), (n, _) = letters, numbers
    assert accepts(f"{a}={n}", str(n))
    assert not accepts(f"{a}={n}, {b}={n}", str(n))


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        ("(1)(3)", ["(1)(3)", "(1), (3)", r"(3) \text{ and } (1)", "1, 3"], ["3", "(3)", "(1)(2)(3)", "13"]),
        ("(2)(3)(4)", ["(2),(3),(4)"], ["24", "(2)(3)"]),
        ("24", ["(2)(3)(4)", "(4)(6)"], ["(2)(3)"]),
        ("42", ["42"], [r"42 \text{ tens}", r"4 \text{ tens}"]),
        (r"\hat{p}", [r"\hat p"], ["p", "P"]),
        ("p", ["p"], [r"\hat{p}", r"\hat p"]),
        (r"\hat{i}+2\hat{j}", [r"2\hat j + \hat i", r"\mathbf{i}+2\mathbf{j}"], [r"2\hat i+\hat j"]),
    ],
)
def test_statements_places_and_estimates(gold, right, wrong):
    assert all(accepts(answer, gold) for answer in right)
    assert not any(accepts(answer, gold) for answer in wrong)
