"""Multiple choice as open questions and with its options in another order, and the filters of CrossThink."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chorus.problems.adapters.choices import LETTERS, Options, with_options
from chorus.problems.arithmetic import load_arithmetic
from chorus.problems.choice_forms import as_open, refers_to_options, shuffled, split_options
from chorus.problems.filters import FILTERS, apply, refused_by
from chorus.problems.sources import Placed
from chorus.protocol.messages import Problem


def choice(stem: str, *options: str, gold: str = "A", id: str = "q") -> Problem:
    text = with_options(stem, Options(("",) * len(options), options))
    return Problem(id=id, problem=text, answers=[gold], kind="choice")


words = st.text(st.characters(blacklist_categories=["C", "Z"]), min_size=1, max_size=8)
options = st.lists(words, min_size=2, max_size=26, unique=True)
stems = st.lists(words.filter(lambda word: not word.startswith("(")), min_size=1, max_size=4).map("\n".join)


@given(stems, options)
def test_the_options_of_a_text_are_those_that_were_written_into_it(stem: str, texts: list[str]) -> None:
    assert split_options(choice(stem, *texts).problem) == (stem, texts)


@given(stems, options, st.integers(0, 25), st.integers(0, 99))
def test_shuffled_options_hold_the_same_gold_and_the_permutation_says_where_each_came_from(
    stem: str, texts: list[str], at: int, seed: int
) -> None:
    problem = choice(stem, *texts, gold=LETTERS[at % len(texts)])
    made, order = shuffled(problem, seed)
    again = split_options(made.problem)
    assert again == (stem, [texts[k] for k in order])
    assert again[1][LETTERS.index(made.answers[0])] == texts[at % len(texts)]
    assert shuffled(problem, seed) == (made, order)


def test_seeds_and_problems_have_orders_of_their_own() -> None:
    texts = [str(k) for k in range(8)]
    orders = {tuple(shuffled(choice("How many?", *texts, id=id), seed)[1]) for id in "ab" for seed in (0, 1)}
    assert len(orders) == 4


@given(stems, options, st.integers(0, 25))
def test_an_open_question_is_the_stem_with_the_text_of_its_gold(stem: str, texts: list[str], at: int) -> None:
    problem = choice(f"{stem}?", *texts, gold=LETTERS[at % len(texts)])
    made = as_open(problem)
    if made is None:
        assert refers_to_options(problem.problem)
    else:
        assert (made.problem, made.answers) == (f"{stem}?", [texts[at % len(texts)]])


@pytest.mark.parametrize(
    ("gold", "kind"), [("42", "math"), ("-1,200.5", "math"), ("3/4", "math"), ("$7$", "math"), ("4 moles", "text")]
)
def test_a_number_is_graded_as_mathematics_and_words_as_text(gold: str, kind: str) -> None:
    made = as_open(choice("How much is it?", "x", gold, gold="B"))
    assert made is not None
    assert (made.kind, made.answers) == (kind, [gold])


@pytest.mark.parametrize(
    "stem",
    [
        "Which of the following gases do plants take up?",
        "Which of these is a prime?",
        "Which one is a prime?",
        "Which statement is true?",
        "All are mammals EXCEPT which?",
        "What is NOT a mammal?",
        "Choose the best answer. What is it?",
        "What is the most likely cause?",
        "The capital of France is",
        "The capital of ____ is Paris?",
        "Given (a) and (b), what holds?",
    ],
)
def test_a_stem_that_speaks_of_its_options_has_no_open_form(stem: str) -> None:
    assert as_open(choice(stem, "x", "y")) is None
    assert refused_by(choice(stem, "x", "y"), ["needs-options"]) == "needs-options"


@pytest.mark.parametrize("last", ["All of the above", "none of these", "Both A and B"])
def test_nor_has_one_with_an_option_of_other_options(last: str) -> None:
    assert as_open(choice("Which gas do plants take up?", "oxygen", "helium", last)) is None
    assert as_open(choice("Which gas do plants take up?", "oxygen", "helium")) is not None


def test_arithmetic_choices_become_the_sums_they_are() -> None:
    for problem in load_arithmetic("arithmetic:choice?split=heldout")[:50]:
        made, order = shuffled(problem, 3)
        opened = as_open(made)
        assert opened is not None
        a, b, c = map(int, problem.id.removeprefix("choice/").replace("+", "-").split("-"))
        assert (opened.kind, opened.answers) == ("math", [str(a + b - c)])
        assert sorted(order) == [0, 1, 2, 3]


def placed(*problems: Problem) -> list[Placed]:
    return [Placed("x:1", problem, {}) for problem in problems]


def test_an_open_gold_of_more_than_ten_words_is_left_out() -> None:
    ten, eleven = (Problem(id=str(n), problem="?", answers=["w " * n], kind="text") for n in (10, 11))
    kept, left_out = apply(placed(ten, eleven), ["short-answer"], Counter())
    assert [one.problem.id for one in kept] == ["10"]
    assert left_out == Counter({"short-answer": 1})


def test_rows_whose_fault_was_found_at_loading_count_for_the_filter_that_asks_for_it() -> None:
    unusable = Counter({"an answer that names no option": 3, "no answer": 2, "a list": 5})
    kept, left_out = apply(placed(choice("What is it?", "x", "y")), FILTERS, unusable)
    assert len(kept) == 1
    assert dict(left_out) == {"gold-in-options": 3, "needs-options": 0, "short-answer": 0, "answered": 2}


def test_a_filter_that_is_not_asked_for_leaves_nothing_out() -> None:
    kept, left_out = apply(placed(choice("Which of these?", "x", "y")), [], Counter({"no answer": 1}))
    assert (len(kept), left_out.total()) == (1, 0)
