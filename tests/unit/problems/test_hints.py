"""Hints by QuestA's construction (methods.md 4), and the guard that it does not have."""

from __future__ import annotations

from itertools import pairwise
from string import ascii_lowercase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chorus.problems.hints import (
    answer_in_hint,
    hint_prefix,
    hint_refusal,
    solution_block,
    solution_parts,
    solution_steps,
    with_hint,
)
from chorus.protocol.messages import Problem


def problem(solution: str | None, *answers: str) -> Problem:
    return Problem(id="p", problem="How many?", answers=list(answers) or ["7"], solution=solution)


def test_half_of_the_alphabet_is_its_first_13_letters_and_a_quarter_abcdef() -> None:
    alphabet = problem(ascii_lowercase)
    assert hint_prefix(alphabet, 0.5) == "abcdefghijklm"
    assert hint_prefix(alphabet, 0.25) == "abcdef"


def test_the_heading_is_followed_by_the_hint_without_a_separator() -> None:
    assert with_hint("How many?", "abcdefghijklm") == "How many?\n\n## Hint.abcdefghijklm"


def test_a_prefix_of_under_ten_characters_leaves_the_blank_line_alone() -> None:
    assert with_hint("How many?", "abcdefghi") == "How many?\n\n"
    assert with_hint("How many?", "abcdefghij") == "How many?\n\n## Hint.abcdefghij"


def test_what_was_thought_before_the_solution_is_never_given() -> None:
    assert solution_block('"<think>is it 7?</think> no </think>The sum is 7."') == "The sum is 7."
    assert hint_prefix(problem("<think>" + "x" * 100 + "</think>0123456789"), 0.5) == "01234"


def test_tokens_are_counted_and_cut_by_the_tokenizer() -> None:
    def words(text: str) -> list[int]:
        return [k + 1 for k, c in enumerate(text) if c == " "] + [len(text)]

    five = problem("one two three four five")
    assert hint_prefix(five, 0.5, "tokens", words) == "one two "
    assert hint_prefix(five, 0.1, "tokens", words) == ""
    with pytest.raises(ValueError, match="tokenizer"):
        hint_prefix(five, 0.5, "tokens")


def test_steps_are_lines_and_of_a_single_line_its_sentences() -> None:
    assert solution_steps("\nFirst.\n\nSecond.\nThird.") == ["\nFirst.\n\n", "Second.\n", "Third."]
    assert hint_prefix(problem("First.\n\nSecond.\nThird."), 0.7, "steps") == "First.\n\nSecond.\n"
    assert solution_steps("Add 1.5 to it. Then halve it! So?") == ["Add 1.5 to it. ", "Then halve it! ", "So?"]


@given(st.text(), st.floats(min_value=0, max_value=0.999))
def test_steps_join_to_the_solution_and_a_hint_by_steps_is_a_prefix_of_it(text: str, ratio: float) -> None:
    block = solution_block(text)
    assert "".join(solution_steps(block)) == block
    assert block.startswith(hint_prefix(problem(text), ratio, "steps"))


@given(st.text(), st.floats(min_value=0, max_value=0.999), st.floats(min_value=0, max_value=0.999))
def test_a_smaller_ratio_gives_the_beginning_of_what_a_larger_one_gives(text: str, one: float, other: float) -> None:
    p = problem(text)
    assert hint_prefix(p, max(one, other)).startswith(hint_prefix(p, min(one, other)))


@pytest.mark.parametrize(
    ("answers", "hint", "held"),
    [
        (["2"], "Twelve is written 12", False),
        (["2"], "We add 1 and 1 to get 2.", True),
        (["2"], "We have 2.5 of them, and 1.2", False),
        (["x"], "the maximum is meant", False),
        (["\\frac{1}{2}"], "so it is $\\frac{1}{2}$ at once", True),
        (["-3"], "the root is -3, so", True),
        (["a b"], "it is a\nb in all of them", True),
        (["5", "five"], "it is five of them", True),
        (["7"], "it is 7", False),  # under ten characters: nothing is given
    ],
)
def test_an_answer_stands_in_a_hint_as_a_word_or_number_of_its_own(answers: list[str], hint: str, held: bool) -> None:
    assert answer_in_hint(answers, hint) is held


def test_hints_are_refused_with_the_reason() -> None:
    assert hint_refusal(problem(None), "") == "no_solution"
    assert hint_refusal(problem("<think>7</think>"), "") == "no_solution"
    assert hint_refusal(problem("The sum is seven."), "The sum is") == "answer_not_in_solution"
    shown = problem("It is 7, since 3 + 4 = 7.")
    assert hint_refusal(shown, "It is 7, since") == "answer_in_hint"
    assert hint_refusal(shown, "It is 7, since", reject_if_answer_in_hint=False) is None


def numbered(*ends: int) -> list[str]:
    return ["".join(f"{k}\n\n" for k in range(first, end)) for first, end in pairwise((0, *ends))]


@pytest.mark.parametrize("ends", [(1, 2, 3, 4), (1, 2, 3, 5), (1, 3, 4, 6), (2, 4, 6, 8)])
def test_four_parts_are_paragraphs_in_even_groups(ends: tuple[int, ...]) -> None:
    block = "".join(f"{k}\n\n" for k in range(ends[-1]))
    assert solution_parts(block) == numbered(*ends)


def test_lines_of_one_paragraph_stay_together() -> None:
    assert solution_parts("a\nb\n\nc\n\n\nd\n\ne") == ["a\nb\n\n", "c\n\n\n", "d\n\n", "e"]


def test_of_fewer_than_four_paragraphs_the_numbered_items_are_taken_and_else_the_sentences() -> None:
    items = ["Plan.\n", "1. Add.\n", "2. Halve. Twice.\n", "3) End."]
    assert solution_parts("".join(items)) == items
    steps = ["Step 1: add.\n", "Step 2: halve.\n", "Step 3: add.\n", "Step 4: end."]
    assert solution_parts("".join(steps)) == steps
    sentences = ["Add 1.5 to it. ", "Halve it. \n\n", "Add! ", "So?"]
    assert solution_parts("".join(sentences)) == sentences


def test_lines_are_the_last_resort() -> None:
    lines = [f"+ {k} = {k}\n" for k in range(8)] + ["(0, 1)"]
    assert solution_parts("".join(lines)) == ["".join(lines[a:b]) for a, b in ((0, 2), (2, 4), (4, 6), (6, 9))]


def test_a_part_of_a_short_solution_is_empty_and_the_last_level_holds_all() -> None:
    two = problem("Add. Halve.")
    assert [hint_prefix(two, k / 4, "parts") for k in range(5)] == ["", "", "Add. ", "Add. ", "Add. Halve."]
    assert solution_parts("") == ["", "", "", ""]


@given(st.text(st.sampled_from("ab12.) \n!Step")))
def test_four_parts_join_to_the_solution_and_each_level_begins_with_the_one_below(text: str) -> None:
    parts = solution_parts(text)
    assert len(parts) == 4
    assert "".join(parts) == text
    levels = [hint_prefix(problem(text), k / 4, "parts") for k in range(5)]
    assert levels[0] == ""
    assert levels[4] == solution_block(text)
    assert all(more.startswith(less) for less, more in pairwise(levels))


def test_a_hint_that_begins_the_reasoning_is_given_and_guarded_at_every_length() -> None:
    assert not answer_in_hint(["7"], "so 7")
    assert answer_in_hint(["7"], "so 7", least=1)
    assert hint_refusal(problem("so 7"), "so 7", least=1) == "answer_in_hint"
    assert hint_refusal(problem("so 7"), "so 7", reject_if_answer_in_hint=False, least=1) is None
