"""What a recipe asks of its problems, looked at before anything starts, and without a tokenizer: that stages leave
some, that there are solutions and sub-answers where they are used, and enough problems to be asked.

The learner looks again, at the problems whose prompts fit.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

from chorus.learner.curriculum.asked import check_sub_answers, to_teach, without_overlap
from chorus.learner.curriculum.hints import Hints
from chorus.learner.curriculum.sampler import PassRates, choose
from chorus.problems.folders import saved_files
from chorus.problems.identity import gather
from chorus.problems.sources import load_problems
from chorus.protocol.config.run import RunConfig
from chorus.protocol.messages import Problem
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.templates.template import Template

HUB = "hub:"


def check_problems(config: RunConfig, templates: Mapping[str, Template], rates: PassRates) -> None:
    """Raises CannotGoOn. `templates`: of templates.names. What a source of the hub's would add is the learner's to
    see."""
    here = {key: _load(config, key) for key in ("train", "heldout", "validation", "exclude_overlap")}
    if (train := here["train"]) is not None:
        if config.problems.exclude_overlap and here["exclude_overlap"] is not None:
            train = without_overlap(train, here["exclude_overlap"])
        check_sub_answers(config, templates.values(), train)
        hints = _unmeasured_hints(config)
        for stage in config.curriculum.all_stages:
            choose(train, stage, rates, hints)
        if config.relift.enabled:
            to_teach(train, templates)
    _check_enough(config, here["heldout"], here["validation"])
    _check_graders(config, [here[key] for key in ("train", "heldout", "validation")])


def _load(config: RunConfig, key: str) -> list[Problem] | None:
    """The problems of a key's sources; None where one of them is the hub's, which is not asked here."""
    needs, by_id = config.reward.row_needs, bool(config.curriculum.pass_rates)
    sources: Sequence[str] = getattr(config.problems, key)
    for source in sources:
        _check_hub(key, source)
    try:
        found = [(source, load_problems(source, needs)) for source in sources if not source.startswith(HUB)]
        whole = gather(found, by_id)
    except (OSError, ValueError, ImportError) as error:
        raise CannotGoOn(f"problems.{key}: {error}") from None
    return whole if len(found) == len(sources) else None


def _check_hub(key: str, source: str) -> None:
    name, _, split = source.partition("?")[0].removeprefix(HUB).partition(":")
    if not source.startswith(HUB) or importlib.util.find_spec("datasets") is not None:
        return
    if not (Path(name).is_dir() and saved_files(Path(name), split or None)):
        raise CannotGoOn(
            f"problems.{key}: problems {source!r}: the hub needs `datasets`, which is not installed; `pip install "
            "'chorus-rl[hub]'`, or give a .jsonl file"
        )


def _unmeasured_hints(config: RunConfig) -> Hints:
    """Hints as the stages choose by them, but that every prompt fits; those that are cut by tokens, which only a
    tokenizer tells, are asked for their solution alone."""
    section = config.curriculum.hints
    if section.unit == "tokens":
        section = section.model_copy(update={"unit": "characters", "reject_if_answer_in_hint": False})
    with_it = config.model_copy(update={"curriculum": config.curriculum.model_copy(update={"hints": section})})
    return Hints(with_it, None, lambda text, begun: True)


def _check_enough(config: RunConfig, heldout: list[Problem] | None, validation: list[Problem] | None) -> None:
    """There are enough to ask; how many of them fit is the learner's to say."""
    asked = config.evaluation
    if asked.problems and heldout is not None and len(heldout) < asked.problems:
        raise CannotGoOn(
            f"problems.heldout has {len(heldout)} problems, and evaluation.problems asks for {asked.problems}; lower "
            "it, or name further sources"
        )
    if not asked.every or heldout is None or validation is None:
        return
    left = len(validation) if config.problems.validation else len(heldout) - asked.problems
    if left < asked.validation_problems:
        key = "validation" if config.problems.validation else "heldout"
        raise CannotGoOn(
            f"problems.{key} leaves {left} problems to validate on, and evaluation.validation_problems is "
            f"{asked.validation_problems}; lower it, or name further sources"
        )


def _check_graders(config: RunConfig, asked: Sequence[list[Problem] | None]) -> None:
    """Every grader that the recipe names is asked by somebody."""
    if None in asked:
        return
    kinds = {problem.kind for problems in asked for problem in problems or ()}
    for grader in config.reward.graders:
        if grader.name not in (*config.reward.everywhere, *kinds):
            raise CannotGoOn(
                f"reward.graders: {grader.name}: nobody asks it: make it a term ([[reward.terms]] with grader = "
                f'"{grader.name}"), give problems its kind (`kind` is "{grader.name}"), name it in reward.shadow, or '
                "leave it out"
            )
