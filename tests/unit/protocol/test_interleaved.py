"""The contract of interleaved reasoning: texts that are built right are right, every way of breaking one is seen."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chorus.protocol.templates.interleaved import blocks, places
from chorus.protocol.templates.load import choose_templates, load_templates
from chorus.protocol.templates.score import contract_faults, format_score

NAME = "interleaved"
TEMPLATE = choose_templates([NAME])[NAME]
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
# What may stand in a block: anything but one of the four tags; other markup and lone brackets among it.
INSIDE = st.text(alphabet="ab7 \n<>/\\{}boxed", max_size=12).filter(lambda t: not any(tag in t for tag in TAGS))
BETWEEN = st.text(alphabet=" \n\t", max_size=3)
PAIRS = st.lists(st.tuples(INSIDE, INSIDE), min_size=1, max_size=5)


def joined(pieces: list[str]) -> str:
    return "".join(pieces)


@st.composite
def wholes(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """(pieces, answers): tags at the odd places of each pair, so that a test can break them one by one."""
    pieces, answers = [draw(BETWEEN)], []
    for think, answer in draw(PAIRS):
        # A block's text may not make a tag with what stands beside it.
        pieces += ["<think>", think, "</think>", draw(BETWEEN), "<answer>", answer, "</answer>", draw(BETWEEN)]
        answers.append(answer)
    return pieces, answers


def tags_of(pieces: list[str]) -> list[int]:
    return [k for k, piece in enumerate(pieces) if piece in TAGS]


@settings(max_examples=60, deadline=None)
@given(wholes())
def test_blocks_in_turn_are_right_and_give_back_their_answers(made: tuple[list[str], list[str]]) -> None:
    pieces, answers = made
    assert blocks(joined(pieces)) == answers
    assert format_score(TEMPLATE, joined(pieces)) == 1.0
    assert contract_faults(TEMPLATE, joined(pieces)) == []


@settings(max_examples=60, deadline=None)
@given(wholes(), st.data())
def test_a_tag_that_is_missing_or_doubled_or_another_one_is_wrong(
    made: tuple[list[str], list[str]], data: st.DataObject
) -> None:
    pieces, _ = made
    k = data.draw(st.sampled_from(tags_of(pieces)))
    other = data.draw(st.sampled_from([tag for tag in TAGS if tag != pieces[k]]))
    for instead in ("", pieces[k] * 2, other):
        broken = joined([*pieces[:k], instead, *pieces[k + 1 :]])
        assert isinstance(blocks(broken), str), broken
        assert format_score(TEMPLATE, broken) == 0.0
        assert len(contract_faults(TEMPLATE, broken)) == 1


@settings(max_examples=60, deadline=None)
@given(wholes(), st.sampled_from(TAGS), st.data())
def test_a_tag_inside_a_block_is_wrong(made: tuple[list[str], list[str]], tag: str, data: st.DataObject) -> None:
    pieces, _ = made
    inside = [k + 1 for k in tags_of(pieces) if pieces[k] in ("<think>", "<answer>")]
    k = data.draw(st.sampled_from(inside))
    assert isinstance(blocks(joined([*pieces[:k], pieces[k], tag, *pieces[k + 1 :]])), str)


@settings(max_examples=60, deadline=None)
@given(wholes(), st.data())
def test_words_outside_the_blocks_are_wrong(made: tuple[list[str], list[str]], data: st.DataObject) -> None:
    pieces, _ = made
    outside = [0] + [k + 1 for k in tags_of(pieces) if pieces[k] in ("</think>", "</answer>")]
    k = data.draw(st.sampled_from(outside))
    assert isinstance(blocks(joined([*pieces[:k], f"{pieces[k]}so", *pieces[k + 1 :]])), str)


@settings(max_examples=60, deadline=None)
@given(wholes(), st.data())
def test_every_answer_but_the_last_is_found_at_its_first_place(
    made: tuple[list[str], list[str]], data: st.DataObject
) -> None:
    pieces, answers = made
    told = [answer.strip() for answer in answers]
    gold = data.draw(st.sampled_from(told))
    before = [" ".join(answer.split()) for answer in told[:-1]]
    wanted = " ".join(gold.split())
    if "\\boxed" not in joined(pieces):
        assert places(TEMPLATE, joined(pieces), [gold]) == [before.index(wanted) + 1 if wanted in before else 0]


def text(*answers: str) -> str:
    return "".join(f"<think>x</think><answer>{answer}</answer>" for answer in answers)


@pytest.mark.parametrize(
    ("answers", "golds", "found"),
    [
        (["7", "2"], ["7"], [1]),
        (["\\boxed{7}", "2"], ["7"], [1]),
        ([" Paris ", "2"], ["paris"], [1]),
        (["17", "2"], ["7"], [0]),  # one that contains it says something else
        (["5, 6, 7", "2"], ["7"], [0]),
        (["7"], ["7"], [0]),  # the last one is the final answer
        (["1", "7", "7", "2"], ["7", "1", "9"], [2, 1, 0]),
    ],
)
def test_a_sub_answer_is_an_earlier_answer_that_says_it_and_nothing_else(
    answers: list[str], golds: list[str], found: list[int]
) -> None:
    assert places(TEMPLATE, text(*answers), golds) == found


def test_in_a_wrong_format_no_sub_answer_is_found() -> None:
    assert places(TEMPLATE, text("7", "2") + "<think>", ["7"]) == [0]


def test_the_template_of_a_method_is_known_by_name_and_is_none_of_the_thirteen() -> None:
    assert NAME not in load_templates()
    assert TEMPLATE.contract == "interleaved"
