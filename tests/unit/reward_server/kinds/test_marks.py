"""Marks on letters: derivatives of unknown functions, primes, transpositions, orders, vectors, double factorials."""

import hypothesis.strategies as st
import pytest
from forge import inputs
from hypothesis import given
from kinds import FEW, accepts

functions = st.lists(st.sampled_from("QVIyuvq"), min_size=2, max_size=2, unique=True)
variables = st.lists(st.sampled_from("xtsr"), min_size=2, max_size=2, unique=True)
factors = st.integers(2, 9)
letters = st.sampled_from("yuvfgh")


@inputs(FEW)
@given(functions, variables, factors)
def test_the_derivative_of_an_unknown_function_is_itself_alone(functions, variables, factor):
    (one, other), (x, t) = functions, variables
    slope = rf"\frac{{d{one}}}{{d{x}}}"
    gold = rf"{factor}{slope}"
    assert accepts(rf"{slope} \cdot {factor}", gold)
    assert accepts(rf"{factor - 1}{slope}+{slope}", gold)
    for wrong in (
        rf"{factor}\frac{{d{other}}}{{d{x}}}",
        rf"{factor}\frac{{d{one}}}{{d{t}}}",
        f"-{gold}",
        rf"{factor + 1}{slope}",
        "0",
    ):
        assert not accepts(wrong, gold)
    assert not accepts(slope, "0")
    partial = rf"\frac{{\partial {one}}}{{\partial {x}}}"
    assert accepts(rf"{partial}+1", rf"1+{partial}")
    assert not accepts(rf"\frac{{\partial {one}}}{{\partial {t}}}", partial)


@inputs(FEW)
@given(factors, st.integers(2, 6))
def test_the_derivative_of_a_formula_is_taken(factor, power):
    assert accepts(rf"\frac{{d}}{{dx}} {factor}x^{{{power}}}", f"{factor * power}x^{{{power - 1}}}")
    assert accepts(rf"\frac{{d}}{{dx}} {factor}", "0")
    assert not accepts(rf"\frac{{d}}{{dx}} {factor}x^{{{power}}}", "0")


@inputs(FEW)
@given(letters, factors, st.integers(1, 3))
def test_a_primed_letter_is_another_one(letter, factor, count):
    primed = letter + "'" * count
    assert accepts(letter + "^{" + r"\prime " * count + f"}}+{factor}", f"{factor}+{primed}")
    assert accepts(f"{factor}={letter}+{primed}", f"{primed}+{letter}={factor}")
    assert not accepts(f"{letter}+{letter}={factor}", f"{primed}+{letter}={factor}")
    assert not accepts(f"{primed}'+{letter}={factor}", f"{primed}+{letter}={factor}")
    assert not accepts(letter, primed)
    assert not accepts(primed, letter)
    assert not accepts(f"{letter}(x)={factor}x", f"{primed}(x)={factor}x")
    assert accepts(f"{factor}x", f"{primed}(x)={factor}x")
    assert not accepts(f"{factor}'", str(factor))


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        ("A^T", [r"A^{\top}", r"A^{\mathsf{T}}", "A^{T}"], ["A", "A^2", "B^T"]),
        ("A^T B", [r"A^{\top}B"], ["AB", "A B^T"]),
        ("f^{(3)}(0)", ["f'''(0)"], ["f^3(0)", "f^{(2)}(0)", "f(0)"]),
        ("x^{(2)}", ["x^{(2)}"], ["x^2", "x"]),
        ("2f^{(n)}(x)", ["f^{(n)}(x)+f^{(n)}(x)"], ["2f^n(x)", "2f(x)"]),
        (
            r"\vec a\times\vec b",
            [r"\vec{a} \times \vec{b}", r"-\vec b\times\vec a", r"\mathbf{a}\times\mathbf{b}"],
            [r"\vec b\times\vec a", r"\vec a\cdot\vec b", "ab"],
        ),
        (r"\vec a\cdot\vec b", [r"\vec{b} \cdot \vec{a}"], [r"\vec a\times\vec b"]),
        ("x^{(n+1)}", ["x^{n+1}", "x^n x"], ["x^n"]),
    ],
)
def test_a_mark_above_changes_what_a_letter_is(gold, right, wrong):
    assert all(accepts(answer, gold) for answer in right)
    assert not any(accepts(answer, gold) for answer in wrong)


@inputs(FEW)
@given(st.integers(2, 7))
def test_a_double_factorial_takes_every_second_factor(number):
    product = 1
    for factor in range(number, 0, -2):
        product *= factor
    assert accepts(f"{number}!!", str(product))
    gold = f"{number}(2n-1)!!"
    assert accepts(rf"\frac{{{number}(2n)!}}{{2^n n!}}", gold)
    assert not accepts(f"{number}((2n-1)!)!", gold)
    assert not accepts(f"{number}(2n-1)!", gold)
    assert not accepts(f"{number}(2n)!!", gold)
