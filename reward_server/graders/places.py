"""Where in a completion the answer may stand: behind the chat's markup, in the answer's tags, after the reasoning.

    chat     what a leaked prompt holds before the first assistant header, and what a base model goes on with after its
             turn (`<|im_end|>`, the next `User:`), is no part of the completion
    tags     a closed `<answer>` block outside the reasoning is the place; then one that never closes; then all that
             follows the reasoning. A tag that reasoning only mentions opens and closes nothing
    unfinished  reasoning that never ends holds no answer, unless `pay_unfinished` says so

>>> text = "<think>in <answer>...</answer> tags: 40+2</think><answer>42</answer>"
>>> found = find_place(text, Place(), pay_unfinished=False)
>>> text[found.start : found.end], found.is_block
('42', True)
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

ASSISTANT = re.compile(
    r"<\|im_start\|>assistant|<\|start_header_id\|>assistant<\|end_header_id\|>|<\|assistant\|>|<start_of_turn>model"
    r"|<｜Assistant｜>"
)
_TURN_END = re.compile(
    r"</s>|<\|im_end\|>|<\|endoftext\|>|<\|eot_id\|>|<\|end_of_text\|>|<\|end\|>|<end_of_turn>|<eos>"
    r"|<｜end▁of▁sentence｜>|\[END\](?=\s*(?:\n|$))"
)
_OTHER_TURN = re.compile(
    r"<\|im_start\|>|<\|start_header_id\|>|<\|(?:user|system)\|>|<start_of_turn>|<｜User｜>|\[INST\]"
)
# The next turn of a dialogue that a base model writes by itself; only behind something that looks like an answer.
_NEXT_TURN = re.compile(r"\n[ \t]*(?:(?:User|Human|Question|Problem|Q|Instruction)[ \t]*:|(?:user|human)[ \t]*\n)")
_ANSWERED = re.compile(r"\\boxed|####|answer", re.IGNORECASE)
_TAG = re.compile(r"<(/?)([A-Za-z][\w-]{0,30})>")
_PLACEHOLDER = re.compile(
    r"[\s.…]*|\s*(?:\[|\{)?(?:(?:your|the|final|my)\s+)*(?:answer|reply|response|result)s?(?:\s+here)?(?:\]|\})?\s*",
    re.IGNORECASE,
)
MAX_PLACEHOLDER_CHARS = 60
REASONING_TAGS = ("think", "thinking", "thought", "reasoning", "scratchpad", "reflection")
ANSWER_TAGS = ("answer", "final_answer", "final-answer")


@dataclass(frozen=True)
class Place:
    """What a template's tags say: names of answer and reasoning tags, and the one that its prefill has opened."""

    answer: tuple[str, ...] = ANSWER_TAGS
    reasoning: tuple[str, ...] = REASONING_TAGS
    opened: str = ""


@dataclass(frozen=True)
class Found:
    """The span to read the answer from; empty where there is none."""

    start: int
    end: int
    read_start: int  # as `start`, the opening tag included
    cuts: tuple[str, ...]
    is_block: bool = False  # it is the inside of answer tags


def place_of(markers: Sequence[str], prefill: str) -> Place:
    """The answer place of a template, from the tags in its markers and its prefill.

    >>> place_of(["</think>", "<answer>", "</answer>"], "<think>").opened
    'think'
    """
    names = {tag[2].lower() for text in (prefill, *markers) for tag in _TAG.finditer(text)}
    answer = tuple(name for name in sorted(names) if name in ANSWER_TAGS)
    reasoning = tuple(sorted(names - set(answer)))
    opened = [tag[2].lower() for tag in _TAG.finditer(prefill) if not tag[1] and f"</{tag[2]}>" not in prefill]
    opened = [name for name in opened if name in reasoning]
    return Place(answer or ANSWER_TAGS, tuple({*reasoning, *REASONING_TAGS}), opened[-1] if opened else "")


def find_place(text: str, place: Place, pay_unfinished: bool) -> Found:
    """Where to read the answer of a completion."""
    start, end, cuts = _turn(text)
    tags = list(_TAG.finditer(text, start, end)) if "<" in text else []
    reasoning, unfinished = _reasoning(text, tags, place, start, end)
    if (block := _block(text, tags, place, reasoning, unfinished, start, end)) is not None:
        opened, first, last = block
        left_out = [f"everything from {text[last : text.find('>', last) + 1]}"] if last < end else []
        return Found(first, last, opened, tuple(cuts + left_out), opened < first or bool(left_out and reasoning))
    if not reasoning:
        return Found(start, end, start, tuple(cuts))
    after = reasoning[-1][1]
    if text[after:end].strip():
        return Found(after, end, after, (*cuts, "the reasoning"))
    before = reasoning[-2][1] if len(reasoning) > 1 else start
    if text[before : reasoning[-1][0]].strip():
        return Found(before, reasoning[-1][0], before, (*cuts, "the reasoning"))
    if pay_unfinished:
        return Found(start, end, start, tuple(cuts))
    return Found(end, end, end, (*cuts, "the reasoning, which never ends" if unfinished else "the reasoning"))


def _turn(text: str) -> tuple[int, int, list[str]]:
    """The assistant's turn: (start, end, what was cut)."""
    start, cuts = 0, []
    header = ASSISTANT.search(text) if "<" in text else None
    if header is not None:
        before = text[: header.start()]
        leaked = _OTHER_TURN.match(before.lstrip()) is not None
        if leaked or _TURN_END.search(before) is None or not _ANSWERED.search(before):
            start = header.end()
            cuts.append(f"everything up to {header.group()}")
    ends = [found for pattern in (_TURN_END, _OTHER_TURN) if (found := pattern.search(text, start))]
    if (following := _NEXT_TURN.search(text, start)) is not None and _ANSWERED.search(text, start, following.start()):
        ends.append(following)
    if not ends:
        return start, len(text), cuts
    end = min(ends, key=lambda found: found.start())
    return start, end.start(), [*cuts, f"everything from {end.group().strip()}"]


def _reasoning(
    text: str, tags: list[re.Match[str]], place: Place, start: int, end: int
) -> tuple[list[tuple[int, int]], bool]:
    """The spans of the reasoning, and whether the last one never ends."""
    spans: list[tuple[int, int]] = []
    name, opened = place.opened, start
    answered = False  # an answer block was closed since the last span
    block_start = -1
    for tag in tags:
        closes, tag_name = bool(tag[1]), tag[2].lower()
        if tag_name in place.answer and not name:
            if not closes:
                block_start = tag.end()
            elif block_start >= 0:
                answered = answered or not _is_placeholder(text, block_start, tag.start())
        if tag_name not in place.reasoning:
            continue
        if not closes and not name:
            name, opened = tag_name, tag.start()
        elif closes and name == tag_name:
            spans.append((opened, tag.end()))
            name, answered, block_start = "", False, -1
        elif closes and not name and not answered:  # opened by the prompt, or closed once more
            spans.append((spans[-1][1] if spans else start, tag.end()))
    if name:
        spans.append((opened, end))
    return spans, bool(name)


def _block(
    text: str,
    tags: list[re.Match[str]],
    place: Place,
    reasoning: list[tuple[int, int]],
    unfinished: bool,
    start: int,
    end: int,
) -> tuple[int, int, int] | None:
    """The last answer block: (its tag, its first character, its end)."""
    outside = [tag for tag in tags if tag[2].lower() in place.answer and not _inside(tag.start(), reasoning)]
    found: tuple[int, int, int] | None = None
    opened: re.Match[str] | None = None
    for tag in outside:
        if not tag[1]:
            opened = tag
        elif opened is not None:
            if not _is_placeholder(text, opened.end(), tag.start()):
                found = (opened.start(), opened.end(), tag.start())
            opened = None
        elif found is None:  # the prompt opened it
            after = reasoning[-1][1] if reasoning and reasoning[-1][1] <= tag.start() else start
            return after, after, tag.start()
    if found is None and opened is not None and text[opened.end() : end].strip():
        return opened.start(), opened.end(), end
    if found is None and unfinished:
        return _closing_block(text, tags, place, reasoning[-1][0], end)
    return found


def _closing_block(
    text: str, tags: list[re.Match[str]], place: Place, start: int, end: int
) -> tuple[int, int, int] | None:
    """A whole block that ends the text, in reasoning whose own end was forgotten."""
    last = [tag for tag in tags if tag.start() >= start and tag[2].lower() in place.answer][-2:]
    if len(last) < 2 or last[0][1] or not last[1][1] or text[last[1].end() : end].strip():
        return None
    if _is_placeholder(text, last[0].end(), last[1].start()):
        return None
    return last[0].start(), last[0].end(), last[1].start()


def _inside(at: int, spans: list[tuple[int, int]]) -> bool:
    before = bisect_right(spans, at, key=lambda span: span[0]) - 1
    return before >= 0 and at < spans[before][1]


def _is_placeholder(text: str, start: int, end: int) -> bool:
    return end - start < MAX_PLACEHOLDER_CHARS and _PLACEHOLDER.fullmatch(text, start, end) is not None
