"""What encloses all of an answer, in any nesting, changes nothing; the brackets of the answer itself do."""

import time

import hypothesis.strategies as st
from forge import inputs
from hypothesis import given
from kinds import FEW, accepts, verdict

from chorus.reward_server.graders.math.algebra import MAX_DEPTH, MAX_WORDS, formula

WRAPPERS = [
    r"\color{blue}{%s}",
    r"\textcolor{red}{%s}",
    r"\colorbox{yellow}{%s}",
    r"\displaystyle %s",
    r"\large{%s}",
    r"\quad %s",
    "~%s",
    r"%s\,",
    "%s.",
    r"%s\quad",
    r"\(%s\)",
    "$%s$",
    r"\mathbf{%s}",
    r"{\bf %s}",
]
# An answer, and another one of its kind.
ANSWERS = [
    ("(-4,1)", "(-4,2)"),
    ("[0,2)", "[0,2]"),
    (r"\left(-\frac{1}{8}, \frac{1}{2}\right)", "(1,2)"),
    ("1232_4", "1232_5"),
    (r"144^\circ", r"145^\circ"),
    ("31,250", "31,251"),
    (r"\frac{33}{2}", r"\frac{31}{2}"),
    (r"2\sqrt{3}", r"3\sqrt{2}"),
    ("3-i", "3+i"),
    (r"\{1,2\}", r"\{1,3\}"),
    (r"70\%", r"71\%"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\1\end{pmatrix}"),
    (r"(-\infty,-4)\cup(4,\infty)", r"(-\infty,-4)\cup[4,\infty)"),
    ("x^2+1", "x^2-1"),
]


@inputs(5 * FEW)
@given(st.sampled_from(ANSWERS), st.lists(st.sampled_from(WRAPPERS), min_size=1, max_size=3, unique=True))
def test_what_encloses_an_answer_is_dropped(answers, wrappers):
    gold, other = answers
    wrapped, wrong = gold, other
    for wrapper in wrappers:
        if "$" in wrapper and ("$" in wrapped or "\\(" in wrapped):
            continue
        wrapped, wrong = wrapper % wrapped, wrapper % wrong
    assert accepts(wrapped, gold)
    assert not accepts(wrong, gold)


def test_words_in_a_wrapper_are_words():
    assert not accepts(r"\color{red}{\text{not } 5}", "5")
    assert not accepts(r"\mathbf{5 \text{ or } 6}", "5")


@inputs(FEW)
@given(st.integers(2, 9), st.integers(2, 9), st.integers(2, 9))
def test_a_fraction_by_its_old_command(a, b, c):
    gold = rf"\frac{{\sqrt{{{a}}}-{b}}}{{{c}}}"
    assert accepts(rf"{{\sqrt{a}-{b} \over {c}}}", gold)
    assert accepts(rf"\sqrt{{{a}}}-{b} \over {c}", gold)
    assert accepts(rf"1+{{\sqrt{{{a}}}-{b} \over {{{c}}}}}", f"1+{gold}")
    assert not accepts(rf"\sqrt{a}-{{{b} \over {c}}}", gold)


def test_prose_and_deep_brackets_are_no_formula():
    for text in ("the number of ways is what was asked for here " * 30, "(1," * 300, "\\frac{" * 200):
        started = time.process_time()
        assert not accepts(text, "(1,2)")
        assert time.process_time() - started < 2
    assert formula("2 + " + "number " * MAX_WORDS) is not None
    assert formula("2 + " + "number " * (MAX_WORDS + 1)) is None
    assert formula("(" * MAX_DEPTH + "1" + ")" * MAX_DEPTH) == 1
    assert formula("(" * (MAX_DEPTH + 1) + "1" + ")" * (MAX_DEPTH + 1)) is None


def test_long_lines_of_words_take_no_time():
    for piece in (" ", "~", r"\color{a}{", r"{a \over ", ",a", "[1,", r"\,"):
        line = f"(a{piece * 20_000}b["
        started = time.process_time()
        assert verdict(f"<answer>{line}</answer>", "blue whale", kind="text") != "correct"
        assert time.process_time() - started < 2, piece
