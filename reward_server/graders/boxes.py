r"""The boxes of a text: `\boxed{...}` and `\fbox{...}`, which of them hold an answer, and which are parts of one.

A box that only repeats the instruction (`\boxed{}`, "put it in a \boxed") is none. Boxes with nothing but "and", a
comma or a short label between them are one list: `\boxed{1}` and `y = \boxed{2}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal

MAX_PARTS = 64  # boxes or formulas that are read as one list

Span = tuple[int, int]

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![a-zA-Z])")
_LINE_OR_FORMULA_END = re.compile(r"\n|\$|\\\]|\\\)")
# A box without braces holds a number, a command or, in a formula, one letter; a word behind it is prose.
_BARE_CONTENT = re.compile(r"[-+]?\d[\d.,/^]*(?<![.,])|\\(?:frac|sqrt|pi)[^\s$]{0,40}|[A-Za-z](?=\s*\$)")
_PLACEHOLDER = re.compile(
    r"(?:\\text\s*\{\s*)?(?:(?:your|the|final)\s+)*(?:answer|result|\\?(?:l|c)?dots|\.{2,}|…)(?:\s+here)?\s*\}?",
    re.IGNORECASE,
)
# Between the parts of one answer: `\boxed{1}$ and $\boxed{2}`. A line break alone joins nothing.
CLOSER, OPENER = r"[ \t$]*(?:\\[)\]])?[ \t$*]*", r"[*]*(?:\\[(\[])?[ \t$*]*"
WORD = (
    r"(?:[,;]\s*)?(?:and|or)\b\s*|[,;、]\s*|[和或与及]\s*|(?:[,;]\s*)?\\text\s*\{\s*,?\s*(?:and|or)\s*\}\s*"
    r"|(?:\\q?quad|\\[,;: ])\s*"
)
_LABEL = r"(?:[A-Za-z](?:_\{?\w{1,3}\}?)?\s*=\s*|\([a-z]\)\s*)"
_BETWEEN = re.compile(
    rf"\}}{CLOSER}(?:{WORD})?(?:{OPENER}(?P<label>{_LABEL}){OPENER}|{OPENER})\\(?:boxed|fbox)[ \t]*\{{"
)
_BRACE, _EVERY_BRACE = re.compile(r"\\[\\{}]|[{}]"), re.compile(r"[{}]")
_LABEL_BEFORE = re.compile(r"([A-Za-z](?:_\{?\w{1,3}\}?)?\s*=\s*)(?:\$\s*)?$")


def last_box(text: str) -> str | None:
    """The content of the last closed box, or None."""
    span = next(boxes(text), None)
    return None if span is None else text[slice(*span)].strip()


def answer_box(text: str) -> Span | None:
    """The last box that holds an answer: not empty, and not the placeholder of an instruction beside a real one."""
    filled = (span for span in boxes(text, if_open="keep") if text[slice(*span)].strip())
    first = next(filled, None)
    if first is None or not _is_placeholder(text, first):
        return first
    return next((span for span in filled if not _is_placeholder(text, span)), first)


def joined(text: str, last: Span) -> list[Span]:
    r"""The last box and those that it continues: `\boxed{1}`, `\boxed{2}` and `\boxed{3}` are one list."""
    spans = [last]
    for span in boxes(text):
        start = spans[-1][0]
        if span[1] >= start:  # the last one, or one around it
            continue
        if len(spans) == MAX_PARTS or not _BETWEEN.fullmatch(text, span[1], start):
            break
        spans.append(span)
    return spans[::-1]


def with_labels(text: str, spans: list[Span]) -> list[str]:
    r"""The contents of boxes, each with the name that stands before it: `x = \boxed{1}` and `y = \boxed{2}`."""
    contents = [text[slice(*span)].strip() for span in spans]
    if len(spans) == 1:
        return contents
    labels: list[str] = []
    for start, _ in spans:
        at = text.rfind("\\", 0, start)
        label = _LABEL_BEFORE.search(text[max(0, at - 24) : at])
        labels.append(label.group(1) if label else "")
    return [label + content for label, content in zip(labels, contents, strict=True)] if all(labels) else contents


def parts(text: str, count: int) -> list[Span]:
    """The boxes of a text that states its answer in exactly so many, or those of the last sentence; else none."""
    closed = [span for span in boxes(text) if text[slice(*span)].strip()][::-1]
    outer = [s for s in closed if not any(o != s and o[0] <= s[0] and s[1] <= o[1] for o in closed[:MAX_PARTS])]
    if len(outer) == count:
        return outer
    if not outer or len(outer) < count:
        return []
    sentence = max(text.rfind("\n", 0, outer[-1][0]), _last_stop(text, outer[-1][0]))
    last = [span for span in outer if span[0] > sentence]
    return last if len(last) == count else []


def boxes(text: str, if_open: Literal["skip", "keep", "stop"] = "skip") -> Iterator[Span]:
    r"""The content spans of \boxed{...} and \fbox{...}, last first.

    if_open: of a box that never closes (a cut-off completion). `keep` takes its text up to the end of its line or
    formula, and a box without braces; `stop` yields nothing before it.
    """
    found = list(_BOX.finditer(text))
    closing = closers(text) if found else {}
    for box in reversed(found):
        brace = box.end()
        while brace < len(text) and text[brace] in " \t":
            brace += 1
        if text.startswith("{", brace):
            close = closing.get(brace)
            if close is not None:
                yield brace + 1, close
            elif if_open == "stop":
                return
            elif if_open == "keep":
                stop = _LINE_OR_FORMULA_END.search(text, brace + 1)
                yield brace + 1, stop.start() if stop else len(text)
        elif if_open == "keep" and (token := _BARE_CONTENT.match(text, brace)):
            yield token.span()


@lru_cache(maxsize=2)
def closers(text: str, every: bool = False) -> dict[int, int]:
    """Opening brace to closing brace, in one pass: a scan from every box would be quadratic.

    every: braces that LaTeX prints, too: `\\left\\{ ... \\right.` has one.
    """
    open_braces: list[int] = []
    pairs: dict[int, int] = {}
    for match in (_EVERY_BRACE if every else _BRACE).finditer(text):
        if match.group() == "{":
            open_braces.append(match.start())
        elif match.group() == "}" and open_braces:
            pairs[open_braces.pop()] = match.start()
    return pairs


def _is_placeholder(text: str, span: Span) -> bool:
    return span[1] - span[0] < 40 and _PLACEHOLDER.fullmatch(text[slice(*span)].strip()) is not None


def _last_stop(text: str, before: int) -> int:
    return max((m.start() for m in re.finditer(r"[.!?](?=\s)", text[max(0, before - 2000) : before])), default=-1) + (
        max(0, before - 2000)
    )
