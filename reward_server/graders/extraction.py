"""Where in a completion the answer stands: the ladders of `paper`, `train` and `strict`. No sympy here.

A ladder cuts the text first, then tries its rungs from top to bottom; the first that finds something wins:

    paper   Minerva sentence > last box > "he answer is" > "final answer is" > Chinese phrase > last number
    train   the same, tolerant (any case, colons, bold), with "last expression that parses" before last number
    strict  last box, or no answer: also where that box never closes

>>> extract("so 6*7 = 42. \\\\boxed{42}", "strict").text
'42'
>>> extract("The answer is 42.", "paper").rung
'he_answer_is'
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from chorus.reward_server.graders.math.normalise import paper_cleanup

Mode = Literal["train", "paper", "strict"]

ASSISTANT_HEADER = "<|im_start|>assistant"
STOP_STRINGS = ("</s>", "<|im_end|>", "<|endoftext|>", "[END]", "</answer>")
CHINESE_ANSWER_IS = "答案是"
MAX_CANDIDATES = 8  # expressions tried from the end of a text before the last-number rung
MAX_PARTS = 64  # boxes or formulas that are read as one list
MAX_SENTENCE_CHARS = 2000  # how far after "the answer is" the answer may reach

_NUMBER = re.compile(r"-?\d*\.?\d+")
_BOX = re.compile(r"\\(?:boxed|fbox)")
_ANSWER_PHRASE = re.compile(
    r"\banswer\b[*_\s]{0,6}(?:is\b|:|=)[\s:*_]*|\bfinal answer\b[*_#]{0,4}\s*\n[\s*_]*", re.IGNORECASE
)
# A dollar opens a formula only before a non-space, and closes one only after a non-space and not before a
# digit (pandoc's rule): "costs $3 and $4" holds no formula.
_MATH_SPANS = re.compile(
    r"\$\$(?P<display>[^$]{1,2000})\$\$|(?<!\\)\$(?P<inline>(?!\s)(?:\\\$|[^$\n]){1,2000}?)(?<![\\\s])\$(?!\d)"
    r"|\\\[(?P<bracket>.{1,2000}?)\\\]|\\\((?P<paren>.{1,2000}?)\\\)",
    re.DOTALL,
)
_BARE_NUMBER = re.compile(
    r"(?<![\w.,/^])-?(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|\.\d+)"
    r"(?:\s*/\s*\d+(?![\d.]))?(?![\w^])"
)
_SENTENCE_END = re.compile(r"\n|[.;!?](?:\s|$)|,\s+(?!(?:or|and)\b)(?=[a-z])")
# Between the parts of one answer: `\boxed{1}$ and $\boxed{2}`. A line break alone joins nothing.
_CLOSER, _OPENER = r"[ \t$]*(?:\\[)\]])?[ \t]*", r"(?:\\[(\[])?[ \t$]*"
_WORD = r"(?:,\s*)?(?:and|or)\b\s*|[,;]\s*|\\text\{\s*(?:and|or)\s*\}\s*"
_BETWEEN_BOXES = re.compile(rf"\}}{_CLOSER}(?:{_WORD})?{_OPENER}\\(?:boxed|fbox)[ \t]*\{{")
_BETWEEN_FORMULAS = re.compile(rf"{_CLOSER}(?:{_WORD})(?=\$|\\[(\[])")
_PROSE = re.compile(r"\s+(?!(?:or|and)\s+[$\\(\d-])[a-z]{2,}")


@dataclass(frozen=True)
class Extraction:
    """The answer's text as found, its place in the completion, and the way that led there."""

    text: str  # "" = no answer
    rung: str  # which rung of the ladder found it; "none" when none did
    start: int | None  # character offsets of `text` in the completion, before clean-up; None if not literal
    end: int | None
    cuts: tuple[str, ...]  # what was cut away before the ladder, in order
    read: tuple[int, int] = (0, 0)  # the span of the completion that the cuts left for the ladder


def extract(completion: str, mode: Mode, parses: Callable[[str], bool] | None = None) -> Extraction:
    """The answer of a completion. `parses` tells the train ladder whether a text is mathematics."""
    body, offset, cuts = _cut(completion)
    if mode == "paper":
        return _paper(body, offset, cuts)
    read = (offset, offset + len(body))
    if mode == "strict":
        found = next(_boxes(body, if_open="stop"), None)
        rung, spans = ("last_box", [found]) if found and body[slice(*found)].strip() else ("none", [])
    else:
        rung, spans = _train(body, parses)
    if not spans:
        return Extraction("", "none", None, None, cuts, read)
    spans = [_trim(body, *span) for span in spans]
    text = ", ".join(dict.fromkeys(body[slice(*span)] for span in spans))
    return Extraction(text, rung, offset + spans[0][0], offset + spans[-1][1], cuts, read)


def last_box(text: str) -> str | None:
    """The content of the last closed box, or None."""
    span = next(_boxes(text), None)
    return None if span is None else text[slice(*span)].strip()


def _cut(text: str) -> tuple[str, int, tuple[str, ...]]:
    """Steps 1 and 2 of the paper's ladder: (what is left, its offset, what was cut)."""
    cuts: list[str] = []
    offset = 0
    if (header := text.find(ASSISTANT_HEADER)) >= 0:
        offset = header + len(ASSISTANT_HEADER)
        text = text[offset:]
        cuts.append(f"everything up to {ASSISTANT_HEADER}")
    for stop in STOP_STRINGS:
        if (at := text.find(stop)) >= 0:
            text = text[:at]
            cuts.append(f"everything from {stop}")
            offset += len(text) - len(text.lstrip())
            text = text.strip()
    return text, offset, tuple(cuts)


def _paper(body: str, offset: int, cuts: tuple[str, ...]) -> Extraction:
    """Step 3, as published: rungs by plain substring search, then the clean-up."""
    read = (offset, offset + len(body))
    rung, raw, after = _paper_rung(body)
    text = paper_cleanup(raw)
    if not text:
        return Extraction("", "none", None, None, cuts, read)
    at = body.find(raw, after) if after >= 0 else -1
    start = None if at < 0 else offset + at
    return Extraction(text, rung, start, None if start is None else start + len(raw), cuts, read)


def _paper_rung(body: str) -> tuple[str, str, int]:
    """(rung, text as found, where its literal place is to be looked for; -1: it has none)."""
    if "final answer is $" in body and "$. I hope" in body:
        raw = body.split("final answer is $", 1)[1].split("$. I hope", 1)[0].strip()
        return "minerva", raw, body.find("final answer is $") + len("final answer is $")
    if "boxed" in body:
        after = body.rsplit("boxed", 1)[1]
        at = len(body) - len(after)
        if after.startswith("{"):
            return "last_box", after[1 : _closers(after).get(0, len(after))], at + 1
        return "last_box", after.split("$")[0].strip(), at
    for phrase, rung in (("he answer is", "he_answer_is"), ("final answer is", "final_answer_is")):
        if phrase in body:
            return rung, body.rsplit(phrase, 1)[1].strip(), body.rfind(phrase) + len(phrase)
    if CHINESE_ANSWER_IS in body:
        raw = body.split(CHINESE_ANSWER_IS)[1].strip().split("\n\n")[0].strip()
        return "chinese_answer_is", raw, body.find(CHINESE_ANSWER_IS) + len(CHINESE_ANSWER_IS)
    numbers = _NUMBER.findall(body.replace(",", ""))
    return ("last_number", numbers[-1], body.rfind(numbers[-1])) if numbers else ("none", "", -1)


def _train(body: str, parses: Callable[[str], bool] | None) -> tuple[str, list[tuple[int, int]]]:
    """The rung and the spans of the answer's parts: several when a list was written in several boxes or formulas."""
    if (at := body.find("final answer is $")) >= 0 and (end := body.find("$. I hope", at)) >= 0:
        return "minerva", [(at + len("final answer is $"), end)]
    # An empty box is the instruction repeated, not an answer.
    if (span := next((s for s in _boxes(body, if_open="keep") if body[slice(*s)].strip()), None)) is not None:
        return "last_box", _joined_boxes(body, span)
    if spans := _after_phrase(body):
        return "answer_is", spans
    for span in _expressions_from_end(body):
        if parses is not None and parses(body[slice(*span)]):
            return "last_expression", [span]
    numbers = deque(_NUMBER.finditer(body), maxlen=1)
    return ("last_number", [numbers[0].span()]) if numbers else ("none", [])


def _joined_boxes(body: str, last: tuple[int, int]) -> list[tuple[int, int]]:
    """The last box and those that it continues: `\\boxed{1}`, `\\boxed{2}` and `\\boxed{3}` are one list."""
    spans = [last]
    for span in _boxes(body):
        start = spans[-1][0]
        if span[1] >= start:  # the last one, or one around it
            continue
        if len(spans) == MAX_PARTS or not _BETWEEN_BOXES.fullmatch(body, span[1], start):
            break
        spans.append(span)
    return spans[::-1]


def _after_phrase(body: str) -> list[tuple[int, int]]:
    """What follows the last "answer is" / "Answer:": formulas when one comes first, else up to the sentence's end."""
    for phrase in reversed(list(_ANSWER_PHRASE.finditer(body))):
        start = phrase.end()
        line = body[start : start + MAX_SENTENCE_CHARS]
        if (math := _MATH_SPANS.match(line)) is not None:
            return _joined_formulas(line, math, start)
        if (money := re.match(r"\$\s*(\d[\d,]*(?:\.\d+)?)", line)) is not None:  # a price, not a formula
            return [(start + money.start(1), start + money.end(1))]
        stop = _SENTENCE_END.search(line)
        end = start + (stop.start() if stop else len(line))
        if (number := _BARE_NUMBER.match(line)) is not None and _PROSE.match(line, number.end()):
            end = start + number.end()  # "42 because ...": the prose after a number is no part of it
        if body[start:end].strip(" *_$."):
            return [(start, end)]
    if (at := body.rfind(CHINESE_ANSWER_IS)) >= 0:
        start = at + len(CHINESE_ANSWER_IS)
        end = body.find("\n", start)
        return [(start, end if end >= 0 else len(body))]
    return []


def _joined_formulas(line: str, first: re.Match[str], offset: int) -> list[tuple[int, int]]:
    """The first formula and those joined to it: `$1$ or $2$`."""
    spans: list[tuple[int, int]] = []
    math: re.Match[str] | None = first
    while math is not None and len(spans) < MAX_PARTS:
        group = math.lastgroup or 0
        spans.append((offset + math.start(group), offset + math.end(group)))
        gap = _BETWEEN_FORMULAS.match(line, math.end())
        math = _MATH_SPANS.match(line, gap.end()) if gap else None
    return spans


def _expressions_from_end(body: str) -> Iterator[tuple[int, int]]:
    """Formulas and bare numbers, the rightmost first; a number inside a formula is not tried by itself."""
    tail = max(0, len(body) - 20_000)  # a solution states its result near its end
    spans = [
        (tail + m.start(m.lastgroup or 0), tail + m.end(m.lastgroup or 0)) for m in _MATH_SPANS.finditer(body[tail:])
    ]
    covered = list(spans)
    for number in _BARE_NUMBER.finditer(body, tail):
        spans.append(number.span())
    inside = {span for span in spans if span not in covered and any(a <= span[0] and span[1] <= b for a, b in covered)}
    spans = sorted((span for span in spans if span not in inside), key=lambda span: span[1], reverse=True)
    yield from spans[:MAX_CANDIDATES]


def _boxes(text: str, if_open: Literal["skip", "keep", "stop"] = "skip") -> Iterator[tuple[int, int]]:
    """The content spans of \\boxed{...} and \\fbox{...}, last first.

    if_open: of a box that never closes (a cut-off completion). `keep` takes its text up to the end of its line or
    formula, and a box without braces; `stop` yields nothing before it.
    """
    boxes = list(_BOX.finditer(text))
    closers = _closers(text) if boxes else {}
    for box in reversed(boxes):
        brace = box.end()
        while brace < len(text) and text[brace] in " \t":
            brace += 1
        if text.startswith("{", brace):
            close = closers.get(brace)
            if close is not None:
                yield brace + 1, close
            elif if_open == "stop":
                return
            elif if_open == "keep":
                stop = re.compile(r"\n|\$|\\\]|\\\)").search(text, brace + 1)
                yield brace + 1, stop.start() if stop else len(text)
        elif if_open == "keep" and (token := re.compile(r"[^\s$\\]+").match(text, brace)):
            yield token.span()


def _closers(text: str) -> dict[int, int]:
    """Opening brace to closing brace, in one pass: a scan from every box would be quadratic."""
    open_braces: list[int] = []
    pairs: dict[int, int] = {}
    for match in re.finditer(r"[{}]", text):
        if match.group() == "{":
            open_braces.append(match.start())
        elif open_braces:
            pairs[open_braces.pop()] = match.start()
    return pairs


def _trim(body: str, start: int, end: int) -> tuple[int, int]:
    """The span without surrounding white space, bold marks and a final full stop."""
    while start < end and body[start] in " \t\r\n*_:`":
        start += 1
    while start < end and body[end - 1] in " \t\r\n*_.`":
        end -= 1
    return start, end
