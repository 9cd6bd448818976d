"""One thing in several notations: LaTeX synonyms, Unicode, roots, sums, conditions, sets, cases, congruences."""

from fractions import Fraction

import hypothesis.strategies as st
from forge import inputs
from hypothesis import given
from kinds import FEW, SENTENCE, accepts, fractions, integers, latex, verdict

small = st.integers(1, 9)
SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
FULL_WIDTH = str.maketrans("0123456789(),+-=", "０１２３４５６７８９（），＋－＝")
SYNONYMS = [
    (r"x \leqslant %d", r"x \le %d", r"x < %d"), (r"x \geqslant %d", r"x \geq %d", r"x > %d"),
    (r"x ≤ %d", r"x \leq %d", r"x \ge %d"),
    (r"%d\mathrm{e}", "%de", "%d"), (r"%d\mathrm{i}", "%di", "%d"),
    (r"\frac{%d}{\mathrm{e}}", r"\frac{%d}{e}", r"\frac{%d}{\pi}"),
    (r"%dπ", r"%d\pi", "%d"), (r"√%d+x", r"\sqrt{%d}+x", "%d+x"), (r"%d∞", r"\infty", r"-\infty"),
    (r"x^\frac12+%d", r"\sqrt{x}+%d", r"x^2+%d"), (r"x^\frac{1}{3}-%d", r"\sqrt[3]{x}-%d", r"\sqrt{x}-%d"),
    (r"1, 2, \dots, %d", r"1,2,\ldots,%d", r"1,2,\ldots,%d0"), (r"1, 2, ..., %d", r"1,2,\ldots,%d", r"1,3,\ldots,%d"),
    (r"n \equiv %d \mod 11", r"n \equiv %d \pmod{11}", r"n \equiv %d \pmod{12}"),
    (r"n ≡ %d (mod 11)", r"n \equiv %d \pmod{11}", r"m \equiv %d \pmod{11}"),
    (r"%d \equiv x", r"%d \equiv x", r"%d \equiv y"), (r"\lvert x-%d \rvert", "|x-%d|", "x-%d"),
    (r"\tfrac{x}{%d0}", r"\frac{x}{%d0}", r"\frac{%d0}{x}"),
    (r"\dbinom{1%d}{2}", r"\binom{1%d}{2}", r"\binom{2}{1%d}+1"),
    (r"%d\cdotp x", "%dx", "%d+x"), (r"\operatorname{sin} %dx", r"\sin %dx", r"\cos %dx"),
    (r"x\in\{%d\}", r"\{%d\}", r"\emptyset"),
    (r"\operatorname{arctg} %d", r"\arctan %d", r"\arccot %d"), (r"\operatorname{tg} %dx", r"\tan %dx", r"\cot %dx"),
    (r"\operatorname{ctg} %dx", r"\cot %dx", r"\tan %dx"), (r"\lg 10^{%d}", "%d", "%d0"),
    (r"C_{1%d}^{3}", r"\binom{1%d}{3}", r"\binom{2%d}{3}"), (r"{}^{1%d}C_{2}", r"\binom{1%d}{2}", r"\binom{1%d}{2}+1"),
    (r"2 x 10^{%d}", r"2 \times 10^{%d}", r"2 \times 10^{%d0}"), (r"^1/_{1%d}", r"\frac{1}{1%d}", r"1%d"),
    (r"%d\hat{i}+2\hat{j}", r"%d\mathbf{i}+2\mathbf{j}", r"2\mathbf{i}-%d\mathbf{j}"), ("%d = x", "%d", "-%d"),
    (r"f^{-1}(x) = x-%d", "x-%d", "x+%d"), (r"\frac{d}{dx} x^{%d+1}", r"(%d+1)x^{%d}", r"x^{%d}"),
    (r"e^x+c_%d", r"e^x+C_%d", r"e^{2x}+C_%d"), (r"%d\operatorname{cis} 60^\circ", r"%d e^{i\pi/3}", r"%d e^{i\pi/6}"),
    (r"\varphi+%d", r"\phi+%d", r"\psi+%d"), (r"P(X=%d) = \frac{1}{3}", r"\frac{1}{3}", r"\frac{1}{4}"),
    (r"\text{Area} = %d", "%d", "-%d"), (r"\text{not} = %d", "\\text{not} = %d", "%d"),
    (r"a^2+b^2 = 1%d", "1%d", "2%d"), (r"\langle %d, 2 \rangle", "(%d,2)", "(%d,3)"),
    (r"\mathbb{R}-\{%d\}", r"x \ne %d", r"x \ne -%d"), ("x=y=%d", "x=%d, y=%d", "x=%d, y=1%d"),
    ("(a, b) = (%d, 2)", "a=%d, b=2", "a=2, b=1%d"), ("(a, b) = (%d, 2)", "(%d,2)", "(2,1%d)"),
    (r"%d\pi+k\pi", r"%d\pi+\pi n, n \in \mathbb{Z}", r"%d\pi+2\pi n, n \in \mathbb{Z}"),
    (r"%d!!+0", r"%d!!", r"(%d!)!+1"), ("%d;", "%d", "%d0"),
    (r"[\begin{smallmatrix} 1 & %d \\ 0 & 1 \end{smallmatrix}]", r"\begin{pmatrix} 1 & %d \\ 0 & 1 \end{pmatrix}",
     r"\begin{pmatrix} 1 & 0 \\ %d & 1 \end{pmatrix}"),
    (r"\text{approximately } %d.5", "%d.5", "%d.6"), (r"\text{about %d cm}", r"%d \text{ cm}", r"%d0 \text{ cm}"),
    ("roughly %d.25", "%d.25", "%d.35"), (r"%d.25 \text{ (approximately)}", "%d.25", "%d.35"),
    (r"\text{exactly } %d", "%d", "-%d"), (r"\le %d", r"x \le %d", r"x < %d"), ("> %d", r"(%d,\infty)", r"[%d,\infty)"),
    (r"≠ %d", r"x \ne %d", "%d"), (r"\text{no solution}", r"\emptyset", r"\{%d\}"),
    (r"\text{There is no solution.}", r"\text{no solutions}", "%d"),
    (r"\text{at least } %d", r"\text{at least } %d", "%d"),
]  # fmt: skip


@inputs(4 * FEW)
@given(small, st.sampled_from(SYNONYMS))
def test_synonyms_are_one_notation(number, synonym):
    one, same, other = (text.replace("%d", "" if "∞" in synonym[0] else str(number)) for text in synonym)
    assert accepts(one, same)
    assert accepts(same, one)
    assert not accepts(one, other)


@inputs(FEW)
@given(integers, st.integers(-30, 30), st.integers(2, 9))
def test_unicode_digits_signs_and_powers(number, exponent, base):
    assert accepts(str(number).translate(FULL_WIDTH), str(number))
    assert accepts(str(number).replace("-", "−"), str(number))
    assert accepts(f"（{number}，{base}）", f"({number},{base})")
    assert not accepts(f"（{base + 1}，{base}）", f"({base},{base + 1})")
    power = f"{base}{str(exponent).translate(SUPERSCRIPTS)}"
    assert accepts(power, rf"{base}^{{{exponent}}}")
    assert not accepts(power, rf"{base}^{{{exponent + 1}}}")


@inputs(FEW)
@given(st.integers(0, 20), st.sampled_from([("½", 1, 2), ("¾", 3, 4), ("⅓", 1, 3), ("⅝", 5, 8)]))
def test_vulgar_fractions_alone_and_in_mixed_numbers(whole, vulgar):
    sign, top, bottom = vulgar
    value = whole + Fraction(top, bottom)
    assert accepts(f"{whole or ''}{sign}", latex(value))
    assert not accepts(f"{whole + 1}{sign}", latex(value))


@inputs(FEW)
@given(st.sampled_from([3, 5, 7]), st.integers(2, 9), st.sampled_from(["x", "x+1", "x^2-1", "2-x"]))
def test_odd_roots_are_real(degree, root, inside):
    assert accepts(rf"\sqrt[{degree}]{{-{root**degree}}}", str(-root))
    assert not accepts(rf"\sqrt[{degree}]{{-{root**degree}}}", str(root))
    assert accepts(rf"(-{root**degree})^{{1/{degree}}}", str(-root))
    assert accepts(rf"\sqrt[{degree}]{{-({inside})}}", rf"-\sqrt[{degree}]{{{inside}}}")
    assert not accepts(rf"\sqrt[{degree}]{{-({inside})}}", rf"\sqrt[{degree}]{{{inside}}}")
    assert accepts(rf"\sqrt[{degree}]{{({inside})^2}}", rf"({inside})^{{2/{degree}}}")


IDENTITIES = [
    (r"\sqrt{x^3}", r"x\sqrt{x}", r"\sqrt{x}"), (r"-\ln x", r"\ln\frac{1}{x}", r"\ln x"),
    (r"\sqrt{xy}", r"\sqrt{x}\sqrt{y}", r"\sqrt{x+y}"),
    (r"\ln(x^3)", r"3\ln x", r"\ln^3 x"),
    (r"\frac{\sqrt{x}}{\sqrt{y}}", r"\sqrt{\frac{x}{y}}", r"\sqrt{\frac{y}{x}}"),
    (r"x^{3/2}", r"x\sqrt{x}", r"x^{2/3}"), (r"\ln x + \ln y", r"\ln(xy)", r"\ln(x+y)"), (r"e^{2\ln x}", "x^2", "2x"),
]  # fmt: skip


@inputs(FEW)
@given(st.sampled_from(IDENTITIES), st.integers(2, 9))
def test_identities_hold_where_both_sides_are_real(identity, factor):
    one, same, other = (rf"{factor} \cdot ({text})" for text in identity)
    assert accepts(one, same)
    assert accepts(identity[0], identity[1])
    assert not accepts(one, other)
    assert not accepts(r"\sqrt{x^2}", "x")


@inputs(FEW)
@given(
    st.sampled_from("ijkmr"), st.sampled_from("ijkmr"), st.sampled_from(["%s^2", r"\frac{1}{%s}", "2^%s", "%s!"]), small
)
def test_indices_have_no_name(index, other, term, start):
    one = rf"\sum_{{{index}={start}}}^{{n}} {term % index}"
    assert accepts(one, rf"\sum_{{{other}={start}}}^{{n}} {term % other}")
    assert not accepts(one, rf"\sum_{{{other}={start + 1}}}^{{n}} {term % other}")
    assert not accepts(one, rf"\sum_{{{other}={start}}}^{{n}} ({term % other}+1)")


@inputs(FEW)
@given(
    st.sampled_from(["x^2", r"\frac{x^3}{3}", r"\ln|x|", r"-\cos x", "e^x"]), st.sampled_from(["c", "K", "C_1", "k"])
)
def test_a_constant_of_integration_may_have_another_name(primitive, constant):
    assert accepts(f"{primitive}+{constant}", f"{primitive}+C")
    assert not accepts(primitive, f"{primitive}+C")
    assert not accepts(f"{primitive}+C", primitive)
    assert not accepts(f"2{primitive.lstrip('-')}+{constant}", f"{primitive}+C")
    assert not accepts(f"{primitive}+7", f"{primitive}+C")


@inputs(FEW)
@given(
    fractions,
    st.sampled_from("knm"),
    st.sampled_from("knm"),
    st.sampled_from(
        [
            r", %s \in \mathbb{Z}",
            r",\ %s\in\mathbb Z",
            r" \text{ where } %s \text{ is an integer}",
            r" \quad (%s \in \mathbb{Z})",
            r", \text{ for any integer } %s",
        ]
    ),
)
def test_a_condition_may_be_missing_and_names_its_letter(share, letter, other, condition):
    value = latex(share) + r"\pi"
    answer = f"{value}+2{letter}\\pi{condition % letter}"
    assert accepts(answer, rf"{value}+2{letter}\pi")
    assert accepts(f"x = {answer}", rf"{value}+2{letter}\pi")
    assert accepts(
        rf"{value}+2{letter}\pi, {letter} \in \mathbb{{Z}}", rf"{value}+2{other}\pi, {other} \in \mathbb{{Z}}"
    )
    assert not accepts(answer, rf"{value}+{letter}\pi")
    assert not accepts(
        rf"{value}+2{letter}\pi, {letter} \in \mathbb{{N}}", rf"{value}+2{letter}\pi, {letter} \in \mathbb{{Z}}"
    )


@inputs(FEW)
@given(
    small,
    st.sampled_from(
        [
            r"%sx \text{ for any constant } %s",
            r"%sx \text{ for all real } x",
            r"%sx, \text{ where } %s \text{ is a constant}",
            r"%sx,\ x \in \mathbb{R}",
        ]
    ),
)
def test_an_aside_on_a_formula_is_none_on_a_number(number, form):
    formula = form.replace("%s", "c")
    assert accepts(f"f(x)={formula}", "f(x)=cx")
    assert not accepts(f"f(x)={formula}", "f(x)=cx^2")
    assert not accepts(rf"{number} \text{{ if }} x > 0", str(number))


@inputs(FEW)
@given(
    st.integers(2, 99).filter(lambda n: int(n**0.5) ** 2 != n),
    st.sampled_from([r"\approx %s", r"\approx%s\ldots", r" \text{ (approximately } %s)", r"\simeq %s"]),
)
def test_the_exact_value_before_a_rounding_counts(number, about):
    root = number**0.5
    answer = rf"\sqrt{{{number}}} " + about % f"{root:.2f}"
    if "\\ldots" not in about and "(app" not in about:
        assert accepts(answer, rf"\sqrt{{{number}}}")
        assert not accepts(answer, rf"\sqrt{{{number + 1}}}")
        assert not accepts(rf"\sqrt{{{number}}} " + about % f"{2 * root:.2f}", rf"\sqrt{{{number}}}")
    assert not accepts(rf"{number} \approx {number + 60}", str(number + 60))


@inputs(FEW)
@given(
    integers,
    st.integers(1, 50),
    st.sampled_from(
        [("<", "<", "(", ")"), (r"\le", "<", "[", ")"), ("<", r"\leq", "(", "]"), (r"\le", r"\le", "[", "]")]
    ),
)
def test_intervals_inequalities_and_set_builders(low, length, signs):
    left, right, opening, closing = signs
    high = low + length
    interval = f"{opening}{low}, {high}{closing}"
    for answer in (
        rf"{low} {left} x {right} {high}",
        rf"\{{x \mid {low} {left} x {right} {high}\}}",
        rf"\{{x \in \mathbb{{R}} : {low} {left} x {right} {high}\}}",
        rf"x \in {interval}",
        rf"\left{opening}{low}, {high}\right{closing}",
    ):
        assert accepts(answer, interval)
        assert not accepts(answer, f"{opening}{low}, {high + 1}{closing}")
        assert not accepts(answer, f"{'[' if opening == '(' else '('}{low}, {high}{closing}")


@inputs(FEW)
@given(
    st.sets(st.integers(-20, 20), min_size=2, max_size=5),
    st.randoms(use_true_random=False),
    st.sampled_from([r"\{%s\}", "%s", r"x \in \{%s\}", r"x = %s"]),
)
def test_sets_have_no_order_and_all_their_elements(elements, random, form):
    order = sorted(elements)
    shuffled = order[:]
    random.shuffle(shuffled)
    answer = form % ", ".join(map(str, shuffled))
    gold = rf"\{{{','.join(map(str, order))}\}}"
    assert accepts(answer, gold)
    assert not accepts(form % ", ".join(map(str, shuffled[1:])), gold)
    assert not accepts(form % ", ".join(map(str, [*shuffled, 99])), gold)


@inputs(FEW)
@given(st.lists(st.integers(-9, 9), min_size=2, max_size=4, unique=True))
def test_tuples_have_an_order(items):
    answer, gold = f"({', '.join(map(str, items))})", rf"\left({','.join(map(str, items))}\right)"
    assert accepts(answer, gold)
    assert not accepts(f"({', '.join(map(str, items[::-1]))})", gold)
    assert not accepts(rf"\{{{', '.join(map(str, items))}\}}", gold)
    rows = r" \\ ".join(map(str, items))
    assert accepts(rf"\begin{{pmatrix}} {rows} \end{{pmatrix}}", rf"\begin{{bmatrix}}{rows}\end{{bmatrix}}")


@inputs(FEW)
@given(small, small)
def test_plus_minus_in_a_tuple_is_two_tuples(a, b):
    assert accepts(rf"(\pm {a}, {b})", f"({a},{b}), (-{a},{b})")
    assert accepts(rf"({b}, \pm {a})", f"({b},-{a}), ({b},{a})")
    assert not accepts(rf"(\pm {a}, {b})", f"({a},{b})")
    assert not accepts(f"({a},{b})", rf"(\pm {a}, {b})")
    assert accepts(rf"{a} \pm \sqrt{{{b}}}", rf"{a}-\sqrt{{{b}}}, {a}+\sqrt{{{b}}}")


@inputs(FEW)
@given(small, st.integers(-9, 9), st.sampled_from(["", r"\text{if } ", r"\text{for } "]))
def test_piecewise_definitions_in_any_layout(slope, cut, word):
    gold = rf"\begin{{cases}} {slope}x, & x > {cut} \\ 0, & x \leq {cut} \end{{cases}}"
    assert accepts(rf"\begin{{cases}} {slope}x & {word}x>{cut}\\ 0 & {word}x \le {cut}\end{{cases}}", gold)
    assert accepts(rf"f(x) = \begin{{cases}} 0 & {word}x \le {cut} \\ {slope}x & {word}x>{cut}\end{{cases}}", gold)
    assert not accepts(rf"\begin{{cases}} {slope}x & {word}x>{cut}\\ 1 & {word}x \le {cut}\end{{cases}}", gold)
    assert not accepts(rf"\begin{{cases}} {slope}x & {word}x \ge {cut}\\ 0 & {word}x < {cut}\end{{cases}}", gold)


@inputs(FEW)
@given(st.permutations("abc"), st.sampled_from(["<", r"\le"]))
def test_a_chain_of_inequalities_may_be_read_backwards(letters, sign):
    mirrored = {"<": ">", r"\le": r"\ge"}[sign]
    chain = f" {sign} ".join(letters)
    assert accepts(f" {mirrored} ".join(letters[::-1]), chain)
    assert not accepts(f" {sign} ".join(letters[::-1]), chain)


@inputs(FEW)
@given(st.integers(2, 30), st.integers(0, 29), st.integers(-3, 3))
def test_congruences_name_a_residue_class(modulus, residue, turns):
    gold = rf"n \equiv {residue % modulus} \pmod{{{modulus}}}"
    assert accepts(rf"n \equiv {residue % modulus + turns * modulus} \pmod {{{modulus}}}", gold)
    assert accepts(rf"n\equiv {residue % modulus}\ (\text{{mod }} {modulus})", gold)
    assert not accepts(rf"n \equiv {residue % modulus + 1} \pmod{{{modulus}}}", gold)
    assert not accepts(rf"n \equiv {residue % modulus} \pmod{{{modulus + 1}}}", gold)


def test_words_between_values_in_chinese():
    assert verdict(SENTENCE % "1或2", "1,2") == "correct"
    assert verdict(SENTENCE % "1或3", "1,2") == "wrong"
    assert accepts("百分之25", "25\\%")


@inputs(FEW)
@given(st.lists(integers, min_size=2, max_size=3, unique=True), st.sampled_from(["cases", "array}{l", "aligned"]))
def test_equations_under_one_brace_are_a_list_of_values(numbers, environment):
    mark = "&" if environment == "aligned" else ""
    rows = r" \\ ".join(f"{name} {mark}= {n}" for name, n in zip("xyz"[: len(numbers)], numbers, strict=True))
    system = rf"\begin{{{environment}}} {rows} \end{{{environment.split('}')[0]}}}"
    system = system if environment == "cases" else rf"\left\{{ {system} \right."
    assert accepts(system, ", ".join(f"{name}={n}" for name, n in zip("xyz"[: len(numbers)], numbers, strict=True)))
    assert accepts(system, f"({','.join(map(str, numbers))})")
    assert not accepts(system, f"({','.join(map(str, numbers[::-1]))})")
    assert not accepts(system, str(numbers[-1]))


@inputs(FEW)
@given(st.integers(100, 998), st.integers(1, 9), st.integers(101, 999))
def test_the_finest_decimal_of_a_vector_says_how_fine_the_others_are(first, tenths, thousandths):
    gold = rf"\begin{{pmatrix}} 0.{first} \\ 0.{tenths} \end{{pmatrix}}"
    answer = r"\begin{pmatrix} 0.%d%d \\ 0.%d00%d \end{pmatrix}"
    assert accepts(answer % (first, 2, tenths, 4), gold)
    assert not accepts(answer % (first, 2, tenths, 6), gold)
    assert not accepts(answer % (first + 1, 2, tenths, 4), gold)
    assert not accepts(f"0.{tenths}004", f"0.{tenths}")
