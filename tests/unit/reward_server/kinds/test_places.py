"""Reasoning and answer tags: the answer's place comes first, and reasoning never outvotes it."""

import hypothesis.strategies as st
from forge import inputs
from hypothesis import given
from kinds import FEW, naturals, verdict

from chorus.protocol.templates.load import load_templates
from chorus.reward_server.graders.places import Place, find_place, place_of

TEMPLATES = load_templates()
IN_ANSWER_TAGS = ["deepseek-r1", "open-r1", "deepseek-r1-teacher", "open-r1-teacher"]
ANSWERS = [
    r"\boxed{%s}", "%s", "$%s$", "The total is %s.", "x = %s", r"The answer is \boxed{%s}.", "\n%s\n", "**%s**",
    "%s apples",
    "So she has %s apples left.", r"\[ %s \]",
]  # fmt: skip
REASONING = [
    "so \\boxed{%s} it is", "the answer is %s", "%s, or the tags <answer>...</answer>", "<answer> comes later: %s",
    "I first think, then </answer> ends it. %s", "final answer is $%s$. I hope so",
]  # fmt: skip


def _tags(name: str) -> dict:
    template = TEMPLATES[name]
    return {"markers": tuple(template.markers), "prefill": template.prefill}


def _opened(name: str, text: str) -> str:
    """A completion's text behind the template's prefill."""
    return text if TEMPLATES[name].prefill else f"<think>{text}"


@inputs(4 * FEW)
@given(naturals, naturals, st.sampled_from(IN_ANSWER_TAGS), st.sampled_from(ANSWERS), st.sampled_from(REASONING))
def test_the_answer_is_read_in_its_tags(number, other, name, answer, reasoning):
    if number == other:
        other += 1
    text = _opened(name, f"{reasoning % other}</think>\n<answer>{answer % number}</answer>")
    assert verdict(text, str(number), **_tags(name)) == "correct"
    assert verdict(text, str(other), **_tags(name)) == "wrong"
    if TEMPLATES[name].prefill == "":
        assert verdict(text, str(number)) == "correct"
    assert verdict(text.removesuffix("</answer>"), str(number), **_tags(name)) == "correct"  # the stop string is cut


@inputs(FEW)
@given(naturals, st.sampled_from(IN_ANSWER_TAGS), st.sampled_from(REASONING))
def test_reasoning_alone_is_paid_by_a_key_only(number, name, reasoning):
    text = _opened(name, f"perhaps \\boxed{{{number}}}")
    assert verdict(text, str(number), **_tags(name)) == "no_answer"
    assert verdict(text, str(number), **_tags(name), unfinished_reasoning=True) == "correct"
    assert verdict(text + "</think>", str(number), **_tags(name)) == "no_answer"
    assert verdict(text + "</think><answer></answer>", str(number), **_tags(name)) != "correct"
    assert verdict(text + "</think><answer>I can't say.</answer>", str(number), **_tags(name)) != "correct"


@inputs(FEW)
@given(naturals, st.sampled_from(["deepseek-r1", "open-r1", "simplerl", "qwen-math"]))
def test_a_completion_without_any_tag_is_read_as_a_whole(number, name):
    assert verdict(f"6 and 7 make \\boxed{{{number}}}", str(number), **_tags(name)) == "correct"
    assert verdict(f"6 and 7 make \\boxed{{{number}}}", str(number + 1), **_tags(name)) == "wrong"


@inputs(FEW)
@given(naturals, naturals, st.sampled_from(["reflective_prompt", "reflective_prompt-teacher"]))
def test_the_answer_after_the_check_is_the_answer(number, other, name):
    if number == other:
        other += 1
    text = f"\\boxed{{{other}}}\n</solution>\n<check>\nLet's verify step by step: \\boxed{{{other}}}\n</check>\n"
    text = text if TEMPLATES[name].prefill else f"<solution>\n{text}"
    for answer in (rf"\boxed{{{number}}}", f"The answer is {number}."):
        assert verdict(text + answer, str(number), **_tags(name)) == "correct"
        assert verdict(text + answer, str(other), **_tags(name)) == "wrong"
    assert verdict(text, str(other), **_tags(name)) == "no_answer"


def test_text_behind_the_answers_end_is_no_part_of_it():
    assert verdict(r"<answer>41</answer> \boxed{42}", "42") == "wrong"
    assert verdict(r"41 </answer> \boxed{42}", "42") == "wrong"
    assert verdict(r"<answer>\boxed{5}</answer><think>\boxed{6}</think>", "5") == "correct"


def test_a_template_says_its_place():
    place = place_of(TEMPLATES["open-r1-teacher"].markers, TEMPLATES["open-r1-teacher"].prefill)
    assert (place.answer, place.opened) == (("answer",), "think")
    assert "check" in place_of(TEMPLATES["reflective_prompt"].markers, "").reasoning
    assert place_of([], "").opened == ""


@inputs(2 * FEW)
@given(
    st.lists(
        st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "7", " ", "<", "\\boxed{7}"]), max_size=12
    )
)
def test_any_order_of_tags_gives_a_place_inside_the_text(pieces):
    text = "".join(pieces)
    for pay in (False, True):
        found = find_place(text, Place(), pay)
        assert 0 <= found.start <= found.end <= len(text)
        assert found.read_start <= found.start
