"""Synthetic problems: right answers, small non-negative numbers, and a split that never leaks."""

import json
import re

import pytest

from chorus.problems.arithmetic import load_arithmetic


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


@pytest.mark.parametrize("spec", ["arithmetic:chain", "arithmetic:chain?max=30", "arithmetic:one-digit"])
def test_no_problem_is_on_both_sides_of_the_split(spec: str):
    joint = "&" if "?" in spec else "?"
    train = load_arithmetic(f"{spec}{joint}split=train")
    heldout = load_arithmetic(f"{spec}{joint}split=heldout")
    assert not {p.problem for p in train} & {p.problem for p in heldout}
    assert not {p.id for p in train} & {p.id for p in heldout}
    assert 0.15 < len(heldout) / (len(train) + len(heldout)) < 0.35


def test_a_held_out_problem_stays_held_out_whatever_the_largest_number():
    heldout = {p.problem for p in load_arithmetic("arithmetic:chain?split=heldout")}
    larger = {p.problem for p in load_arithmetic("arithmetic:chain?max=20&split=train")}
    assert not heldout & larger


def test_the_chain_holds_every_problem_with_a_result_that_is_not_negative():
    heldout = load_arithmetic("arithmetic:chain?split=heldout")
    train = load_arithmetic("arithmetic:chain?max=12&split=train")
    assert len(heldout) >= 400
    wanted = {(a, b, c) for a in range(13) for b in range(13) for c in range(13) if a + b >= c}
    assert {tuple(numbers(p.problem)) for p in [*train, *heldout]} == wanted
    assert len(train) + len(heldout) == len(wanted)


def test_answers_are_right():
    for problem in load_arithmetic("arithmetic:chain?split=heldout"):
        a, b, c = numbers(problem.problem)
        assert problem.problem == f"What is {a} + {b} - {c}?"
        assert problem.answers == [str(a + b - c)]
    for problem in load_arithmetic("arithmetic:one-digit"):
        a, b = numbers(problem.problem)
        assert problem.problem == f"What is {a} + {b}?"
        assert problem.answers == [str(a + b)]


def test_the_split_is_the_same_on_every_machine():
    ids = [p.id for p in load_arithmetic("arithmetic:chain?max=2&split=heldout")]
    assert ids == ["chain/0+1-0", "chain/0+2-0", "chain/2+0-0"]


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("arithmetic:fractions", "style 'fractions' is unknown; use one of chain, one-digit"),
        ("arithmetic:chain?split=test", "split=test is not understood"),
        ("arithmetic:chain?max=many", "max=many is not understood"),
        ("arithmetic:chain?maximum=3", "maximum=3 is not understood"),
    ],
)
def test_a_spec_that_is_not_understood_is_refused(spec: str, named: str):
    with pytest.raises(ValueError, match=re.escape(named)):
        load_arithmetic(spec)


def test_a_choice_holds_its_result_once_among_four_and_its_letter_is_the_answer():
    letters = set()
    for problem in load_arithmetic("arithmetic:choice?split=heldout"):
        a, b, c, *options = numbers(problem.problem)
        assert len(set(options)) == 4
        assert options["ABCD".index(problem.answers[0])] == a + b - c
        letters.add(problem.answers[0])
    assert letters == set("ABCD")


def test_a_program_s_tests_are_what_its_words_ask_for():
    problems = [p for split in ("train", "heldout") for p in load_arithmetic(f"arithmetic:program?split={split}")]
    assert len({p.id for p in problems}) == 19 * 19
    for problem in problems:
        a, b = numbers(problem.problem)
        tests = json.loads(problem.tests or "")
        assert [(int(t["input"]), int(t["output"])) for t in tests] == [(n, n + a - b) for n in (0, 7, 40)]


def test_problems_get_the_level_that_the_source_names():
    assert {p.level for p in load_arithmetic("arithmetic:chain?max=3&level=2")} == {2}
    assert {p.level for p in load_arithmetic("arithmetic:chain?max=3")} == {None}


def test_above_leaves_the_problems_with_small_numbers_out():
    small = {p.id for p in load_arithmetic("arithmetic:chain?max=5")}
    large = {p.id for p in load_arithmetic("arithmetic:chain?above=5")}
    assert not small & large
    assert small | large == {p.id for p in load_arithmetic("arithmetic:chain")}
