"""Multiple choice and plain text answers: string rules, no algebra."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from chorus.reward_server.graders.extraction import Extraction, Mode, extract
from chorus.reward_server.graders.math.compare import Comparison, MathGrade
from chorus.reward_server.graders.math.normalise import normalise

_LETTER = re.compile(r"(?:option|choice)?\s*[(\[]?\s*([A-Za-z])\s*[)\].:]?", re.IGNORECASE)
_LETTER_AND_TEXT = re.compile(r"[(\[]?([A-Za-z])[)\].:]\s*(.+)", re.DOTALL)
_LAST_LETTER = re.compile(r"[*_]*[(\[]?([A-Z])[)\].:]?[*_]*\.?")


def grade_choice(completion: str, golds: Sequence[str], options: Sequence[str], mode: Mode) -> MathGrade:
    """A letter, or the exact text of an option; several letters are no choice, and wrong."""
    found = extract_words(completion, mode)
    if not found.text:
        return MathGrade("no_answer", found, ())
    letter = choice_letter(found.text, options)
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
    text = normalise(text)
    texts = [fold(option) for option in options]
    if texts.count(fold(text)) == 1:
        return chr(ord("A") + texts.index(fold(text)))
    if (alone := _LETTER.fullmatch(text)) is not None:
        letter = alone[1].upper()
        return letter if not options or ord(letter) - ord("A") < len(options) else None
    if (both := _LETTER_AND_TEXT.fullmatch(text)) is not None and options:
        at = ord(both[1].upper()) - ord("A")
        return both[1].upper() if at < len(texts) and fold(both[2]) == texts[at] else None
    return None


def grade_text(completion: str, golds: Sequence[str], mode: Mode) -> MathGrade:
    """Equal after Unicode case folding, white space, quotes, articles and final punctuation are set aside."""
    found = extract_words(completion, mode)
    if not found.text:
        return MathGrade("no_answer", found, ())
    answer = fold(found.text)
    equal = any(answer == fold(gold) for gold in golds)
    comparison = Comparison(equal, "text", "the same words" if equal else "other words")
    return MathGrade("correct" if equal else "wrong", found, (comparison,))


def extract_words(completion: str, mode: Mode) -> Extraction:
    """Where a choice or a text stands: the ladder without the last number; in train mode the last line."""
    found = extract(completion, mode)
    if found.rung not in ("last_number", "none"):
        return found
    lines = [line for line in completion.splitlines() if line.strip()]
    last = lines[-1].strip() if lines and mode == "train" else ""
    if not last:
        return replace(found, text="", rung="last_line", start=None, end=None)
    letter = _LAST_LETTER.fullmatch(last)
    a, b = letter.span(1) if letter else (0, len(last))
    start = completion.rfind(last)
    return replace(found, text=last[a:b], rung="last_line", start=start + a, end=start + b)


def fold(text: str) -> str:
    """The form in which two text answers are compared."""
    text = re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", normalise(text)).casefold()
    text = re.sub(r"[\"'“”‘’`*_]", "", text).strip(" .,!?;:")
    return re.sub(r"\s+", " ", re.sub(r"^(?:the|a|an)\s+", "", text))
