"""Other writings of one answer that count, and what looks like them and does not."""

import math

import pytest
from kinds import accepts


def check(gold: str, answer: str, is_right: bool) -> None:
    assert accepts(answer, gold) is is_right


@pytest.mark.parametrize("style", [r"\mathbf{%s}", r"\textbf{$%s$}", r"\text{$%s$}", r"{\bf %s}", r"{\large%s}"])
@pytest.mark.parametrize(
    ("formula", "gold", "other"),
    [(r"\frac{3}{4}", "3/4", "4/3"), (r"2\sqrt{2}", r"\sqrt8", r"\sqrt2"), ("2^{10}", "1024", "210")],
)
def test_a_font_around_a_formula_changes_nothing(style, formula, gold, other):
    check(gold, style % formula, True)
    check(other, style % formula, False)


@pytest.mark.parametrize(
    ("gold", "answer", "is_right"),
    [
        ("7", r"\Large 7", True),
        ("7", r"\huge{7}", True),
        ("7", r"\Large 8", False),
        (r"\frac{3}{4}", r"\mathbf{\frac34\text{ cm}}", True),
        (r"\frac{3}{4}", r"\text{not $\frac{3}{4}$}", False),
        (r"\frac{3}{4}", r"\textbf{never $\frac{3}{4}$}", False),
        ("2", r"\mathbf{2}^{2}", False),
    ],
)
def test_sizes_change_nothing_and_words_in_a_font_stay_words(gold, answer, is_right):
    check(gold, answer, is_right)


def piecewise(rows: list[tuple[str, str]], layout: str) -> str:
    if layout == "array":
        body = r" \\ ".join(f"{value} & {condition}" for value, condition in rows)
        return rf"\left\{{\begin{{array}}{{ll}} {body} \end{{array}}\right."
    between = {"cases": " & ", "commas": ", & ", "words": r" & \text{if } ", "behind": r" \text{ if } & "}[layout]
    return r"\begin{cases} " + r" \\ ".join(value + between + condition for value, condition in rows) + r"\end{cases}"


LAYOUTS = ["array", "cases", "commas", "words", "behind"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("gold_layout", LAYOUTS[:2])
@pytest.mark.parametrize("name", ["", "f(x)=", "a_n=", "a_{n}=", "F_X(x)="])
def test_piecewise_definitions_are_read_row_by_row_in_every_layout(layout, gold_layout, name):
    rows = [("x", "x>0"), ("-x", r"x \le 0")]
    gold = piecewise(rows, gold_layout)
    check(gold, name + piecewise(rows[::-1], layout), True)
    for wrong in ([("x", "x>0"), ("-x", "x<0")], [("-x", "x>0"), ("x", r"x \le 0")], rows[:1]):
        check(gold, name + piecewise(wrong, layout), False)


@pytest.mark.parametrize(
    ("gold", "answer", "is_right"),
    [
        (r"n \text{ even}", r"\text{if } n \text{ is even}", True),
        (r"n \text{ even}", r"\text{if $n$ is even}", True),
        (r"n \text{ even}", r"\text{for even } n", False),  # another order of the words
        (r"n \text{ even}", r"\text{if } n \text{ is odd}", False),
        (r"n \text{ even}", r"\text{if } n \text{ is not even}", False),
        (r"n \ge 2", r"\text{when } n \ge 2", True),
        (r"n \ge 2", r"\text{when } n > 2", False),
        (r"\text{otherwise}", r"\text{ otherwise }", True),
        (r"\text{otherwise}", r"\text{if } n > 3", False),
    ],
)
def test_words_of_a_condition_that_say_nothing_may_be_missing(gold, answer, is_right):
    rows = [("1", "n = 1")]
    check("a_n=" + piecewise([*rows, ("2n", gold)], "cases"), piecewise([*rows, ("2n", answer)], "array"), is_right)


COMBINATIONS = [r"^{%d}C_%d", r"{}_{%d}C_{%d}", r"C_{%d}^%d", r"C_{%d}^{%d}", r"\mathrm{C}_{%d}^{%d}"]


@pytest.mark.parametrize(("n", "k"), [(10, 2), (3, 2), (5, 5), (12, 4)])
def test_combinations_count_beside_a_number(n, k):
    for form in [*(form % (n, k) for form in COMBINATIONS), f"C^{k}_{{{n}}}"]:
        check(str(math.comb(n, k)), form, True)
        check(str(math.comb(n, k) + 1), form, False)
    for letter in "AP":
        check(str(math.perm(n, k)), f"{letter}_{{{n}}}^{k}", True)
        check(str(math.comb(n, k) + 1), f"{letter}_{{{n}}}^{k}", False)


@pytest.mark.parametrize(
    ("gold", "answer", "is_right"),
    [
        (r"\frac{3}{10}", r"\frac{C_3^2}{C_5^2}", True),
        ("12", "2C_4^2", True),
        ("26", "2C_4^2", False),
        ("36", "C_4^2C_4^2", True),
        ("66", "C_4^2C_4^2", False),
        ("90", "2^{10}C_2", False),  # two to the tenth times something
        ("0", "C_2^4", False),
        ("x^2+1", "x^2+C_1^1", False),  # a constant of integration
        ("C_1", "C_1^1", True),
    ],
)
def test_combinations_multiply_and_are_constants_elsewhere(gold, answer, is_right):
    check(gold, answer, is_right)


SEPARATORS = ["", ",", ", ", "、", "，", " ", r" \text{ and } ", ";"]


@pytest.mark.parametrize("marks", ["ACD", "AC", "BD", "①③", "①②④"])
@pytest.mark.parametrize("between", SEPARATORS)
def test_choices_are_a_set_of_marks(marks, between):
    for gold_between in SEPARATORS[:4]:
        gold = gold_between.join(marks)
        check(gold, between.join(marks), True)
        check(gold, between.join(marks[:-1]), False)
        check(gold, between.join(marks + ("⑤" if marks > "Z" else "E")), False)
        check(gold, between.join(marks[1:] + ("⑤" if marks > "Z" else "E")), False)
    if between:
        check(marks, between.join(reversed(marks)), True)


@pytest.mark.parametrize(
    ("gold", "answer", "is_right"),
    [
        ("AC", r"\text{A and C}", True),
        ("AC", r"(A)(C)", True),
        ("AC", r"\text{A or C}", False),
        ("①③", "③①", True),
        ("A", "A, C", False),
        ("AC", "A", False),
        ("(A, C)", "(C, A)", False),  # a point
        ("ACE", r"\text{EAC}", False),  # a word, or a number to base 16
    ],
)
def test_marks_are_choices_where_nothing_else_stands(gold, answer, is_right):
    check(gold, answer, is_right)


@pytest.mark.parametrize("formula", [r"y=\sqrt{x}", "x^2-4x+3", r"f(x)=\frac{x}{x+1}"])
@pytest.mark.parametrize("domain", [r" (x \ge 0)", r"\ (x\geq 0)", r", x \ge 0", r", (x \ge 0)", "（x≥0）"])
def test_a_domain_behind_a_formula_may_be_missing_and_must_agree(formula, domain):
    check(formula, formula + domain, True)
    check(formula + domain, formula, True)
    for gold_domain in (r" (x \ge 0)", r", x \ge 0"):
        check(formula + gold_domain, formula + domain, True)
        check(formula + gold_domain.replace("0", "1"), formula + domain, False)
        check(formula + gold_domain.replace("ge", "le"), formula + domain, False)
        check(formula + "+1" + gold_domain, formula + domain, False)
    check(formula, formula + domain.replace("x", "t"), False)


@pytest.mark.parametrize(
    ("domain", "is_right"),
    [(" (0<x<2)", True), (r", 0 < x < 2", True), (r"\ (0<x\le 2)", False), (" (0<t<2)", False), ("", True)],
)
def test_a_domain_may_have_two_ends(domain, is_right):
    check(" y=x^3 (0<x<2)", "y=x^3" + domain, is_right)


QUANTITIES = [
    "f(1)+f(2)+f(3)", r"\int_0^2 f(x)\,dx", r"\sum_{k=1}^{3}a_k", "|z_1-z_2|", r"\lim_{x\to0}f(x)", r"\sigma^2",
    "a_1+a_2", r"\lim_{x \to 0} f(x)", "a_1+a_2+\\cdots+a_{10}", "x_1x_2+x_3", r"\int_{0}^{1} f'(x) dx",
    "x_1^2+x_2^2", "P(2)-P(1)", r"|\vec{a}_1+\vec{a}_2|",
]  # fmt: skip
STATEMENTS = [
    "2x", "x^2", "17", "2a_1", "f(1)+3", r"\int_0^2 x\,dx", r"\int_0^2 x^2 dx", r"\sum_{k=1}^{3}k", "3+5", "|3-5|",
    r"\sqrt{2}", r"\sin(1)+\cos(2)", r"\lim_{x\to0}x", "2f(1)", "f(1)^2", "a_1^2", "e(1)+e(2)",
]  # fmt: skip


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_an_asked_quantity_with_digits_is_a_name(quantity):
    check("7", f"{quantity}=7", True)
    check("7", f"{quantity}=8", False)
    check("7", f"{quantity}=8=7", False)


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_statement_is_no_name(statement):
    check("7", f"{statement}=7", False)


@pytest.mark.parametrize(
    ("gold", "answer", "is_right"),
    [
        (r"\mathbb{R}", r"\mathbf{R}", True),
        (r"\mathbb{R}", r"\mathbf R", True),
        (r"\mathbb{R}", "R", True),
        (r"\mathbb{R}", r"(-\infty,+\infty)", True),
        ("R", r"(-\infty,+\infty)", True),
        (r"\mathbb{R}", "r", False),
        (r"\mathbb{R}", r"(0,+\infty)", False),
        (r"\mathbb{R}", r"\mathbf{Q}", False),
        ("r", r"\mathbb{R}", False),
        (r"(0,\infty)", r"\mathbb{R}^+", True),
        (r"(0,\infty)", r"x \in \mathbb{R}^{+}", True),
        (r"(-\infty,0)", r"\mathbb{R}^-", True),
        (r"[0,\infty)", r"\mathbb{R}^+", False),
        (r"\mathbb{R}", r"\mathbb{R}^+", False),
        ("{1,2,3}", r"\{1,2,3\}", True),
        (r"{\frac12,3}", r"\{3,\frac12\}", True),
        ("{1,2,3}", r"\{1,2,4\}", False),
        ("{1,2,3}", "(1,2,3)", False),
        ("1000", "{1,000}", False),
        (r"(1,2)\bigcup(3,4)", r"(1,2)\cup(3,4)", True),
        (r"(1,2)\bigcup(3,4)", r"(1,2)\bigcap(3,4)", False),
    ],
)
def test_sets_by_their_usual_signs(gold, answer, is_right):
    check(gold, answer, is_right)
