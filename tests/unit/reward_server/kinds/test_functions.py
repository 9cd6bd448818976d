"""Functions under every name that they go by: the value tells which one it is, and another function has another."""

import math

import hypothesis.strategies as st
from forge import inputs
from hypothesis import given
from kinds import FEW, accepts

REAL = {
    "sinh": (math.sinh, ["sinh", "sh"]),
    "cosh": (math.cosh, ["cosh", "ch"]),
    "tanh": (math.tanh, ["tanh", "th"]),
    "sech": (lambda x: 1 / math.cosh(x), ["sech"]),
    "csch": (lambda x: 1 / math.sinh(x), ["csch", "cosech"]),
    "coth": (lambda x: 1 / math.tanh(x), ["coth", "cth"]),
    "csc": (lambda x: 1 / math.sin(x), ["csc", "cosec"]),
    "arsinh": (math.asinh, ["arsinh", "arcsinh", "asinh", "sinh^{-1}"]),
    "arctan": (math.atan, ["arctan", "atan", "tan^{-1}"]),
    "arcsch": (lambda x: math.asinh(1 / x), ["arcsch", "arccsch", "csch^{-1}"]),
    "arccot": (lambda x: math.atan(1 / x), ["arccot", "acot", "cot^{-1}", "arcctg"]),
}
BEYOND_ONE = {
    "arcosh": (math.acosh, ["arcosh", "arccosh", "acosh", "cosh^{-1}"]),
    "arcoth": (lambda x: math.atanh(1 / x), ["arcoth", "arccoth", "coth^{-1}"]),
    "arcsec": (lambda x: math.acos(1 / x), ["arcsec", "asec", "sec^{-1}"]),
    "arccsc": (lambda x: math.asin(1 / x), ["arccsc", "acsc", "csc^{-1}"]),
}
BELOW_ONE = {
    "artanh": (math.atanh, ["artanh", "arctanh", "atanh", "tanh^{-1}"]),
    "arcsin": (math.asin, ["arcsin", "asin", "sin^{-1}"]),
    "arccos": (math.acos, ["arccos", "acos", "cos^{-1}"]),
    "arsech": (lambda x: math.acosh(1 / x), ["arsech", "arcsech", "sech^{-1}"]),
}
SHORT = {"sh", "ch", "th", "cth", "arcctg"}  # known where they stand upright
# (an argument's writing, its value): above 1 and below 2, so that no two functions of it are alike
ARGUMENTS = [(f"\\frac{{{n}}}{{7}}", n / 7) for n in range(8, 14)] + [("1.25", 1.25), (r"\sqrt{3}", math.sqrt(3))]
HALVED = [(f"\\frac{{{n}}}{{14}}", n / 14) for n in range(8, 14)] + [("0.625", 0.625)]


@st.composite
def values(draw):
    """A function of a number as people write it, its value, and the value of another function there."""
    functions, arguments = draw(st.sampled_from([(REAL, ARGUMENTS), (BEYOND_ONE, ARGUMENTS), (BELOW_ONE, HALVED)]))
    one, other = draw(st.permutations(sorted(functions)))[:2]
    name, power, _ = draw(st.sampled_from(functions[one][1])).partition("^{-1}")
    written, value = draw(st.sampled_from(arguments))
    forms = ["\\operatorname{%s}%s", "\\mathrm{%s}%s", "\\text{%s}%s"] + ([] if name in SHORT else ["\\%s%s", "%s%s"])
    command = draw(st.sampled_from(forms)) % (name, power)
    around = draw(st.sampled_from(["(%s)", r"\left(%s\right)", "{%s}", " %s"])) if written[0] == "\\" else "(%s)"
    return command + around % written, functions[one][0](value), functions[other][0](value)


@inputs(3 * FEW)
@given(values())
def test_a_function_has_its_value_under_every_name(drawn):
    written, value, other = drawn
    assert accepts(written, f"{value:.12f}")
    assert accepts(f"{value:.12f}", written)
    assert not accepts(f"{other:.12f}", written)
    assert not accepts(written, f"{-value:.12f}")


@inputs(FEW)
@given(st.integers(1, 6), st.sampled_from([r"\operatorname{sech}", r"\text{sech}", r"\mathrm{sech}", "sech", r"\sech"]))
def test_powers_and_products_of_them_are_read_with_their_argument(factor, sech):
    written = rf"{factor}{sech}^2 x"
    assert accepts(written, rf"{factor}-{factor}\tanh^2 x")
    assert accepts(rf"{factor} - {factor}\tanh^{{2}}(x)", written)
    assert accepts(rf"{factor}{sech}^{{2}}(2x)", rf"\frac{{4 \cdot {factor}}}{{(e^{{2x}}+e^{{-2x}})^2}}")
    assert not accepts(written, rf"{factor}+{factor}\tanh^2 x")
    assert not accepts(written, rf"{factor}\sec^2 x")


def test_the_largest_of_a_set_and_multiples():
    assert accepts(r"\max\{3, x\}", r"\max(3,x)")
    assert accepts(r"\operatorname{lcm}(4,6)", "12")
    assert not accepts(r"\min\{3, x\}", r"\max(3,x)")


@inputs(FEW)
@given(st.integers(2, 9), st.sampled_from("xyt"))
def test_a_logarithm_without_a_base_is_natural_beside_a_natural_one(n, x):
    for bare, natural in ((rf"\log {n}", rf"\ln {n}"), (rf"{n}\log({x}+1)", rf"{n}\ln({x}+1)")):
        assert accepts(f"{bare}+{x}", f"{x}+{natural}")
        assert accepts(f"{natural}+{x}", f"{x}+{bare}")
        assert not accepts(bare.replace("log", "log_{10}"), natural)
        assert not accepts(bare, natural.replace(str(n), str(n + 1)))
    assert accepts(rf"\log_{{10}} {n}", rf"\log {n}")
    assert not accepts(f"{math.log(n):.6f}", rf"\log {n}")
