"""Answers to items of reasoning-gym: the task's own scorer decides, and only a score of exactly 1.0 is right.

    golds   ["reasoning-gym:countdown?seed=3#17@9f2c...", "5 * 20 + 3"]     the item's name, an answer that is right

Partial scores (0.01 for any text in some tasks, 0.1 for a good answer badly laid out in others) count as wrong.

Some scorers hand the model's text to Python's `eval`, or to sympy's parser, which does the same. Where the full score
needs no evaluation, it is found without; where it does, only plain arithmetic reaches the scorer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from chorus.protocol.reasoning_gym import item, items
from chorus.reward_server.graders.extraction import Extraction, Mode
from chorus.reward_server.graders.math.compare import Comparison, MathGrade
from chorus.reward_server.graders.text import extract_words

# Full score by equality: of four of them only the partial score of another layout evaluates, and the scorer of the
# fifth, game_of_life_halting, takes any text for True.
EQUALITY = frozenset({"binary_matrix", "game_of_life_halting", "n_queens", "spiral_matrix", "string_insertion"})
# The scorer evaluates the text as an expression.
EXPRESSION = frozenset({"countdown", "intermediate_integration", "puzzle24", "simple_integration"})
_TAG = "<answer>"
_FUNCTIONS = frozenset({"exp", "log", "ln", "sqrt", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "pi"})
_ARITHMETIC = re.compile(r"(?:[\s\w+\-*/^(),]|(?<=\d)\.(?=\d))*", re.ASCII)
_WORD = re.compile(r"\d*[A-Za-z_]\w*", re.ASCII)
MAX_EXPRESSION_CHARS = 1000


def grade_gym(completion: str, golds: Sequence[str], mode: Mode) -> MathGrade:
    """Grade a completion. Raises GymError where the item can't be made, ImportError without reasoning-gym."""
    found = gym_answer(completion, mode)
    if not found.text:
        return MathGrade("no_answer", found, ())
    correct, reason = _is_correct(found.text, golds)
    return MathGrade("correct" if correct else "wrong", found, (Comparison(correct, "reasoning-gym", reason),))


def _is_correct(answer: str, golds: Sequence[str]) -> tuple[bool, str]:
    if answer in golds[1:]:
        return True, "the answer that reasoning-gym holds"
    task = items(golds[0].partition("#")[0])
    if not task.has_scorer:
        return False, "not the answer that reasoning-gym holds"
    _, entry = item(golds[0])
    if task.task in EQUALITY:
        accepted = entry["metadata"].get("valid_answers", ())
        return answer in accepted, "compared with the answers that reasoning-gym holds"
    if task.task in EXPRESSION and not is_arithmetic(answer):
        return False, "not arithmetic, so the scorer is not asked"
    try:
        score = float(task.dataset.score_answer(answer, entry))
    except (MemoryError, RecursionError):
        raise
    except Exception as error:  # some scorers read numbers without asking whether there are any
        return False, f"{task.task} can't read it ({type(error).__name__})"
    return score == 1.0, f"{task.task} scores it {score:g}; 1 is right"


def is_arithmetic(text: str) -> bool:
    """Whether a text holds numbers, operators, single letters and known functions alone.

    That is all that these tasks ask for, and nothing that reaches Python when it is evaluated: no attribute, no
    subscript, no string, no keyword. What takes too long or too much memory ends with the grader's own limits.
    """
    words = _WORD.findall(text)
    return (
        len(text) <= MAX_EXPRESSION_CHARS
        and _ARITHMETIC.fullmatch(text) is not None
        and all((len(word) == 1 and word != "_") or word in _FUNCTIONS for word in words)
    )


def gym_answer(completion: str, mode: Mode) -> Extraction:
    """As a text answer is found, but what stands between answer tags is taken whole: boards have many lines."""
    found = extract_words(completion, mode)
    start, end = found.read
    opened = completion.rfind(_TAG, start, end)
    if mode == "train" and opened >= 0:
        text = completion[opened + len(_TAG) : end].strip()
        if text and "\\boxed" not in text:
            at = completion.find(text, opened)
            return replace(found, text=text, rung="answer_tag", start=at, end=at + len(text))
    return replace(found, text=_unwrapped(found.text))


def _unwrapped(text: str) -> str:
    """`\\text{north}` in a box is `north`."""
    inner = re.fullmatch(r"\s*\\(?:text|mathrm|texttt)\{([^{}]*)\}\s*", text)
    return (inner[1] if inner else text).strip()
