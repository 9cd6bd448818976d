"""Values, however large, small or close: exact numbers are told apart, and their writings are one number."""

from fractions import Fraction

import hypothesis.strategies as st
import pytest
from forge import inputs
from hypothesis import example, given
from kinds import FEW, SENTENCE, accepts, fractions, integers, latex, naturals, verdict, writings

exponents = st.integers(40, 3000)
bases = st.integers(2, 12)


@inputs(FEW)
@given(bases, exponents, st.integers(1, 9))
def test_values_below_any_float_are_told_apart(base, exponent, step):
    small, other = rf"\frac{{1}}{{{base}^{{{exponent}}}}}", rf"{base}^{{-{exponent + step}}}"
    assert accepts(rf"{base}^{{-{exponent}}}", small)
    assert not accepts(other, small)
    assert not accepts("0", small)
    assert not accepts(small, "0")


@inputs(FEW)
@given(bases, exponents)
def test_a_number_is_not_one_that_differs_beyond_all_floats(base, exponent):
    near = rf"1-{base}^{{-{exponent}}}"
    assert accepts(rf"\frac{{{base}^{{{exponent}}}-1}}{{{base}^{{{exponent}}}}}", near)
    assert not accepts("1", near)
    assert not accepts(near, "1")
    assert not accepts(rf"\sqrt{{2}}+{base}^{{-{exponent % 200 + 40}}}", r"\sqrt{2}")


@inputs(FEW)
@given(bases, st.integers(1000, 60_000), st.integers(2, 5), st.integers(-5, 5).filter(bool))
def test_powers_of_a_hundred_thousand_digits_are_decided(base, exponent, factor, shift):
    power = rf"{base}^{{{exponent * factor}}}"
    assert accepts(rf"{base**factor}^{{{exponent}}}", power)
    assert not accepts(f"{power}{shift:+d}", power)
    assert not accepts(rf"{base**factor}^{{{exponent + 1}}}", power)


@inputs(FEW)
@given(st.integers(20, 400), st.integers(1, 19))
def test_factorials_and_binomials_are_exact(n, k):
    assert accepts(rf"{n} \cdot {n - 1}!", f"{n}!")
    assert accepts(rf"\frac{{1}}{{{n}!}}", rf"1/{n}!")
    assert not accepts(rf"\frac{{1}}{{{n}!}}", rf"\frac{{1}}{{{n + 1}!}}")
    assert accepts(rf"\binom{{{n}}}{{{k}}}", rf"\binom{{{n}}}{{{n - k}}}")
    assert not accepts(rf"\binom{{{n}}}{{{k}}}+1", rf"\binom{{{n}}}{{{k}}}")


@inputs(FEW)
@given(fractions, st.data())
def test_all_writings_of_a_fraction_are_one_number(number, data):
    one, other = (data.draw(st.sampled_from(writings(number))) for _ in range(2))
    assert accepts(one, other)
    assert not accepts(one, latex(number + Fraction(1, number.denominator)))
    assert not accepts(one, latex(-number))


@inputs(FEW)
@given(st.integers(0, 30), st.text("0123456789", max_size=2), st.text("0123456789", min_size=1, max_size=4))
def test_three_notations_of_a_repeating_decimal_are_one_fraction(whole, fixed, period):
    value = (Fraction(int(f"{whole}{fixed}")) + Fraction(int(period), 10 ** len(period) - 1)) / 10 ** len(fixed)
    dots = rf"\dot{{{period}}}" if len(period) == 1 else rf"\dot{{{period[0]}}}{period[1:-1]}\dot{{{period[-1]}}}"
    for written in (rf"\overline{{{period}}}", dots, f"({period})"):
        assert accepts(f"{whole}.{fixed}{written}", latex(value))
        assert not accepts(f"{whole}.{fixed}{written}", latex(value + Fraction(1, 10 ** (len(fixed) + 3))))


@inputs(FEW)
@given(st.integers(1000, 10**12), st.sampled_from([",", "{,}", ",\\!", "\\,", " ", "\\ ", "{,}\\!", " ", "，"]))
def test_thousands_separators_change_nothing(number, separator):
    written = f"{number:,}".replace(",", separator)
    assert accepts(written, str(number))
    assert not accepts(written, str(number + 1))
    assert not accepts(written, f"{number / 1000}")


@inputs(FEW)
@given(
    st.integers(100, 999),
    st.integers(2, 40),
    st.sampled_from([r"\times 10^{%d}", r"\cdot 10^{%d}", "e%d", r" \cdot 10^%d"]),
)
def test_scientific_notation_is_the_number(mantissa, exponent, form):
    if form.endswith("^%d") and exponent > 9:
        exponent %= 10
    digits = f"{mantissa // 100}.{mantissa % 100:02d}"
    assert accepts(digits + form % exponent, rf"{digits} \times 10^{{{exponent}}}")
    assert accepts(digits + form % exponent, str(mantissa * 10**exponent // 100)) or exponent < 2
    assert not accepts(digits + form % exponent, rf"{digits} \times 10^{{{exponent + 1}}}")
    assert not accepts(digits + form % exponent, rf"{digits} \times 10^{{-{exponent}}}")


@inputs(FEW)
@given(naturals, st.sampled_from([r"%d\%%", "%d%%", r"%d \%%", "%d percent", r"%d\text{ percent}", "%d％"]))
def test_percent_is_a_hundredth_and_in_train_mode_an_optional_sign(number, form):
    percent = form % number
    assert accepts(percent, latex(Fraction(number, 100)))
    assert accepts(percent, f"{number}\\%")
    assert accepts(str(number), f"{number}\\%")
    assert accepts(percent, str(number))
    assert not accepts(percent, str(number), mode="strict")
    assert not accepts(percent, str(number), percent_sign_optional=False)
    assert not accepts(percent, str(number + 1))
    assert not accepts(f"{number + 1}\\%", f"{number}\\%")
    assert not accepts(rf"0.{number}\%", f"0.{number}")


@inputs(FEW)
@given(integers, st.integers(1, 999999))
def test_an_integer_gold_is_exact(number, tail):
    assert accepts(f"{number}.0", str(number))
    if tail % 10:
        assert not accepts(f"{number}.{tail:06d}", str(number))


@pytest.mark.parametrize("answer", ["9^{9^{9^{9}}}", r"2^{10^{40}}", "(10^{9})!"])
def test_what_nobody_computes_is_no_plain_number(answer):
    assert not accepts(answer, "42")


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("1-10^{-2000000}", "1"),
        (r"\sqrt{2}+10^{-5000}", r"\sqrt{2}"),
        (r"\ln 9^{9^{9}}", "2"),
        (r"\frac{1}{9^{9^{9^{9}}}}", "0"),
        (r"\sum_{n=1}^{1000000000} \frac{1}{n^{n}}", "2"),
        (r"\sum_{k=1}^{10^{8}} k^{k}", "2"),
    ],
)
def test_what_no_computer_writes_out_is_wrong_at_once_and_itself(answer, gold):
    assert not accepts(answer, gold)
    assert accepts(answer, answer.replace(" ", ""))


@inputs(FEW)
@given(naturals, naturals)
def test_a_sum_in_brackets_is_no_name_of_what_it_is_set_equal_to(one, other):
    assert accepts(f"({one}+{other}) = {one + other}", str(one + other))
    assert not accepts(f"({one}+{other}) = {one + other + 1}", str(one + other + 1))


@inputs(2 * FEW)
@given(naturals, st.integers(2, 99), st.sampled_from([r"%d \bmod %d", r"%d \mod %d", r"%d \bmod{%d}"]))
def test_a_remainder_is_a_value(number, modulus, form):
    answer, remainder = form % (number, modulus), number % modulus
    assert accepts(answer, str(remainder))
    assert verdict(SENTENCE % answer, str(remainder + 1)) == "wrong"


@inputs(FEW)
@given(st.integers(1, 99))
def test_a_cent_has_a_sign(number):
    assert accepts(f"{number}¢", str(number))
    assert accepts(f"{number}¢", rf"\${number / 100:.2f}")
    assert not accepts(f"{number}¢", rf"\${number}")


LEAVES = st.sampled_from(["1", "0", "-1", "10", "x", "n", "i", "e", "A", r"\pi", r"\infty", "0.5", "x^2", r"\text{no}"])
COMMANDS = st.sampled_from(
    [
        *(
            r"%s \mod %s",
            r"\gcd(%s,%s)",
            r"\max(%s,%s)",
            r"\sum_{k=1}^{%s} %s",
            r"\prod_{k=1}^{%s} %s",
            r"\binom{%s}{%s}",
        ),
        *(r"\int_0^{%s} %s\,dx", r"\lim_{x\to %s} %s", r"\frac{d}{dx}(%s) + %s", r"(%s)! - %s", r"\log_{%s} %s"),
        *(r"\begin{pmatrix}%s&1\\0&%s\end{pmatrix}", r"\frac{%s}{%s}", r"(%s)^{%s}", r"\lfloor %s \rfloor + %s"),
        *(r"\sqrt[%s]{%s}", r"\{%s,%s\}", r"[%s,%s)", r"%s \le %s", r"%s \pm %s", r"%s \cup %s", r"\arccos(%s)/%s"),
        *(r"\Gamma(%s)+%s", r"\nabla %s \cdot %s", r"\Re %s \Im %s", r"|%s|-%s", r"%s = %s", r"%s \equiv %s \pmod{5}"),
    ]
)
SENSELESS = st.recursive(
    LEAVES, lambda inner: st.tuples(COMMANDS, inner, inner).map(lambda t: t[0] % t[1:]), max_leaves=4
)


@inputs(8 * FEW)
@example(r"12 \mod 0", "2")
@example(r"\sum_{k=1}^{i} n", "i")
@example(r"\frac{\begin{pmatrix}1&1\\0&i\end{pmatrix}}{\binom{A}{e}}", r"\pi")
@example(r"\max(1,\sum_{k=-1}^{\infty} \frac{1}{k^{\infty}})", "10")
@given(SENSELESS, SENSELESS)
def test_what_makes_no_sense_has_a_verdict(answer, gold):
    assert verdict(SENTENCE % answer, gold) in ("correct", "wrong")


def in_base(number: int, base: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, base)
        digits = "0123456789ABCDEF"[digit] + digits
    return digits


@inputs(FEW)
@given(st.integers(17, 10**6), st.integers(2, 9), st.sampled_from(["", "-"]), st.integers(1, 8))
def test_a_number_in_a_base_keeps_sign_digits_and_base(number, base, sign, part):
    written = sign + in_base(number, base)
    for gold in (f"{written}_{base}", f"{written}.{min(part, base - 1)}_{{{base}}}"):
        body = gold.rpartition("_")[0]
        assert accepts(rf"{sign}0{body.lstrip('-')}_{{{base}}}", gold)
        assert accepts(rf"({body})_{{{base}}}", gold)
        assert not accepts(f"{body}_{{{base + 1}}}", gold)
        assert not accepts(f"{body}1_{base}", gold)
        assert not accepts(f"{'' if sign else '-'}{gold.lstrip('-')}", gold)
        assert not accepts(body, gold)
    hexadecimal = f"{sign}{in_base(number, 16)}_{{16}}"
    assert accepts(f"{sign}{in_base(number, 16).lower()}_{{16}}", hexadecimal)
    assert not accepts(f"{sign}{in_base(number + 1, 16)}_{{16}}", hexadecimal)
