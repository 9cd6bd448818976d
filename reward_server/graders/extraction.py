"""Where in a completion the answer stands: the ladders of `paper`, `train` and `strict`. No sympy here.

The answer's place comes first (`places.py`: the turn, the answer's tags, what follows the reasoning), then the rungs
from top to bottom; the first that finds something wins:

    paper   as published (`paper.py`)
    train   Minerva sentence > last box > "answer is" > answer tags > "####" > last expression > last number
    strict  last box, or no answer: also where that box never closes

>>> extract("so 6*7 = 42. \\\\boxed{42}", "strict").text
'42'
>>> extract("The answer is 42.", "paper").rung
'he_answer_is'
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from chorus.reward_server.graders import boxes, paper, prose
from chorus.reward_server.graders.boxes import Span, last_box
from chorus.reward_server.graders.places import Place, find_place

__all__ = ["Extraction", "Mode", "extract", "extract_parts", "last_box"]

Mode = Literal["train", "paper", "strict"]
MAX_BLOCK_CHARS = 300  # of an answer block that is read as a whole
_IN_WORDS = ("answer_is", "last_expression", "last_number")
_NUMBER = re.compile(r"-?\d*\.?\d+")


@dataclass(frozen=True)
class Extraction:
    """The answer's text as found, its place in the completion, and the way that led there."""

    text: str  # "" = no answer
    rung: str  # which rung of the ladder found it; "none" when none did
    start: int | None  # character offsets of `text` in the completion, before clean-up; None if not literal
    end: int | None
    cuts: tuple[str, ...]  # what was cut away before the ladder, in order
    read: tuple[int, int] = (0, 0)  # the span of the completion that the cuts left for the ladder


def extract(
    completion: str,
    mode: Mode,
    parses: Callable[[str], bool] | None = None,
    *,
    place: Place | None = None,
    pay_unfinished: bool = False,
) -> Extraction:
    """The answer of a completion.

    parses: tells the train ladder whether a text is mathematics; without it (kinds in words) a sentence stays whole.
    place: the tags of the completion's template. pay_unfinished: read the answer in reasoning that has no end.
    """
    if mode == "paper":
        return _paper(completion)
    found = find_place(completion, place or Place(), pay_unfinished)
    body, offset = completion[found.start : found.end], found.start
    if mode == "strict":
        box = next(boxes.boxes(body, if_open="stop"), None)
        rung, spans = ("last_box", [box]) if box and body[slice(*box)].strip() else ("none", [])
    else:
        rung, spans = _train(body, parses, found.is_block)
    read = (found.read_start, found.end)
    if not spans:
        return Extraction("", "none", None, None, found.cuts, read)
    texts = boxes.with_labels(body, spans) if rung == "last_box" else [body[slice(*_trim(body, *s))] for s in spans]
    spans = [_trim(body, *span) for span in spans]
    text = ", ".join(dict.fromkeys(_without_marks(text) for text in texts))
    return Extraction(text, rung, offset + spans[0][0], offset + spans[-1][1], found.cuts, read)


def extract_parts(completion: str, found: Extraction, count: int) -> Extraction | None:
    """The answer again, as a list: for a gold of so many parts, from a text with as many boxes in its statement, or
    formulas or values in its last sentence."""
    start, end = found.read
    body = completion[start:end]
    if found.rung == "last_box":
        spans = boxes.parts(body, count)
        texts = boxes.with_labels(body, spans)
    else:
        spans = prose.parts(body, count) if found.rung in _IN_WORDS else []
        texts = [body[slice(*span)] for span in spans]
    if len(spans) < 2:
        return None
    text = ", ".join(_without_marks(text) for text in texts)
    return replace(found, text=text, start=start + spans[0][0], end=start + spans[-1][1])


def _paper(completion: str) -> Extraction:
    """Step 3 of the paper's ladder: rungs by plain substring search, then the clean-up."""
    body, offset, cuts = paper.paper_cut(completion)
    read = (offset, offset + len(body))
    rung, raw, after = paper.paper_rung(body)
    text = paper.paper_cleanup(raw)
    if not text:
        return Extraction("", "none", None, None, cuts, read)
    at = body.find(raw, after) if after >= 0 else -1
    start = None if at < 0 else offset + at
    return Extraction(text, rung, start, None if start is None else start + len(raw), cuts, read)


def _train(body: str, parses: Callable[[str], bool] | None, is_block: bool) -> tuple[str, list[Span]]:
    """The rung and the spans of the answer's parts: several when a list was written in several boxes or formulas."""
    if (at := body.find("final answer is $")) >= 0 and (end := body.find("$. I hope", at)) >= 0:
        return "minerva", [(at + len("final answer is $"), end)]
    if (box := boxes.answer_box(body)) is not None:
        return "last_box", boxes.joined(body, box)
    if spans := prose.after_phrase(body, narrow=parses is not None):
        return "answer_is", spans
    whole = body.strip()
    if is_block and whole and len(whole) <= MAX_BLOCK_CHARS:
        if parses is not None and prose.is_sentence(whole) and (spans := prose.stated(body, 0, len(body.rstrip(" .")))):
            return "answer_tag", spans
        if parses is None or parses(whole):
            return "answer_tag", [(0, len(body))]
    if parses is not None:
        if spans := prose.after_hashes(body, parses):
            return "hash_mark", spans
        if (spans := prose.before_phrase(body)) and parses(body[slice(*spans[0])]):
            return "answer_is", spans
        for spans in prose.candidates(body):
            if all(parses(body[slice(*span)]) for span in spans):
                return "last_expression", spans
    if is_block and whole and len(whole) <= MAX_BLOCK_CHARS:
        return "answer_tag", [(0, len(body))]
    numbers = deque(_NUMBER.finditer(body), maxlen=1)
    if not numbers or prose.is_denied(body, *numbers[0].span()):
        return "none", []
    return "last_number", [numbers[0].span()]


def _without_marks(text: str) -> str:
    return text.strip(" \t\r\n*_`")


def _trim(body: str, start: int, end: int) -> Span:
    """The span without surrounding white space, bold marks and a final full stop."""
    while start < end and body[start] in " \t\r\n*_:`":
        start += 1
    while start < end and body[end - 1] in " \t\r\n*_.`":
        end -= 1
    return start, end
