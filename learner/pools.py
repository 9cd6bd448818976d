"""The problems of a stage: which ones, and in which order.

Chosen by level, domain and measured pass rate, and by whether the stage's hint can be given; what is left out is
counted by its reason. Drawn without replacement, domain by domain where the stage blends them (learner/blend.py); each
pass over a domain has an order of its own. The order is a function of the run's seed alone.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from learner.blend import Blend
from learner.hints import Hints
from learner.pass_rates import PassRates
from protocol.curriculum import Stage
from protocol.exits import CannotGoOn
from protocol.messages import Problem


@dataclass(frozen=True)
class Chosen:
    """left_out: how many problems by reason. answer_in_hint: the share of those with a hint whose hint holds the
    answer, rejected or not; None where the stage gives no fixed one."""

    problems: list[Problem]
    left_out: Counter[str] = field(default_factory=Counter)
    answer_in_hint: float | None = None


def choose(problems: Sequence[Problem], stage: Stage, rates: PassRates, hints: Hints) -> Chosen:
    """Raises CannotGoOn where nothing is left, or nothing of a domain that the stage blends in."""
    ratio = stage.hint_ratio if isinstance(stage.hint_ratio, float) else 0.0
    passed = rates.rates(stage.pass_rate, ratio) if stage.pass_rate else {}
    left_out: Counter[str] = Counter()
    chosen: list[Problem] = []
    held: list[bool] = []
    for problem in problems:
        reason = _unwanted(problem, stage, passed) or hints.unusable(problem, stage)
        if reason is None and ratio:
            held.append(hints.holds_answer(problem, ratio))
            reason = hints.refusal(problem, ratio)
        if reason:
            left_out[reason] += 1
        else:
            chosen.append(problem)
    told = ", ".join(f"{n} {reason}" for reason, n in left_out.most_common()) or "none"
    if not chosen:
        raise CannotGoOn(f"curriculum.stages: {stage.name}: of {len(problems)} problems none is left ({told})")
    there = Counter(problem.domain or "" for problem in chosen)
    if missing := [name for name, weight in stage.domains.items() if weight and not there[name]]:
        raise CannotGoOn(
            f"curriculum.stages: {stage.name}: no problem of the domain {', '.join(missing)} is left ({told}); there "
            f"are {', '.join(sorted(filter(None, there))) or 'none with a domain'}"
        )
    return Chosen(chosen, left_out, sum(held) / len(held) if held else None)


def _unwanted(problem: Problem, stage: Stage, passed: Mapping[str, float]) -> str | None:
    if stage.levels and problem.level not in stage.levels:
        return "level"
    if stage.domains and not stage.domains.get(problem.domain or ""):
        return "domain"
    if stage.pass_rate is None:
        return None
    if problem.id not in passed:
        return "not_measured"
    return None if stage.pass_rate.low <= passed[problem.id] <= stage.pass_rate.high else "pass_rate"


class Pool:
    """A stage's problems in the order of its admissions."""

    def __init__(self, chosen: Chosen, stage: Stage, seed: int, groups_per_step: int) -> None:
        self.chosen = chosen
        self._seed = seed
        self._strata: dict[str, list[Problem]] = {"": chosen.problems}
        self._blend: Blend | None = None
        if stage.domains:
            self._strata = {name: [p for p in chosen.problems if p.domain == name] for name in stage.domains}
            self._blend = Blend(f"{seed}/{stage.name}", stage.domains, groups_per_step, stage.stratified)

    def at(self, n: int, first_epoch: int) -> tuple[int, Problem]:
        """(epoch, problem) of the stage's n-th admission; epochs count from `first_epoch`, each domain's for itself."""
        domain, nth = self._blend.at(n) if self._blend else ("", n)
        problems = self._strata[domain]
        passes, position = divmod(nth, len(problems))
        epoch = first_epoch + passes
        key = f"{self._seed}/{domain}/{epoch}" if self._blend else f"{self._seed}/{epoch}"
        return epoch, problems[_permutation(key, len(problems))[position]]

    def epochs(self, n: int) -> int:
        """Passes begun, over any domain, by the first n admissions."""
        drawn = self._blend.drawn(n) if self._blend else {"": n}
        return max((-(-count // len(self._strata[name])) for name, count in drawn.items()), default=0)


@lru_cache(maxsize=16)
def _permutation(key: str, n: int) -> list[int]:
    order = list(range(n))
    random.Random(key).shuffle(order)
    return order
