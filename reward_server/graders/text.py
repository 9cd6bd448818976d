"""Multiple choice and plain text answers: string rules, no algebra."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from chorus.reward_server.graders.extraction import Extraction, Mode, extract
from chorus.reward_server.graders.math.compare import Comparison, MathGrade
from chorus.reward_server.graders.math.normalise import normalise
from chorus.reward_server.graders.places import Place
from chorus.reward_server.graders.policy import Policy

_NAMED = r"(?:(?:the\s+)?(?:correct|right|best|final)?\s*(?:option|choice|answer)?\s*(?:is|:)?\s*)"
_LETTER = re.compile(rf"{_NAMED}[(\[]?\s*([A-Za-z])\s*[)\].:]?", re.IGNORECASE)
_LETTER_AND_TEXT = re.compile(
    rf"{_NAMED}(?:\\text\s*\{{\s*)?(?:[(\[]\s*([A-Za-z])\s*[)\]]|([A-Za-z])\s*[)\].:])[.:]?\s*(?:\}}\s*)?(.+)",
    re.DOTALL | re.IGNORECASE,
)
_LAST_LETTER = re.compile(r"[*_]*[(\[]?([A-Z])[)\].:]?[*_]*\.?")
_SENTENCE_LETTER = re.compile(r"(?:option|choice|answer)\s*(?:is|:)?\s*[*_]*[(\[]?([A-Z])[)\]]?[*_]*(?![\w'])")
_STATED = re.compile(
    r"(?:option|choice|answer|choose|select|pick|go with)\s*(?:is|:)?\s*[(\[]?([A-J])[)\]]?(?![\w'])"
    r"|(?<![\w(])[(\[]?([B-HJ]|A(?= is (?:the )?(?:correct|right"
    r"|best)))[)\]]?\s+is\s+(?:the\s+)?(?:correct|right|best|answer)"
    r"|(?:选项|选择|選択肢)\s*[(（]?([A-J])(?![A-Za-z])",
)
_REASON = re.compile(r",?\s+(?:because|since)\s", re.IGNORECASE)
_SEVERAL = re.compile(r"\b(?:or|and|both|not|neither)\b|[(\[][A-J][)\]]", re.IGNORECASE)


def grade_choice(
    completion: str,
    golds: Sequence[str],
    options: Sequence[str],
    mode: Mode,
    *,
    place: Place | None = None,
    policy: Policy = Policy(),  # noqa: B008 - frozen
) -> MathGrade:
    """A letter, or the exact text of an option; several letters are no choice, and wrong."""
    found = extract_words(completion, mode, place=place, policy=policy)
    if not found.text:
        return MathGrade("no_answer", found, ())
    letter = choice_letter(found.text, options)
    if letter is None and mode == "train" and found.rung == "last_box":
        found, letter = _beside_box(completion, found, options)
    if letter is None and mode == "train" and found.rung in ("last_line", "answer_is"):
        reason = _REASON.search(found.text)
        letter = choice_letter(found.text[: reason.start()], options) if reason else None
        letter = letter or _stated_letter(found.text, options)
    if letter is None:
        refused = Comparison(False, "choice", "neither one letter nor the text of one option")
        return MathGrade("wrong", found, (refused,))
    wanted = [choice_letter(gold, options) for gold in golds]
    if letter in wanted:
        return MathGrade("correct", found, (Comparison(True, "choice", f"chose {letter}"),))
    names = ", ".join(w or "?" for w in wanted)
    return MathGrade("wrong", found, (Comparison(False, "choice", f"chose {letter}, the gold is {names}"),))


def choice_letter(text: str, options: Sequence[str]) -> str | None:
    """The letter that a text chooses: "B", "(b)", "B. 42" (when option B is 42) or "42"; else None."""
    text = re.sub(r"\*\*|__", "", normalise(text.strip(" *_`\"'“”"))).strip()
    texts = [fold(option) for option in options]
    if texts.count(fold(text)) == 1:
        return chr(ord("A") + texts.index(fold(text)))
    if (alone := _LETTER.fullmatch(text)) is not None:
        letter = alone[1].upper()
        return letter if not options or ord(letter) - ord("A") < len(options) else None
    if (both := _LETTER_AND_TEXT.fullmatch(text)) is not None:
        letter, rest = (both[1] or both[2]).upper(), both[3].rstrip("} ")
        if options:
            at = ord(letter) - ord("A")
            return letter if at < len(texts) and fold(rest) == texts[at] else None
        return None if _SEVERAL.search(rest) or re.match(r"\s*[,;&]", rest) else letter
    return None


def _stated_letter(text: str, options: Sequence[str]) -> str | None:
    """The letter of "C is correct" or "I choose C": the only one that the sentence names, and not denied."""
    text = re.sub(r"\*\*|__", "", text)
    letters = {(found[1] or found[2] or found[3]) for found in _STATED.finditer(text)}
    if len(letters) != 1 or re.search(r"\b(?:not|n't|neither|or|and|both)\b", text):
        return None
    return choice_letter(letters.pop(), options)


def grade_text(
    completion: str,
    golds: Sequence[str],
    mode: Mode,
    *,
    place: Place | None = None,
    policy: Policy = Policy(),  # noqa: B008 - frozen
) -> MathGrade:
    """Equal after Unicode case folding, white space, quotes, articles and final punctuation are set aside."""
    found = extract_words(completion, mode, place=place, policy=policy)
    if not found.text:
        return MathGrade("no_answer", found, ())
    answer = fold(found.text)
    equal = any(answer == fold(gold) for gold in golds)
    comparison = Comparison(equal, "text", "the same words" if equal else "other words")
    return MathGrade("correct" if equal else "wrong", found, (comparison,))


def extract_words(
    completion: str,
    mode: Mode,
    *,
    place: Place | None = None,
    policy: Policy = Policy(),  # noqa: B008 - frozen
) -> Extraction:
    """Where a choice or a text stands: the ladder without the last number; in train mode the last line."""
    found = extract(completion, mode, place=place, pay_unfinished=policy.unfinished_reasoning)
    if found.rung not in ("last_number", "none"):
        return found
    read = completion[slice(*found.read)]
    lines = [line for line in read.splitlines() if line.strip()]
    last = lines[-1].strip() if lines and mode == "train" else ""
    if not last:
        return replace(found, text="", rung="last_line", start=None, end=None)
    letter = _LAST_LETTER.fullmatch(last)
    a, b = letter.span(1) if letter else (0, len(last))
    start = found.read[0] + read.rfind(last)
    return replace(found, text=last[a:b], rung="last_line", start=start + a, end=start + b)


def fold(text: str) -> str:
    """The form in which two text answers are compared."""
    text = re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", normalise(text.strip(" \n*_`"))).casefold()
    text = re.sub(r"\\([#&_$%])", r"\1", text)
    text = re.sub(r"[\"'“”‘’`*_]", "", text).strip(" .,!?;:")
    return re.sub(r"\s+", " ", re.sub(r"^(?:the|a|an)\s+", "", text))


def _beside_box(completion: str, found: Extraction, options: Sequence[str]) -> tuple[Extraction, str | None]:
    """A box that holds no choice was for a formula: the letter is behind it, after "answer" or on the last line."""
    start, end = found.end or 0, found.read[1]
    tail = completion[start:end]
    named = list(_SENTENCE_LETTER.finditer(tail.replace("Answer", "answer").replace("Option", "option")))
    lines = [line.strip() for line in tail.splitlines() if line.strip(" }$.")]
    last = _LAST_LETTER.fullmatch(lines[-1]) if len(lines) > 1 else None
    letter = named[-1][1] if named else last[1] if last else ""
    if not letter or choice_letter(letter, options) is None:
        return found, None
    at = start + (named[-1].start(1) if named else tail.rfind(lines[-1]) + (last.start(1) if last else 0))
    return replace(found, text=letter, rung="answer_is" if named else "last_line", start=at, end=at + 1), letter
