"""The graders that come with the service, by name, and the other things a grader process can be asked.

GRADERS[task.kind](task) -> GradeResult      a user's own grader stands in own.py, in a worker of its own
"""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from chorus.protocol.reasoning_gym import GymError
from chorus.reward_server.graders.code import grade_program
from chorus.reward_server.graders.extraction import extract
from chorus.reward_server.graders.math.compare import MAX_ANSWER_CHARS, MathGrade, compare, grade_math, is_expression
from chorus.reward_server.graders.math.normalise import normalise, squeeze
from chorus.reward_server.graders.math_verify import accepts
from chorus.reward_server.graders.places import Place, place_of
from chorus.reward_server.graders.policy import Policy
from chorus.reward_server.graders.reasoning_gym import grade_gym, gym_answer
from chorus.reward_server.graders.task import ACCURACY, Clusters, Extracted, Grader, GradeResult, GradeTask, Reply
from chorus.reward_server.graders.text import choice_letter, extract_words, fold, grade_choice, grade_text

MAX_EXTRACTED_CHARS = 4000  # what a response repeats of an answer, and clusters compare; a grade sees all of it
_LIBRARY = f"math-verify {version('math-verify')}"


def run(task: GradeTask) -> Reply:
    """Do one task. Raises what the graders raise; the worker turns that into a failure."""
    if task.task == "cluster":
        return Clusters(tuple(cluster(list(task.answers), task.kind)))
    if task.task == "extract":
        answer = _extract(task)[:MAX_EXTRACTED_CHARS]
        # The key is made here, under a limit: the API process may need it, and clean-up is not for its event loop.
        return Extracted(answer or None, _key(answer))
    return GRADERS[task.kind](task)


def _math(task: GradeTask) -> GradeResult:
    golds = task.golds[-1:] if task.mode == "paper" else task.golds
    return _result(
        task, grade_math(task.completion, list(task.golds), task.mode, place=_place(task), policy=_policy(task)), golds
    )


def _choice(task: GradeTask) -> GradeResult:
    return _result(
        task,
        grade_choice(
            task.completion, list(task.golds), list(task.options), task.mode, place=_place(task), policy=_policy(task)
        ),
        task.golds,
    )


def _text(task: GradeTask) -> GradeResult:
    return _result(
        task,
        grade_text(task.completion, list(task.golds), task.mode, place=_place(task), policy=_policy(task)),
        task.golds,
    )


def _gym(task: GradeTask) -> GradeResult:
    try:
        return _result(task, grade_gym(task.completion, task.golds, task.mode), task.golds)
    except (GymError, ImportError) as error:  # the item can't be made here: no fault of the answer
        return GradeResult.failed("reasoning_gym: pool", str(error))


def _math_verify(task: GradeTask) -> GradeResult:
    """The library alone, each gold boxed: a second opinion, never a problem's kind."""
    right = accepts(task.completion, task.golds)
    verdict = "correct" if right else "wrong"
    return GradeResult(verdict, ACCURACY[verdict], f"math-verify: {_LIBRARY}")


GRADERS: dict[str, Grader] = {
    "math": _math,
    "choice": _choice,
    "text": _text,
    "code": grade_program,
    "reasoning_gym": _gym,
    "math-verify": _math_verify,
}


def _result(task: GradeTask, grade: MathGrade, golds: tuple[str, ...]) -> GradeResult:
    verdict: Any = grade.verdict
    return GradeResult(
        verdict=verdict,
        accuracy=ACCURACY[verdict],
        verifier=f"{task.kind}: {_LIBRARY if grade.rule == 'math-verify' else grade.rule}",
        extracted=grade.extraction.text[:MAX_EXTRACTED_CHARS] or None,
        explanation=_explain(grade, golds) if task.task == "explain" else None,
    )


def warm_up() -> None:
    """Load what the first grade would load: the LaTeX grammar, sympy's printers and simplifiers."""
    for answer, gold in (("\\frac{1}{2}x+1", "x/2+1"), ("[0,1)", "[0,1)"), ("x=\\sqrt{2}", "1.414")):
        compare(answer, gold, "train")
        compare(answer, gold, "paper")
    if find_spec("reasoning_gym") is not None:
        import reasoning_gym  # pyright: ignore[reportMissingImports]  # noqa: F401
        # About a second that no grade has time for.


def cluster(answers: list[str | None], kind: str) -> list[int]:
    """Answers to cluster indices by equivalence; all missing answers share one cluster."""
    representatives: dict[int, str] = {}
    seen: dict[str | None, int] = {}
    clusters: list[int] = []
    for answer in answers:
        if answer not in seen:
            known = None
            if answer is not None:
                known = next((i for i, other in representatives.items() if _equivalent(answer, other, kind)), None)
            seen[answer] = max(clusters, default=-1) + 1 if known is None else known
            if known is None and answer is not None:
                representatives[seen[answer]] = answer
        clusters.append(seen[answer])
    return clusters


def _equivalent(answer: str, other: str, kind: str) -> bool:
    if kind == "math":  # a comparison is not symmetric (units, percent, rounding): either way will do
        return compare(answer, other, "train").equal or compare(other, answer, "train").equal
    if kind == "choice" and (letter := choice_letter(answer, [])) is not None:
        return letter == choice_letter(other, [])
    return fold(answer) == fold(other)


def _key(answer: str) -> str:
    """What tells answers apart where comparing them failed."""
    return squeeze(normalise(answer)) if len(answer) <= MAX_ANSWER_CHARS else answer


def _extract(task: GradeTask) -> str:
    place, policy = _place(task), _policy(task)
    if task.kind == "math":
        pay = policy.unfinished_reasoning
        return extract(task.completion, task.mode, parses=is_expression, place=place, pay_unfinished=pay).text
    if task.kind == "reasoning_gym":
        return gym_answer(task.completion, task.mode).text
    return extract_words(task.completion, task.mode, place=place, policy=policy).text


def _place(task: GradeTask) -> Place | None:
    """Where the task's template has its answer; None without a template."""
    return place_of(task.markers, task.prefill) if task.markers or task.prefill else None


def _policy(task: GradeTask) -> Policy:
    return Policy(task.percent_sign_optional, task.unfinished_reasoning)


def _explain(grade: MathGrade, golds: tuple[str, ...]) -> dict[str, Any]:
    """Every step of a grade; `golds` beyond the first that matched were not compared."""
    found = grade.extraction
    normalised = normalise(found.text)
    return {
        "extraction": {
            "rung": found.rung,
            "start": found.start,
            "end": found.end,
            "read_start": found.read[0],
            "read_end": found.read[1],
            "cuts": list(found.cuts),
        },
        "normalised": normalised,
        "comparisons": [
            {
                "gold": gold,
                "normalised": normalise(gold),
                "equal": c.equal,
                "rule": c.rule,
                "reason": c.reason,
            }
            for gold, c in zip(golds, grade.comparisons, strict=False)
        ],
    }
