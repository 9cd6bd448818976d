"""What a grader process can be asked ("grade", "explain", "extract", "cluster"), answered as plain data."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from chorus.protocol.reasoning_gym import GymError
from chorus.reward_server.graders.code import grade_code
from chorus.reward_server.graders.extraction import extract
from chorus.reward_server.graders.math.compare import MAX_ANSWER_CHARS, MathGrade, compare, grade_math, is_expression
from chorus.reward_server.graders.math.normalise import normalise, squeeze
from chorus.reward_server.graders.places import Place, place_of
from chorus.reward_server.graders.policy import Policy
from chorus.reward_server.graders.reasoning_gym import grade_gym, gym_answer
from chorus.reward_server.graders.text import choice_letter, extract_words, fold, grade_choice, grade_text

MAX_EXTRACTED_CHARS = 4000  # what a response repeats of an answer, and clusters compare; a grade sees all of it
_LIBRARY = f"math-verify {version('math-verify')}"


def run(item: dict[str, Any]) -> dict[str, Any]:
    """Do one task. Raises what the graders raise; the worker turns that into a failure."""
    if item["task"] == "cluster":
        return {"clusters": cluster(item["answers"], item["kind"])}
    if item["task"] == "extract":
        answer = _extract(item)[:MAX_EXTRACTED_CHARS]
        # The key is made here, under a limit: the API process may need it, and clean-up is not for its event loop.
        return {"extracted": answer or None, "key": _key(answer)}
    if item["kind"] == "code":
        return grade_code(item)
    try:
        grade = _grade(item)
    except (GymError, ImportError) as error:  # the item can't be made here: no fault of the answer
        return {"failure": "error", "reason": str(error)}
    result = {
        "verdict": grade.verdict,
        "extracted": grade.extraction.text[:MAX_EXTRACTED_CHARS] or None,
        "verifier": f"{item['kind']}: {_LIBRARY if grade.rule == 'math-verify' else grade.rule}",
    }
    if item["task"] == "explain":
        golds = item["golds"][-1:] if item["mode"] == "paper" and item["kind"] == "math" else item["golds"]
        result["explanation"] = _explain(grade, golds)
    return result


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


def _extract(item: dict[str, Any]) -> str:
    place, policy = _place(item), _policy(item)
    if item["kind"] == "math":
        pay = policy.unfinished_reasoning
        return extract(item["completion"], item["mode"], parses=is_expression, place=place, pay_unfinished=pay).text
    if item["kind"] == "reasoning_gym":
        return gym_answer(item["completion"], item["mode"]).text
    return extract_words(item["completion"], item["mode"], place=place, policy=policy).text


def _place(item: dict[str, Any]) -> Place | None:
    """The answer place of the item's template: `tags` holds its markers and its prefill."""
    tags = item.get("tags")
    return place_of(tags["markers"], tags["prefill"]) if tags else None


def _policy(item: dict[str, Any]) -> Policy:
    return Policy(**item.get("policy") or {})


def _grade(item: dict[str, Any]) -> MathGrade:
    completion, golds, mode = item["completion"], item["golds"], item["mode"]
    place, policy = _place(item), _policy(item)
    if item["kind"] == "choice":
        return grade_choice(completion, golds, item.get("options") or [], mode, place=place, policy=policy)
    if item["kind"] == "reasoning_gym":
        return grade_gym(completion, golds, mode)
    if item["kind"] == "text":
        return grade_text(completion, golds, mode, place=place, policy=policy)
    return grade_math(completion, golds, mode, place=place, policy=policy)


def _explain(grade: MathGrade, golds: list[str]) -> dict[str, Any]:
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
