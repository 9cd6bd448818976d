"""What a recipe asks of its problems beside its stages, without a tokenizer: the learner looks at the problems that fit
its prompts, `chorus run` at all of them before anything starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from chorus.problems.hints import hint_refusal
from chorus.problems.overlap import sharing
from chorus.protocol.config.run import RunConfig
from chorus.protocol.messages import Problem
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.templates.score import format_score
from chorus.protocol.templates.template import Template


def without_overlap(problems: Sequence[Problem], others: Iterable[Problem]) -> list[Problem]:
    """Without what the sources of problems.exclude_overlap hold too. Raises CannotGoOn where nothing is left."""
    shared = sharing(problems, others)
    if len(shared) == len(problems):
        raise CannotGoOn("problems.exclude_overlap leaves no problem to train on; name the sources of tests there")
    return [p for p in problems if p.id not in shared]


def check_sub_answers(config: RunConfig, templates: Iterable[Template], problems: Iterable[Problem]) -> None:
    """Raises CannotGoOn where they are paid and could never be found."""
    if config.reward.interleaved is None:
        return
    missing = []
    if not any(template.contract == "interleaved" for template in templates):
        missing.append("no template of templates.names asks for blocks in turn (`interleaved` does)")
    if not any(problem.sub_answers for problem in problems):
        missing.append("no problem of problems.train has `sub_answers`")
    if missing:
        raise CannotGoOn(
            f"reward.interleaved pays sub-answers, and {', and '.join(missing)}: mend that, or set "
            "reward.interleaved = none"
        )


def to_teach(problems: Iterable[Problem], templates: Mapping[str, Template]) -> tuple[int, str]:
    """How many problems have a solution that relift can train on, and in words why the others have none. Raises
    CannotGoOn where none has one."""
    reasons: Counter[str] = Counter()
    for problem in problems:
        found = [teaching_refusal(problem, template) for template in templates.values()]
        reasons["" if None in found else found[0] or ""] += 1
    usable = reasons.pop("", 0)
    said = ", ".join(f"{n} {reason}" for reason, n in sorted(reasons.items()))
    if not usable:
        raise CannotGoOn(
            f"relift.enabled: no problem has a solution to train on ({said}): give the problems a `solution` that "
            "holds the answer in the template's layout, see docs/methods/relift.md"
        )
    return usable, said


def teaching_refusal(problem: Problem, template: Template) -> str | None:
    """Why a problem's solution is none to train on under a template; None where it is one."""
    if problem.kind == "code":
        reason = None if (problem.solution or "").strip() else "no_solution"
    else:
        reason = hint_refusal(problem, "")
    return reason or (None if format_score(template, target(problem, template)) == 1.0 else "not_in_the_layout")


def target(problem: Problem, template: Template) -> str:
    """The stored solution as an answer's text: without what the prompt has written of it already."""
    return (problem.solution or "").removeprefix(template.prefill)
