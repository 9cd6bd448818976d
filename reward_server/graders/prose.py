r"""Answers that stand in sentences: after "the answer is", as the last formula, or as a value in plain text.

A plain value is a number with what belongs to it (`3/8`, `2 1/2`, `10^5`, `-$7`, `3√2`, `12.5%`, `(3, 4)`), or LaTeX
without dollars (`\frac{3}{8}`). A value that its sentence denies ("not 5") or counts with ("Step 3") is none.

>>> text = "So the probability is 3/8."
>>> [text[a:b] for span in candidates(text) for a, b in span]
['3/8']
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from chorus.reward_server.graders.boxes import CLOSER, MAX_PARTS, OPENER, Span
from chorus.reward_server.graders.math.units import HEDGE, MULTIPLIER, PROSE_UNIT

MAX_CANDIDATES = 8  # expressions tried from the end of a text
MAX_SENTENCE_CHARS = 2000  # how far after "the answer is" the answer may reach
TAIL_CHARS = 20_000  # a solution states its result near its end

_PHRASE = re.compile(
    r"\b(?:answers?|final result|correct (?:option|choice)|(?:option|choice)(?= is))\b[*_\s]{0,6}(?:is\b"
    r"|are\b|:|：|=)[\s:：*_}]*(?:(?:therefore|thus|then|hence|simply|just|exactly|indeed|clearly|also)[\s,:]+)?[*_]*"
    r"|\bfinal answer\b[*_#]{0,4}\s{0,40}\n[\s*_]{0,40}"
    # The same in other languages, with the adjective on either side.
    r"|\b(?:respuesta|réponse|antwort|resposta|risposta|ответ|antwoord|odpowiedź|svaret|svar|cevap|jawaban|đáp án"
    r"|정답|답)(?:\s+(?:correct[ae]|correta|corretta|final[ea]?|définitive|lautet))?\s*"
    r"(?:\b(?:es|est|ist|is|to|är|er|adalah|là|é|è|равен)\b|(?<=답)은|:|：|=|—|–)[\s:：*_}]*"
    r"(?:(?:donc|also|somit|entonces|então|quindi|dus)[\s,:]+)?",
    re.IGNORECASE,
)
_CJK_PHRASE = re.compile(
    r"(?:最终|最后|正确)?(?:答案|结果|答え|解答|答|選択肢|选项)(?:应该|应)?\s{0,3}(?:是|为|為|は|：|:)[\s：:]{0,4}(?:选项)?|(?:故选|应选|选择"
    r"|选)[\s：:]{0,4}(?=[(（]?[A-J])"
)
_CJK_STOP = re.compile(r"[。；！？\n]|，(?=[^\d])|です|である|だ(?=$|。)")
# A dollar opens a formula only before a non-space, and closes one only after a non-space and not before a
# digit (pandoc's rule): "costs $3 and $4" holds no formula.
MATH_SPANS = re.compile(
    r"\$\$(?P<display>[^$]{1,2000})\$\$|(?<!\\)\$(?P<inline>(?!\s)(?:\\\$|[^$\n]){1,2000}?)(?<![\\\s])\$(?!\d)"
    r"|\\\[(?P<bracket>(?:[^\\]|\\(?![\[\]])){1,2000}+)\\\]|\\\((?P<paren>(?:[^\\]|\\(?![()])){1,2000}+)\\\)",
    re.DOTALL,
)
_SENTENCE_END = re.compile(r"\n|[.;!?](?:[*_]{0,2}\s|[*_]{0,2}$)|,\s+(?!(?:or|and)\b)(?=[a-z])")
_WORD = r"(?:,\s*)?(?:and|or)\b\s*|[,;]\s*|\\text\{\s*(?:and|or)\s*\}\s*"
_BETWEEN_FORMULAS = re.compile(rf"{CLOSER}(?:{_WORD})(?=\$|\\[(\[])")
_OR = re.compile(r"\s*,?\s*or\s+")
_ROUNDED_TO = re.compile(
    rf"{CLOSER}[\s,;(]*(?:or|which is|that is|i\.e\.|=)?[\s,]*"
    rf"(?:about|approximately|approx\.?|roughly|around|≈)\s*{OPENER}"
)
_MAX_GAP = 40  # characters between a value and its rounding
_EXACT = re.compile(r"/|\\[dtc]?frac|\\sqrt|√|sqrt|\\pi|π|\\ln|\\log|\^|!")

_NUMBER = r"(?:\d{1,3}(?:(?:,|\{,\}|,\\!|\\,)\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d+(?!\w))?|\.\d+"
_GROUP = r"\{(?:[^{}\n]|\{(?:[^{}\n]|\{[^{}\n]{0,60}\}){0,60}+\}){0,120}+\}"
_ATOM = (
    rf"(?:(?:\\[dtc]?frac|\\d?binom)\s?(?:{_GROUP}|\d)\s?(?:{_GROUP}|\d)"
    rf"|\\sqrt\s?(?:\[\d{{1,3}}\])?\s?(?:{_GROUP}|\d)"
    rf"|\\(?:pi|infty|varnothing|emptyset)(?![a-zA-Z])|√\s?\(?\d+\)?|sqrt\(\d+\)|π|{_NUMBER})"
    rf"(?:\^(?:{_GROUP}|\(?[-+]?\d+(?:/\d+)?\)?)|[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+|!(?!\w))?"
)
_TERM = (
    rf"(?:\d{{1,6}}[ ]\d{{1,4}}/\d{{1,4}}(?![\d/])|{_ATOM}(?:\s?(?:/|\*|\\cdot|\\times|×|·"
    rf"|x(?=\s?10\^))\s?{_ATOM}|{_ATOM}){{0,6}})"
)
_SUM = rf"{_TERM}(?:(?:\s[-+−±]\s|[-+−±]|\s?\\pm\s?){_TERM}){{0,6}}"
_SIGN = r"(?:(?<![\w)\]}.])(?:[-+−±]|\\pm)\s?)?"
# A tuple or an interval of values comes first, so that its last number is not taken for all of it.
_ENDS = rf"\s?[-−]?(?:{_SUM}|∞|\\infty)\s?"
# "2 hours and 30 minutes", "3:45 PM", "3:2", "a ratio of 3 to 2"
_TOGETHER = rf"\d+(?:\.\d+)?\s?(?:{PROSE_UNIT})(?:,?\s(?:and\s)?\d+(?:\.\d+)?\s?(?:{PROSE_UNIT})(?![A-Za-z])){{1,3}}"
_CLOCK = r"\d{1,4}(?:\s?:\s?\d{1,4}){1,3}(?:\s?[AaPp]\.?[Mm]\b\.?)?|(?<=ratio is )\d+ to \d+|(?<=ratio of )\d+ to \d+"
VALUE = re.compile(
    rf"(?<![\w.,/^{{\\:])(?:{_TOGETHER}|{_CLOCK}|[(\[]{_ENDS}(?:,{_ENDS}){{1,4}}[)\]]"
    rf"|\({_SIGN}(?:{_NUMBER})\)"
    rf"|{_SIGN}(?:\\?\$|[€£¥₹])?\s?[-−]?(?<![.,])(?:{_SUM})(?:\s?(?:\\?%|°|\\?\$|[€£¥])|\^\\circ|\^\{{\\circ\}})?"
    rf"(?:\s?{MULTIPLIER}(?![A-Za-z]))?(?:\s?(?:{PROSE_UNIT})(?![A-Za-z]))?)(?![\w^/]|,\d|\.\d)"
)
_COPULA = re.compile(r"(?<![\w])(?:is|are|equals|equal to|becomes|be|was|were)(?![\w'])|[:：]|=(?!=)")
_FILLER = re.compile(
    r"[\s*_`]*(?:(?:therefore|thus|then|exactly|simply|just|indeed|about|approximately|roughly|the number"
    r"|equal to|also)[\s,]+)*[*_`]{0,3}"
)
_DENIED = re.compile(
    r"(?:\bnot|n't|\bnever|≠|\bneq|\bother than|\bexcept|\binstead of|\brather than"
    r"|\bunlike|\bno (?:es|son)|\bnicht|n['’]est pas|\bnão é|\bnon è|\bне|\binte|\bikke|\bniet)\s+"
    r"(?:equal to\s+|be\s+|x\s*=\s*)?[*_$(]{0,3}$",
    re.IGNORECASE,
)
_DENIED_BEHIND = re.compile(
    r"[$)\]*_\\]{0,6}\s+(?:is|was|are|would be|can't be|cannot be|can not be)\s+(?:\w+ly\s+)?"
    r"(?:wrong|incorrect|not|false|impossible|too|out)\b"
)
# Algebra in plain text, behind a copula and up to the sentence's end: "the line is y = 2x + 3."
_PLAIN_FORMULA = re.compile(
    r"(?:(?<=\bis)|(?<=\bare)|(?<=:))\s+(?P<formula>(?:[\d.,]++|[A-Za-z](?![A-Za-z])|(?:sqrt|sin|cos|tan|ln|log|exp|pi)(?![a-z])"
    r"|[-+*/^=<>()|!\s−·√π≤≥²³⁴]){2,120}+)(?=\s*(?:$|\n))"
)
_ALGEBRA = re.compile(
    r"[A-Za-z].*[=<>≤≥]|[=<>≤≥].*[A-Za-z]|[xyz]|[a-z]\s*[-+]\s*\w|\w\s*[-+]\s*[a-z]", re.DOTALL
)  # no units
_LIST_GAP = re.compile(
    rf"{CLOSER}\s*(?:[,;]\s*)?(?:(?:and|or)\s+)?(?:[A-Za-z](?:_\{{?\w\}}?)?\s*=\s*)?{OPENER}", re.IGNORECASE
)
_NAME_BEFORE = re.compile(r"[A-Za-z](?:_\{?\w\}?)?\s*=\s*$")
_COUNTED = re.compile(
    r"\b(?:steps?|cases?|equations?|eq\.?|problems?|parts?|figures?|fig\.?|sections?|questions?|lines?"
    r"|methods?|pages?|"
    r"lemmas?|theorems?|examples?|tables?|claims?|chapters?|attempts?|no\.|#)\s*[*_(]{0,3}$",
    re.IGNORECASE,
)
_LIMITED = re.compile(
    r"(?<!\w)(?:either|neither|not|maybe|perhaps|at least|at most|more than|less than|greater than|fewer than|up to|"
    r"between|over|under|unless|unknown|wrong|could|might|or)(?!\w)|n't",
    re.IGNORECASE,
)
_WORDS = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{2,}(?![A-Za-z({])")
_ASIDE = re.compile(
    r"\s*\((?:see|as|since|because|from|using|by|the|i\.e|e\.g|which|with|after|rounded|approx)[^()]{0,200}\)[\s.]*$"
)
_PROSE = re.compile(r"\s+(?!(?:or|and)\s+[$\\(\d-])[a-z]{2,}")
_NAME_ONLY = re.compile(r"\s*\\?[A-Za-z]{1,3}(?:_\{?\w\}?)?'?\s*")
_IS_ANSWER = re.compile(
    r"(?:^|[.,:;\n]\s|\b(?:so|thus|hence|therefore)\s)\s?(?P<value>[^\s,.:;][^\n,.:;]{0,80}?)\s+is (?:the"
    r"|our|my) (?:final |correct )?"
    r"answer\b",
    re.IGNORECASE,
)
_HASH = re.compile(r"^[ \t]*#{4}[ \t]*(?P<value>\S[^\n]{0,200})$", re.MULTILINE)


def after_hashes(body: str, parses: Callable[[str], bool]) -> list[Span]:
    """What stands behind the last `####` of GSM8K's layout, where that is a value."""
    marks = list(_HASH.finditer(body, max(0, len(body) - TAIL_CHARS)))
    for mark in reversed(marks[-2:]):
        if VALUE.fullmatch(mark["value"].strip(" .*")) or parses(mark["value"].strip(" .*")):
            return [mark.span("value")]
    return []


def after_phrase(body: str, narrow: bool) -> list[Span]:
    """What follows the last "answer is" / "Answer:": formulas when one comes first, else up to the sentence's end.

    narrow: a sentence in words is searched for the value that it states.
    """
    for phrase in reversed(list(_PHRASE.finditer(body))):
        start = phrase.end()
        line = body[start : start + MAX_SENTENCE_CHARS]
        if (math := MATH_SPANS.match(line)) is not None:
            return _joined_formulas(line, math, start)
        if (
            money := re.match(r"\$\s*(-?\d(?:[\d,]|\{,\})*(?:\.\d+)?)(?!\d*\$)", line)
        ) is not None:  # a price, no formula
            return _with_multiplier(body, start + money.start(1), start + money.end(1))
        stop = _SENTENCE_END.search(line)
        end = start + (stop.start() if stop else len(line))
        if narrow and (value := _leading_value(body, start, end)) is not None:
            return [value]
        if body[start:end].strip(" *_$."):
            return (stated(body, start, end) if narrow else None) or [(start, end)]
    if not body.isascii() and (found := next(reversed(list(_CJK_PHRASE.finditer(body))), None)) is not None:
        start = found.end()
        if (math := MATH_SPANS.match(body, start)) is not None:
            return [math.span(math.lastgroup or 0)]
        stop = _CJK_STOP.search(body, start)
        return [(start, stop.start() if stop else len(body))]
    return []


def before_phrase(body: str) -> list[Span]:
    """`2x+1 is the answer`: what stands before the phrase."""
    found = next(reversed(list(_IS_ANSWER.finditer(body, max(0, len(body) - TAIL_CHARS)))), None)
    return [] if found is None else [found.span("value")]


def is_denied(body: str, start: int, end: int) -> bool:
    """Whether the sentence denies the value at this place, or only counts with it ("Step 3")."""
    before = body[max(0, start - 40) : start]
    if _COUNTED.search(before) is not None or _DENIED.search(before) is not None:
        return True
    return _DENIED_BEHIND.match(body, end) is not None


def parts(body: str, count: int) -> list[Span]:
    """So many formulas or values side by side at the end of a text: `x = 1` and `x = 2`, each with its name."""
    tail = max(0, len(body) - MAX_SENTENCE_CHARS)
    spans = [(*m.span(m.lastgroup or 0), *m.span()) for m in MATH_SPANS.finditer(body, tail)]
    for value in VALUE.finditer(body, tail):
        if not any(a <= value.start() < b for _, _, a, b in spans):
            start = name.start() if (name := _NAME_BEFORE.search(body, tail, value.start())) else value.start()
            spans.append((start, value.end(), start, value.end()))
    spans.sort()
    listed = spans[-1:]
    while len(listed) < len(spans):
        before = spans[-len(listed) - 1]
        if not _LIST_GAP.fullmatch(body, before[3], listed[0][2]):
            break
        listed.insert(0, before)
    if len(listed) != count or is_denied(body, listed[0][2], listed[-1][3]):
        return []
    return [(start, end) for start, end, _, _ in listed]


def candidates(body: str) -> Iterator[list[Span]]:
    """Formulas and plain values, the rightmost first, those joined by "or" together; names alone come last."""
    tail = max(0, len(body) - TAIL_CHARS)
    formulas = [
        (tail + m.start(m.lastgroup or 0), tail + m.end(m.lastgroup or 0), tail + m.start(), tail + m.end())
        for m in MATH_SPANS.finditer(body[tail:])
    ]
    plain = next(reversed(list(_PLAIN_FORMULA.finditer(body, tail))), None)
    spans = [(*plain.span("formula"), *plain.span())] if plain and _ALGEBRA.search(plain["formula"]) else []
    spans += formulas
    at = 0
    for value in VALUE.finditer(body, tail):
        start, end = value.span()
        while at < len(formulas) and formulas[at][3] <= start:
            at += 1
        if at == len(formulas) or end <= formulas[at][2]:
            spans.append((start, end, start, end))
    spans.sort(key=lambda span: span[1], reverse=True)
    names: list[list[Span]] = []
    for k, (start, end, whole, behind) in enumerate(spans[:MAX_CANDIDATES]):
        if is_denied(body, whole, behind) or (k + 1 < len(spans) and _is_rounding(body, spans[k + 1], whole)):
            continue
        group = [(start, end)]
        if k + 1 < len(spans) and _OR.fullmatch(body, spans[k + 1][3], whole):
            group.insert(0, spans[k + 1][:2])
        if _NAME_ONLY.fullmatch(body, start, end):
            names.append(group)
        else:
            yield group
    yield from names


def _is_rounding(body: str, before: tuple[int, int, int, int], start: int) -> bool:
    """Whether what starts here only says about how much the exact value before it is: `1/6, or about 17%`."""
    if start - before[3] > _MAX_GAP:
        return False
    return bool(_ROUNDED_TO.fullmatch(body, before[3], start) and _EXACT.search(body, *before[:2]))


def is_sentence(text: str) -> bool:
    """Whether a text is words around a value, and no formula."""
    return len(_WORDS.findall(MATH_SPANS.sub(" ", text))) > 1


def _leading_value(body: str, start: int, end: int) -> Span | None:
    """ "42 because ...": the prose after a value is no part of it, unless it changes the value."""
    value = VALUE.match(body, start, end)
    if value is None or not _PROSE.match(body, value.end(), end):
        return None
    return None if HEDGE.match(body, value.end(), end) else value.span()


def _with_multiplier(body: str, start: int, end: int) -> list[Span]:
    more = re.compile(rf"\s?{MULTIPLIER}(?![A-Za-z])").match(body, end)
    return [(start, more.end() if more else end)]


def stated(body: str, start: int, end: int) -> list[Span]:
    """The value that a sentence states, or nothing where it states none, several, or denies or limits it."""
    if (aside := _ASIDE.search(body, start, end)) is not None and "or" not in aside.group().split():
        end = aside.start()
        if VALUE.fullmatch(body, start, end):
            return [(start, end)]
    sentence = body[start:end]
    plain = MATH_SPANS.sub(" ", sentence)
    if len(_WORDS.findall(plain)) < 2 and not _COPULA.search(plain):
        return [(start, end)] if aside else []
    if _LIMITED.search(plain):
        return []
    copulas = list(_COPULA.finditer(sentence))
    for copula in reversed(copulas):
        at = start + copula.end()
        filler = _FILLER.match(body, at, end)
        at = filler.end() if filler else at
        if (math := MATH_SPANS.match(body, at, end)) is not None:
            return _joined_formulas(body[:end], math, 0)
        if (value := VALUE.match(body, at, end)) is not None and not HEDGE.match(body, value.end(), end):
            return [value.span()]
    found = [m.span(m.lastgroup or 0) for m in MATH_SPANS.finditer(body, start, end)]
    found += [m.span() for m in VALUE.finditer(body, start, end) if not any(a <= m.start() < b for a, b in found)]
    found = [span for span in found if not _NAME_ONLY.fullmatch(body[slice(*span)])]
    return found if len(found) == 1 and not HEDGE.match(body, found[0][1], end) else []


def _joined_formulas(line: str, first: re.Match[str], offset: int) -> list[Span]:
    """The first formula and those joined to it: `$1$ or $2$`."""
    spans: list[Span] = []
    math: re.Match[str] | None = first
    while math is not None and len(spans) < MAX_PARTS:
        group = math.lastgroup or 0
        spans.append((offset + math.start(group), offset + math.end(group)))
        gap = _BETWEEN_FORMULAS.match(line, math.end())
        math = MATH_SPANS.match(line, gap.end()) if gap else None
    return spans
