"""Interleaved reasoning (arXiv 2505.19640): think and answer blocks in turn, of which the last answer is the final one.

    <think>3 + 4 = 7</think> <answer>7</answer> <think>7 - 5 = 2</think> <answer>\\boxed{2}</answer>
                                     first sub-answer                            final answer

Only white space may stand outside the blocks, and no tag within one. A sub-answer is found where an answer before the
last one says it and nothing else: an answer that merely contains it was paid for lists of guesses.

>>> places(None, "<think>a</think><answer>7</answer><think>b</think><answer>2</answer>", ["7", "9"])
[1, 0]
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from chorus.protocol.templates.template import Template

_TAG = re.compile(r"<(/?)(think|answer)>")
_ORDER = ("<think>", "</think>", "<answer>", "</answer>")
_BOX = re.compile(r"\\boxed\s*\{(.*)\}", re.DOTALL)


def blocks(text: str) -> list[str] | str:
    """The answers, in order; or what is wrong, in words. `text`: the completion with its prefill."""
    answers: list[str] = []
    end = 0
    tags = list(_TAG.finditer(text))
    for k, tag in enumerate(tags):
        if tag[0] != (wanted := _ORDER[k % 4]):
            return f"{tag[0]} stands where {wanted} was expected"
        between = text[end : tag.start()]
        if not tag[1] and between.strip():
            return f"{between.strip()[:40]!r} stands outside the blocks"
        if tag[0] == "</answer>":
            answers.append(between)
        end = tag.end()
    if not tags or len(tags) % 4:
        return f"{_ORDER[len(tags) % 4]} is missing at the end"
    if text[end:].strip():
        return f"{text[end:].strip()[:40]!r} stands outside the blocks"
    return answers


def places(template: Template | None, completion: str, golds: Sequence[str]) -> list[int]:
    """For each gold sub-answer, the first answer before the last one that says it, from 1; 0: none does."""
    found = blocks((template.prefill if template else "") + completion)
    own = [] if isinstance(found, str) else [_plain(answer) for answer in found[:-1]]
    return [own.index(wanted) + 1 if (wanted := _plain(gold)) in own else 0 for gold in golds]


def _plain(answer: str) -> str:
    """Without a box around all of it, white space at the ends, and how letters are cased."""
    text = answer.strip()
    if box := _BOX.fullmatch(text):
        text = box[1]
    return " ".join(text.split()).casefold()
