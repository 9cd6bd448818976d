"""Grading mathematics: pairs with their verdicts, and the faults of the library to keep out."""

import time

import pytest

from chorus.reward_server.graders.math.compare import compare, grade_math
from chorus.reward_server.graders.math.units import split_unit
from chorus.reward_server.graders.registry import cluster, run
from chorus.reward_server.graders.task import GradeTask
from chorus.reward_server.graders.text import grade_choice, grade_text

EQUAL = [
    ("42", "42"),
    ("42", "6*7=42"),
    ("5", "x=5"),
    ("5", "f(2)=5"),
    ("90", r"\angle ABC = 90^\circ"),
    ("x=5", "5"),
    ("2x+1", "y=2x+1"),
    (r"42\%", "42"),
    ("3/2", "1 1/2"),
    ("3/2", r"1\frac12"),
    ("10", r"\$10"),
    (r"\$10", "10"),
    ("10", r"10\text{ dollars}"),
    ("30", r"30^\circ"),
    ("1,234", "1234"),
    ("1{,}000", "1000"),
    (r"5\text{ cm}", "5"),
    ("18", "18 square units"),
    (r"18\text{ cm}^2", "18 cm^2"),
    (r"5\text{ inches}", "5 in"),
    ("(1,2)", "(1, 2)"),
    ("[0,1)", r"\left[0, 1\right)"),
    (r"\{1,2\}", "2,1"),
    ("1,2,3", "3,2,1"),
    ("2, -2", r"\pm 2"),
    (r"x \in [1,2]", "[1,2]"),
    ("x^2+2x+1", "(x+1)^2"),
    (r"\frac{\sqrt{3}}{2}", r"\frac{3}{2\sqrt{3}}"),
    ("1.414", r"\sqrt{2}"),
    ("3.14", r"\pi"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix}1\\2\end{bmatrix}"),
    (r"\text{Evelyn}", "evelyn"),
    (r"\text{(A)}", "A"),
    ("1.0e5", "10^5"),
    (r"\infty", r"\infty"),
    ("2", "1+1"),
]
DIFFERENT = [
    ("42", "17=42"),  # math-verify accepts it
    ("42", r"43\%"),
    ("0.42", r"0.42\%"),  # math-verify accepts it
    ("5", "x=3=5"),
    ("5", "2x+1=5"),
    ("42", "6*8=42"),
    ("2x+1", "y=2x+2"),
    (r"5\text{ cm}", r"5 \text{ m}"),
    (r"5\text{ cm}", "5 km"),
    ("5", "5, 6"),
    ("42", r"42 \text{ or } 17"),
    ("42", r"42 \text{ and } 43"),
    ("(1,2,3)", "(3,2,1)"),
    ("[0,1)", "(0,1)"),
    ("1,2", "1.2"),
    ("11/2", "1 1/2"),
    (r"\text{even}", "odd"),
    ("p-q", "q-p"),
    (r"\frac{1}{3}", "0.33"),
    (r"2\pi", "6.28"),
    ("17", "17.5"),
    ("x+1", "x-1"),
    ("4", ""),
]


@pytest.mark.parametrize(("gold", "answer"), EQUAL)
def test_equal_answers_are_accepted(gold, answer):
    assert compare(answer, gold, "train").equal


@pytest.mark.parametrize(("gold", "answer"), DIFFERENT)
def test_different_answers_are_refused(gold, answer):
    assert not compare(answer, gold, "train").equal


@pytest.mark.parametrize("gold", ["42", "$42$", r"\boxed{42}", r"$\boxed{42}$"])
def test_gold_may_be_bare_dollars_or_boxed(gold):
    for mode in ("train", "paper", "strict"):
        assert grade_math(r"\boxed{42}", [gold], mode).verdict == "correct"


def test_any_gold_matches_and_comparisons_stop_there():
    grade = grade_math(r"\boxed{2}", ["1", "2", "3"], "train")
    assert grade.verdict == "correct"
    assert [c.equal for c in grade.comparisons] == [False, True]


@pytest.mark.parametrize(
    ("completion", "why"),
    [
        (" ".join(rf"\boxed{{{n}}}" for n in range(100)), "every number boxed: only the last counts"),
        (r"\boxed{42}, no, \boxed{17}", "the answer was taken back"),
        (r"\boxed{41, 42, 43}", "several answers"),
        (r"\boxed{42 \text{ or } 43}", "a choice of answers"),
        (r"\boxed{17=42}", "an equation that does not hold"),
        (r"What is 6*7 = 42? I don't know. \boxed{?}", "the question echoed"),
        (r"41 </answer> \boxed{42}", "boxed after the end of the answer"),
    ],
)
def test_reward_hacks_are_wrong(completion, why):
    assert grade_math(completion, ["42"], "train").verdict == "wrong", why


def test_paper_mode_uses_the_last_of_several_golds():
    assert grade_math(r"\boxed{1}", ["1", "2"], "paper").verdict == "wrong"
    assert grade_math(r"\boxed{2}", ["1", "2"], "paper").verdict == "correct"
    reply = run(GradeTask("math", r"\boxed{2}", ("1", "2"), "paper", "explain"))
    assert [step["gold"] for step in reply.explanation["comparisons"]] == ["2"]


def test_what_runs_out_inside_the_library_is_not_wrong(monkeypatch):
    def exhausted(*_, **__):
        raise MemoryError

    monkeypatch.setattr("latex2sympy2_extended.latex2sympy2._Latex2Sympy.parse", exhausted)
    for mode in ("train", "paper"):
        with pytest.raises(MemoryError):
            compare("x+7919", "7919+x", mode)


def test_a_long_product_of_brackets_is_no_name_and_costs_no_time():
    started = time.process_time()
    assert not compare("(a+b)" * 60 + "1=2", "3", "train").equal
    assert time.process_time() - started < 5


def test_paper_mode_leaves_the_verdict_to_the_library():
    assert grade_math(r"\boxed{17=42}", ["42"], "paper").verdict == "correct"  # as published
    grade = grade_math(r"\boxed{\frac{2}{4}}", ["1/2"], "paper")
    assert (grade.verdict, grade.rule) == ("correct", "math-verify")


def test_plain_numbers_need_no_algebra():
    assert grade_math(r"\boxed{41}", ["42"], "train").rule == "number"
    assert grade_math(r"\boxed{42}", ["42"], "train").rule == "exact"


def test_an_overlong_answer_is_not_parsed():
    assert grade_math(r"\boxed{" + "1+" * 5000 + "1}", ["5001"], "train").rule == "length"


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        (r"5\text{ centimeters}", "5", "cm"),
        ("5 cm", "5", "cm"),
        (r"5 \text{ cm}^2", "5", "cm^2"),
        ("5 square feet", "5", "ft^2"),
        ("60 miles per hour", "60", "mi/h"),
        ("5m", "5m", ""),
        ("2x", "2x", ""),
        (r"3 \text{ or } 4", r"3 \text{ or } 4", ""),
    ],
)
def test_units_are_told_from_variables(text, value, unit):
    assert split_unit(text) == (value, unit)


OPTIONS = ["3", "red", "The sum", "x+1"]


@pytest.mark.parametrize(
    ("completion", "verdict"),
    [
        (r"\boxed{B}", "correct"),
        (r"\boxed{(b)}", "correct"),
        (r"\boxed{\text{B}}", "correct"),
        ("The answer is (B).", "correct"),
        ("Answer: B. red", "correct"),
        (r"\boxed{red}", "correct"),
        ("I think so.\nB", "correct"),
        (r"\boxed{C}", "wrong"),
        (r"\boxed{A, B}", "wrong"),
        (r"\boxed{A or B}", "wrong"),
        (r"\boxed{B. The sum}", "wrong"),
        (r"\boxed{Z}", "wrong"),
        ("", "no_answer"),
    ],
)
def test_choice_takes_one_letter_or_the_text_of_one_option(completion, verdict):
    for gold in ("B", "(B)", "red"):
        assert grade_choice(completion, [gold], OPTIONS, "train").verdict == verdict


@pytest.mark.parametrize(
    ("completion", "gold", "verdict"),
    [
        ("The answer is: The Eiffel Tower.", "eiffel tower", "correct"),
        (r"\boxed{\text{New  York}}", "new york", "correct"),
        ("thinking\nParis", "Paris", "correct"),
        ("thinking\nLondon", "Paris", "wrong"),
        ("", "Paris", "no_answer"),
    ],
)
def test_text_is_matched_after_normalisation(completion, gold, verdict):
    assert grade_text(completion, [gold], "train").verdict == verdict


def test_cluster_puts_equal_answers_together_in_order_of_appearance():
    assert cluster(["1/2", "3", None, "0.5", r"\frac{2}{4}", None, "3.0"], "math") == [0, 1, 2, 0, 0, 2, 1]
    assert cluster(["A", "(b)", "B."], "choice") == [0, 1, 1]
    assert cluster([], "math") == []
