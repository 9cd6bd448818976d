"""What is known of a problem beside its answer, as a file of JSON lines, and the ways of asking that follow from it.

    {"id": "math/7", "plan": "Find the sum, then halve it.", "knowledge": ["The sum of n odd numbers is n^2."],
     "subproblems": [{"problem": "What is the sum?", "answer": "16"}, {"problem": "What is its half?", "answer": "8"}]}

`id` is the problem's, all else may be left out: a problem takes part in the axes that it has something for. Each is
asked as a problem of its own, `plain` beside it:

    plan          the problem, a blank line, "Plan:" and the plan
    knowledge     the problem, a blank line, "Known facts:" and a line a fact
    subproblems   the problem, the earlier parts with their gold answers, and the part that is asked
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chorus.protocol.messages import Problem
from chorus.protocol.runtime.exits import CannotGoOn

Axis = Literal["plan", "knowledge", "subproblems"]
AXES: tuple[Axis, ...] = ("plan", "knowledge", "subproblems")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Subproblem(_Part):
    problem: str = Field(min_length=1)
    answer: str = Field(min_length=1)


class Annotation(_Part):
    id: str
    plan: str = ""
    knowledge: list[str] = []
    subproblems: list[Subproblem] = []


def read_annotations(path: Path) -> dict[str, Annotation]:
    """By problem. Raises CannotGoOn for a file or a line that can't be used."""
    found: dict[str, Annotation] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CannotGoOn(f"--annotations {path}: can't be read ({error}); give a file of JSON lines") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            one = Annotation.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the line"
            raise CannotGoOn(f"--annotations {path}:{number}: {where}: {first['msg']}; mend this line") from None
        if one.id in found:
            raise CannotGoOn(f"--annotations {path}:{number}: id {one.id!r} stands there twice; leave one out")
        found[one.id] = one
    return found


def asked_on(axis: Axis, problems: Sequence[Problem], annotations: dict[str, Annotation]) -> list[Problem]:
    """The problems of an axis, of those that have an annotation for it. Part k of a problem is called ID/k."""
    found = []
    for problem in problems:
        if (note := annotations.get(problem.id)) is None:
            continue
        if axis == "plan" and note.plan:
            found.append(_with(problem, f"Plan:\n{note.plan}"))
        if axis == "knowledge" and note.knowledge:
            found.append(_with(problem, "Known facts:\n" + "\n".join(note.knowledge)))
        if axis == "subproblems":
            found += [_part(problem, note.subproblems, k) for k in range(len(note.subproblems))]
    return found


def part_id(problem_id: str, k: int) -> str:
    """Of part k, from 1."""
    return f"{problem_id}/{k}"


def _with(problem: Problem, more: str) -> Problem:
    return problem.model_copy(update={"problem": f"{problem.problem}\n\n{more}"})


def _part(problem: Problem, parts: Sequence[Subproblem], k: int) -> Problem:
    known = "".join(f"\n\n{part.problem}\n{part.answer}" for part in parts[:k])
    text = f"{problem.problem}{known}\n\n{parts[k].problem}"
    changed = {"id": part_id(problem.id, k + 1), "problem": text, "answers": [parts[k].answer], "kind": "math"}
    return problem.model_copy(update={**changed, "tests": None, "solution": None})
