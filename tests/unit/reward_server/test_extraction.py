"""Where an answer is found: the three ladders, rung by rung, and what hostile text costs."""

import time

import pytest

from chorus.reward_server.graders.extraction import extract, last_box
from chorus.reward_server.graders.math.normalise import normalise, unwrap
from chorus.reward_server.graders.paper import paper_cleanup


def _always(_: str) -> bool:
    return True


@pytest.mark.parametrize(
    ("completion", "rung", "text"),
    [
        (r"The final answer is $\frac{1}{2}$. I hope it is correct. \boxed{3}", "minerva", r"\frac{1}{2}"),
        (r"\boxed{1} then \boxed{\frac{1}{2}} and 7", "last_box", r"\frac{1}{2}"),
        (r"$\boxed 7$ apples", "last_box", "7"),
        (r"cut off: \boxed{42", "last_box", "42"),
        ("First, the answer is 1. No, the answer is 2.", "he_answer_is", "2"),
        ("final answer is 12/5.", "final_answer_is", r"\frac{12}{5}"),
        ("所以答案是 8\n\n再见 9", "chinese_answer_is", "8"),
        ("there are 1,234 of 3.50 each", "last_number", "3.50"),
        ("no digits here", "none", ""),
    ],
)
def test_paper_ladder_takes_the_first_rung_that_is_there(completion, rung, text):
    found = extract(completion, "paper")
    assert (found.rung, found.text) == (rung, text)


def test_text_before_the_first_assistant_header_and_after_stop_strings_is_cut():
    completion = "\\boxed{1}<|im_start|>assistant\n\\boxed{2}</answer>\\boxed{3}<|im_end|>\\boxed{4}"
    for mode in ("paper", "train", "strict"):
        found = extract(completion, mode)
        assert found.text == "2"
        assert found.cuts == (
            "everything up to <|im_start|>assistant",
            "everything from <|im_end|>",
            "everything from </answer>",
        )
        assert completion[found.start : found.end] == "2"


@pytest.mark.parametrize(
    ("completion", "rung", "text"),
    [
        (r"\boxed{1}, no: \fbox{2}", "last_box", "2"),
        (r"7*6 = \boxed{42}. I put it in \boxed{}", "last_box", "42"),
        ("**Answer:** $x = 3$ apples", "answer_is", "x = 3"),
        ("**Final Answer**\n\n12", "answer_is", "12"),
        ("The final answer is: 42", "answer_is", "42"),
        ("So the answer is 42 because 6*7 is.", "answer_is", "42"),
        ("ANSWER IS **7**.", "answer_is", "7"),
        (r"so $y = 3$, thus $x = \frac{1}{2}$ as claimed", "last_expression", r"x = \frac{1}{2}"),
        ("we have $x+1$ and then 1,234 pears", "last_expression", "1,234"),
        ("it costs $3 and $4 more", "last_expression", "$4"),
        (r"\[ a^2 + b^2 \] holds", "last_expression", "a^2 + b^2"),
    ],
)
def test_train_ladder_is_tolerant_and_tries_expressions_before_the_last_number(completion, rung, text):
    found = extract(completion, "train", parses=_always)
    assert (found.rung, found.text) == (rung, text)
    assert completion[found.start : found.end] == text


@pytest.mark.parametrize(
    ("completion", "text"),
    [
        (r"\boxed{1} and \boxed{2}", "1, 2"),
        (r"$\boxed{1}$, $\boxed{2}$ and $\boxed{3}$", "1, 2, 3"),
        (r"\(\boxed{1}\) or \(\boxed{2}\)", "1, 2"),
        (r"\boxed{1}\boxed{2}", "1, 2"),
        ("$$\\boxed{1}$$\n$$\\boxed{2}$$", "2"),
        (r"\boxed{1}. Then \boxed{2}", "2"),
        (r"\boxed{2}, \boxed{2}", "2"),
        ("The answer is $1$ or $2$.", "1, 2"),
        ("The answer is $1$ where $2$ was.", "1"),
    ],
)
def test_parts_of_one_answer_in_several_boxes_or_formulas_are_one_list(completion, text):
    assert extract(completion, "train", parses=_always).text == text


def test_train_ladder_falls_back_to_the_last_number_when_nothing_parses():
    assert extract("maybe x3 or 4", "train", parses=lambda text: False).rung == "last_number"


@pytest.mark.parametrize(
    "completion",
    [
        "42",
        "The answer is 42",
        r"\boxed{42",
        r"\boxed{}",
        "",
        r"boxed{42}",
        r"\boxed{41} so \boxed{42",
        r"\boxed{41} \fbox{\frac{1}{2}",
    ],
)
def test_strict_wants_a_closed_box_with_content(completion):
    assert extract(completion, "strict").rung == "none"


@pytest.mark.parametrize(
    "completion", [r"\boxed{41 so \boxed{42}", r"\boxed{42}, in a \boxed as asked", r"\boxed {42}"]
)
def test_strict_takes_the_last_box_where_only_an_earlier_one_is_open(completion):
    assert extract(completion, "strict").text == "42"


def test_last_box_matches_braces():
    assert last_box(r"\boxed{\frac{a}{b}} .") == r"\frac{a}{b}"
    assert last_box("none") is None


@pytest.mark.parametrize("text", [r"$\boxed{\frac12}$", r"\(\boxed{ \dfrac{1}{2} }\)", r"\frac{1}{2}.", "1/2"])
def test_normal_form_forgets_typography(text):
    assert normalise(text) == r"\frac{1}{2}"


@pytest.mark.parametrize(
    ("one", "other"), [("p", "P"), ("42", r"42\%"), ("(0,1)", "[0,1)"), ("x=5", "5"), ("1 1/2", "11/2")]
)
def test_normal_form_keeps_what_changes_the_value(one, other):
    assert normalise(one) != normalise(other)


def test_unwrap_leaves_partial_delimiters_alone():
    assert unwrap(r"\boxed{1} + \boxed{2}") == r"\boxed{1} + \boxed{2}"
    assert unwrap("$1$ and $2$") == "$1$ and $2$"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (r"\dfrac12", r"\frac{1}{2}"),
        ("x=5", "5"),
        (r"30^\circ", "30"),
        (r"5\text{ cm}", "5"),
        ("3.00", "3"),
        (r"42\%", "42"),
    ],
)
def test_paper_cleanup_is_lossy_as_published(text, clean):
    assert paper_cleanup(text) == clean


@pytest.mark.parametrize("mode", ["train", "paper", "strict"])
@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{" * 100_000,
        r"\boxed{1} " * 50_000,
        "the answer is " * 50_000,
        "answer" + "*" * 500_000,
        "answer is" + " " * 500_000,
        "$" * 500_000,
        r"\(" * 250_000,
        "1," * 250_000,
        "{" * 500_000,
        "1 " * 250_000,
    ],
    ids=lambda text: f"{text[:12]}x{len(text)}",
)
def test_extraction_time_is_bounded_on_half_a_megabyte(text, mode):
    started = time.process_time()
    extract(text, mode, parses=lambda _: False)
    assert time.process_time() - started < 2.0
