"""Choices as letters, bold, labelled, in sentences and on last lines, also under kind math; text answers in tags."""

import hypothesis.strategies as st
from forge import inputs
from hypothesis import given
from kinds import FEW, verdict

OPTIONS = ("10", "11", "12", "13", "14")
letters = st.permutations("ABCDE").map(lambda order: order[:2])
BOXED = [
    r"\boxed{%s}", r"\boxed{(%s)}", r"\boxed{\textbf{(%s)}}", r"\boxed{\text{%s}}", r"\boxed{\mathrm{(%s)}}",
    r"\boxed{\textbf{(%s) }}",
    r"\boxed{\text{Option %s}}", r"\boxed{%s.}",
]  # fmt: skip
SENTENCES = [
    "The answer is %s.", "The answer is (%s).", "So the correct option is (%s)", "The correct answer is **%s**.",
    "**Answer: %s**",
    "Answer: (%s)", "The right choice is: %s", "Therefore, the correct answer is option (%s).",
    "Thus, %s is correct.", "I choose %s.",
    "thinking\n\n%s", "thinking\n(%s)", "thinking\n**(%s)**", "答案：%s", "故选：%s",
    "<think>A or B?</think>\n<answer>\n%s\n</answer>",
    "<think>the tags are <answer>...</answer></think><answer>\\boxed{%s}</answer>",
    "The field is \\boxed{x^2} then.\n\n**Answer: %s**",
]  # fmt: skip
NO_CHOICE = [
    "The answer is {0} or {1}.",
    "\\boxed{{{0}, {1}}}",
    "\\boxed{{{0} \\text{{ and }} {1}}}",
    "Answer: not {0}",
    "The answer is ({0}), ({1}).",
]
WORDS = ["blue whale", "New York", "left of the box", "Marie Curie", "photosynthesis", "rock'n'roll"]
IN_WORDS = [
    "\\boxed{%s}", "\\boxed{\\text{%s}}", "The answer is %s.", "Answer: %s", "**Final Answer:** %s", "so\n%s",
    "<answer>%s</answer>",
    "<think>perhaps red</think>\n<answer>\n%s\n</answer>", "<think>not red</think> <answer>\\boxed{%s}</answer>",
    "The answer is **%s**.",
]  # fmt: skip


@inputs(4 * FEW)
@given(letters, st.sampled_from(BOXED + SENTENCES))
def test_one_letter_is_chosen(pair, form):
    letter, other = pair
    assert verdict(form % letter, letter, "choice") == "correct"
    assert verdict(form % letter, other, "choice") == "wrong"
    assert verdict(form % letter, letter, "choice", options=OPTIONS) == "correct"
    assert verdict(form % letter, [OPTIONS["ABCDE".index(other)]], "choice", options=OPTIONS) == "wrong"


@inputs(2 * FEW)
@given(
    letters,
    st.sampled_from(
        [
            r"\textbf{(%s)}\ %s",
            r"\boxed{\text{(%s) } %s}",
            "The answer is %s. %s",
            r"\boxed{%s) %s}",
            "The correct option is (%s) %s.",
        ]
    ),
)
def test_a_letter_with_its_text_must_be_that_of_the_option(pair, form):
    letter, other = pair
    right, wrong = (OPTIONS["ABCDE".index(x)] for x in pair)
    assert verdict(form % (letter, right), letter, "choice", options=OPTIONS) == "correct"
    assert verdict(form % (letter, right), other, "choice", options=OPTIONS) == "wrong"
    if ". " not in form:  # there the letter's sentence has ended
        assert verdict(form % (letter, wrong), letter, "choice", options=OPTIONS) == "wrong"


@inputs(FEW)
@given(letters, st.sampled_from(NO_CHOICE))
def test_two_letters_are_no_choice(pair, form):
    for letter in pair:
        assert verdict(form.format(*pair), letter, "choice") == "wrong"


@inputs(2 * FEW)
@given(
    letters,
    st.integers(10, 99),
    st.sampled_from(
        [r"\textbf{(%s)}\ %d", r"\text{(%s) }%d", r"\textbf{(%s) } %d", r"\mathrm{(%s)} %d", r"\text{%s) } %d"]
    ),
)
def test_choices_under_kind_math(pair, number, form):
    letter, other = pair
    boxed = rf"\boxed{{{form % (letter, number)}}}"
    for gold in (letter, rf"\textbf{{({letter})}}", rf"\text{{({letter})}}"):
        assert verdict(boxed, gold) == "correct"
        assert verdict(rf"\boxed{{\textbf{{({letter})}}}}", gold) == "correct"
        assert verdict(rf"\boxed{{{other}}}", gold) == "wrong"
        assert verdict(rf"\boxed{{{letter} \text{{ or }} {other}}}", gold) == "wrong"
    assert verdict(boxed, other) == "wrong"
    assert verdict(boxed, str(number)) == "correct"
    assert verdict(boxed, str(number + 1)) == "wrong"


@inputs(2 * FEW)
@given(st.permutations(WORDS), st.sampled_from(IN_WORDS))
def test_a_text_answer_is_its_words(words, form):
    word, other = words[:2]
    assert verdict(form % word, word, "text") == "correct"
    assert verdict(form % word.upper(), word, "text") == "correct"
    assert verdict(form % other, word, "text") == "wrong"
    assert verdict(form % f"not {word}", word, "text") == "wrong"
    assert verdict(form % f"{word} or {other}", word, "text") == "wrong"


@inputs(FEW)
@given(st.permutations(WORDS))
def test_reasoning_never_outvotes_a_text_answer(words):
    word, other = words[:2]
    assert verdict(f"<think>{word}</think><answer>{other}</answer>", word, "text") == "wrong"
    assert verdict(f"<think>\\boxed{{{word}}}</think><answer>{other}</answer>", other, "text") == "correct"
    assert verdict(f"<think>\\boxed{{{word}}}</think>", word, "text") == "no_answer"
