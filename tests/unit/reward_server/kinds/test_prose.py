"""Answers in sentences and boxes: what a sentence states, which boxes are one answer, and what a model goes on with."""

from fractions import Fraction

import hypothesis.strategies as st
from forge import inputs
from hypothesis import given
from kinds import FEW, fractions, latex, naturals, verdict

plain = st.one_of(
    st.integers(2, 99999).map(lambda n: (str(n), Fraction(n))),
    st.integers(-9999, -2).map(lambda n: (str(n), Fraction(n))),
    st.integers(1000, 10**7).map(lambda n: (f"{n:,}", Fraction(n))),
    fractions.map(lambda f: (f"{f.numerator}/{f.denominator}", f)),
    st.tuples(st.integers(1, 20), st.integers(1, 7)).map(lambda t: (f"{t[0]} {t[1]}/8", t[0] + Fraction(t[1], 8))),
    st.tuples(st.integers(2, 12), st.integers(2, 9)).map(lambda t: (f"{t[0]}^{t[1]}", Fraction(t[0] ** t[1]))),
    st.tuples(st.integers(0, 99), st.integers(1, 99)).map(lambda t: (f"{t[0]}.{t[1]:02d}", t[0] + Fraction(t[1], 100))),
    fractions.map(lambda f: (f"${latex(f)}$", f)),
    fractions.map(lambda f: (rf"\({latex(f)}\)", f)),
    fractions.map(lambda f: (latex(f), f)),
)
ENDINGS = [
    "So the probability is %s.", "Therefore we get %s.", "Hence, x = %s.", "The answer is %s.",
    "The final answer is: %s",
    "Answer: %s", "**Answer:** %s", "**Final Answer**\n\n%s", "### Final Answer\n%s.", "The answer is **%s**.",
    "Thus the result is %s",
    "Final Answer: The volume of $ABC$ is %s. I hope it is correct.", "The answer is %s (see above).", "ANSWER IS %s",
    "The value of $x$ is %s.", "Answer: the ratio of the areas equals %s.", "#### %s", "so they need %s",
    "Final answer: x equals %s",
    "The answer is %s, as claimed.", "最终答案是 %s", "所以答案为：%s。", "答えは %s です。",
    "The answer is %s<|im_end|>",
    "The answer is `%s`.",
]  # fmt: skip
NOT_THE_VALUE = [
    "The answer is not %s.", "The answer is either 7001 or %s.", "The answer is at least %s.",
    "The answer is %s or 7001.",
    "Therefore x is not %s.", "The answer is %s or more.", "The answer is between 7000 and %s.", "Answer: %s million",
    "Answer: %s squared", "The answer is %s. No: the answer is 7001.", "\\boxed{7001} and not %s.",
    "The answer could be %s or 7001.",
    "The answer is 7001.<|im_end|>\n<|im_start|>user\nNext<|im_end|>\n<|im_start|>assistant\nThe answer is %s.",
    "The answer is 7001.\n\nQuestion: another\nAnswer: %s",
    "The answer is 7001.\nHuman: and now?\n\nAssistant: The answer is %s.",
]  # fmt: skip


@inputs(4 * FEW)
@given(plain, st.sampled_from(ENDINGS))
def test_a_sentence_states_its_value(value, ending):
    text, number = value
    completion = "First, 3 pears and 4 apples.\n" + ending % text
    assert verdict(completion, latex(number)) == "correct"
    assert verdict(completion, latex(number + Fraction(1, number.denominator))) == "wrong"
    assert verdict(completion, latex(-number)) == "wrong"


ROUNDINGS = [
    ", or about %s",
    " (approximately %s)",
    ", which is roughly %s",
    " ≈ %s",
    ", i.e. about $%s$",
    " or around %s",
]


@inputs(2 * FEW)
@given(fractions, st.sampled_from(["The chance is $%s$", "So the chance is %s"]), st.sampled_from(ROUNDINGS))
def test_a_sentence_that_rounds_its_value_states_the_exact_one(number, sentence, rounding):
    completion = f"{sentence % latex(number)}{rounding % f'{float(number):.3f}'}."
    assert verdict(completion, latex(number)) == "correct"
    assert verdict(completion, latex(number + Fraction(1, number.denominator))) == "wrong"
    count = abs(number.numerator) + 2100
    assert verdict(f"In 2020, about {count} people came.", str(count)) == "correct"
    assert verdict(f"The chance is $\\frac12$, so {count} people came.", str(count)) == "correct"


@inputs(2 * FEW)
@given(naturals.filter(lambda n: n not in (7000, 7001)), st.sampled_from(NOT_THE_VALUE))
def test_a_sentence_that_denies_limits_or_takes_back_a_value_does_not_state_it(number, ending):
    assert verdict(ending % number, str(number)) != "correct"


@inputs(2 * FEW)
@given(fractions)
def test_a_part_of_a_plain_value_is_not_the_answer(number):
    for text in (f"{number.numerator}/{number.denominator}", f"{abs(number.numerator)} 1/{number.denominator}"):
        for part in (abs(number.numerator), number.denominator, 1):
            assert verdict(f"So it is {text}.", str(part)) == "wrong"
    assert verdict(f"We get {abs(number.numerator)}^{number.denominator}.", str(number.denominator)) == "wrong"
    assert verdict(f"The point is ({number.numerator}, {number.denominator}).", str(number.denominator)) == "wrong"


@inputs(FEW)
@given(naturals, st.sampled_from(["apples left", "students in all", "km away", "dollars", "degrees"]))
def test_the_only_value_of_a_sentence_is_its_answer(number, what):
    assert verdict(f"Answer: Tom has {number} {what}.", str(number)) == "correct"
    assert verdict(f"Answer: Tom has {number} {what}.", str(number + 1)) == "wrong"
    assert verdict(f"Answer: Tom has {number} {what} and Ann has {number + 1}.", str(number)) == "wrong"


@inputs(FEW)
@given(naturals, st.sampled_from(["-$%d", "−$%d", "$-%d"]))
def test_a_debt_in_a_sentence_has_its_sign(number, form):
    assert verdict(f"The profit is {form % number}.", str(-number)) == "correct"
    assert verdict(f"The profit is {form % number}.", str(number)) == "wrong"
    assert verdict(f"The price is ${number:,}.", str(number)) == "correct"
    assert verdict(f"The price is ${number:,}.".replace(",", "{,}"), str(number)) == "correct"


parts = st.lists(st.integers(1, 99), min_size=2, max_size=4, unique=True)
BETWEEN = [" and ", ", ", ", and ", "$ and $", "$, $", r" \text{ and } ", " or "]


@inputs(2 * FEW)
@given(parts, st.sampled_from(BETWEEN))
def test_boxes_side_by_side_are_one_answer(numbers, between):
    boxes = between.join(f"\\boxed{{{n}}}" for n in numbers)
    text = f"They are ${boxes}$."
    gold = ", ".join(map(str, numbers))
    assert verdict(text, gold) == "correct"
    assert verdict(text, " and ".join(f"$\\boxed{{{n}}}$" for n in numbers)) == "correct"
    assert verdict(text, ", ".join(map(str, numbers[1:]))) == "wrong"
    for number in numbers:  # all boxed to be safe
        assert verdict(text, str(number)) == "wrong"


@inputs(FEW)
@given(parts.filter(lambda numbers: len(numbers) < 4))
def test_boxes_with_names_are_assignments(numbers):
    names = "abc"[: len(numbers)]
    text = " and ".join(rf"${name} = \boxed{{{n}}}$" for name, n in zip(names, numbers, strict=True))
    assert verdict(text, ", ".join(f"{name}={n}" for name, n in zip(names, numbers, strict=True))) == "correct"
    assert verdict(text, f"({','.join(map(str, numbers))})") == "correct"
    assert verdict(text, f"({','.join(map(str, numbers[::-1]))})") == "wrong"
    assert verdict(text, str(numbers[-1])) == "wrong"
    text = f"The largest is \\boxed{{{max(numbers)}}} and the smallest is \\boxed{{{min(numbers)}}}."
    assert verdict(text, f"{max(numbers)}, {min(numbers)}") == "correct"
    assert verdict(f"First \\boxed{{{numbers[0]}}}, no: \\boxed{{{numbers[1]}}}", str(numbers[0])) == "wrong"
    assert verdict(f"First \\boxed{{{numbers[0]}}}. No: \\boxed{{{numbers[1]}}}", str(numbers[1])) == "correct"


@inputs(FEW)
@given(
    naturals,
    st.sampled_from(
        [
            "I used the \\boxed command for it.",
            "It stands in \\boxed{}.",
            "Here is the `\\boxed` format.",
            "The format \\boxed{answer} was asked for.",
            "It is in \\boxed{...}, as you wished.",
            "A \\boxed environment is used.",
        ]
    ),
)
def test_a_box_that_is_only_mentioned_holds_nothing(number, mention):
    assert verdict(rf"$\boxed{{{number}}}$. {mention}", str(number)) == "correct"
    assert verdict(rf"$\boxed{{{number}}}$. {mention}", str(number + 1)) == "wrong"
    assert (
        verdict(f"{mention} The answer is {number}.", str(number)) == "correct"
        or "{answer}" in mention
        or "..." in mention
    )


@inputs(FEW)
@given(
    st.lists(st.integers(-99, 99), min_size=2, max_size=3, unique=True), st.booleans(), st.sampled_from([" and ", ", "])
)
def test_values_side_by_side_are_a_list_where_the_gold_is_one(numbers, in_formulas, between):
    sign = "$" if in_formulas else ""
    gold = ", ".join(map(str, numbers))
    text = "So the solutions are " + between.join(f"{sign}x = {n}{sign}" for n in numbers) + "."
    assert verdict(text, gold) == "correct"
    assert verdict(text, ", ".join(map(str, [*numbers[1:], 100]))) == "wrong"
    text = (
        "So "
        + between.join(f"{sign}{name} = {n}{sign}" for name, n in zip("xyz"[: len(numbers)], numbers, strict=True))
        + "."
    )
    assert verdict(text, f"({gold})") == "correct"
    assert verdict(text, f"({', '.join(map(str, numbers[::-1]))})") == "wrong"
    assert verdict(text, ", ".join(map(str, numbers[:-1])) + ", 100") == "wrong"


@inputs(FEW)
@given(st.integers(2, 99), st.integers(2, 99))
def test_algebra_in_plain_text_is_read_as_a_whole(slope, constant):
    text = f"Hence the equation of the line is y = {slope}x + {constant}."
    assert verdict(text, f"y = {slope}x+{constant}") == "correct"
    assert verdict(text, f"{slope}x+{constant}") == "correct"
    assert verdict(text, str(constant)) == "wrong"
    assert verdict(text, f"y = {slope}x-{constant}") == "wrong"


@inputs(FEW)
@given(
    naturals,
    st.sampled_from(["is wrong", "is clearly not enough", "was incorrect", "cannot be out by so much", "is too large"]),
)
def test_what_is_denied_behind_the_value_is_no_answer(number, denial):
    assert verdict(f"But {number} {denial}.", str(number)) != "correct"
    assert verdict(f"So ${number}$ {denial}.", str(number)) != "correct"
    assert verdict(f"It is {number + 1}, since {number} {denial}.", str(number)) != "correct"


@inputs(FEW)
@given(naturals, st.sampled_from(["therefore", "thus", "simply", "hence,"]))
def test_a_connective_behind_the_phrase_is_no_part_of_the_answer(number, word):
    assert verdict(f"The answer is {word} $\\mathbf{{{number}}}$.", str(number)) == "correct"
    assert verdict(f"The answer is {word} ${number}$.", str(number + 1)) == "wrong"


PIECES = [
    "\\boxed{", "}", "42", "$", "\\[", "\\]", "<think>", "</think>", "<answer>", "</answer>",
    "The answer is ", "Answer:", "#### ", "\n", ". ", ", ", " or ", "not ", "(", "A", ")", "**", "x = ",
    "\\frac", "{1}", "\\text{", "3/4", "-", "<", ">", "12.5%", "\\$5", "\\begin{", "align}", "&", "\\\\",
    "<|im_end|>", "答案", "：", "½", "1e400", "\x00", "\u202e", "👍", "\\le", "^", "_", "!", "|", "Step 1:",
    "about ", "≈", "\\infty", "no solution", "Option C", "[1,2)", "`", "```python\nprint(1)\n```",
]  # fmt: skip


@inputs(20 * FEW)
@given(
    st.lists(st.sampled_from(PIECES), max_size=14).map("".join),
    st.sampled_from(["42", r"\frac{1}{2}", "(1,2)", "[1,2)", "no solution", "12 cm", r"50\%", "blue whale"]),
    st.sampled_from(["train", "strict", "paper"]),
)
def test_pieces_of_answers_in_any_order_have_a_verdict(completion, gold, mode):
    assert verdict(completion, gold, mode=mode) in ("correct", "wrong", "no_answer")
