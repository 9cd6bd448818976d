"""The problems of a stage: which ones, in which order, and from which domain each admission draws.

Stratified, every batch of P admissions holds, of a domain with share w, w x P groups rounded down or up (within one
item, whatever the number of domains), and the rounding evens out over batches:

    shares 2/3, 1/3 laid side by side on a line of length P = 12     |--------------8|------4|
    points at u, u + 1, ..., u + P - 1, each falling into a domain     x x x x x x x x x x x x    -> 8 and 4

u moves by the golden ratio from batch to batch; within a batch the order is shuffled. Without stratification the
points are P independent ones. All of it is a function of the seed: nothing has to be saved.

The problems of a stage are chosen by level, domain and measured pass rate (problems/pass_rates.py), and by whether the
stage's hint can be given; what is left out is counted by its reason. They are drawn without replacement, domain by
domain where the stage blends them; each pass over a domain has an order of its own, a function of the run's seed alone.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from random import Random

from chorus.learner.curriculum.hints import Hints
from chorus.problems.pass_rates import Measured, read_measured
from chorus.protocol.config.curriculum import PassRate, Stage
from chorus.protocol.messages import Problem
from chorus.protocol.runtime.exits import CannotGoOn

_CIRCLE = 2**64
_GOLDEN = 0x9E3779B97F4A7C15  # of that circle; u's places spread evenly


class Blend:
    """`weights`: domain to its weight, in proportion; those of weight 0 are never drawn."""

    def __init__(self, seed: str, weights: Mapping[str, float], batch: int, stratified: bool = True) -> None:
        exact = {name: Fraction(weights[name]) for name in sorted(weights) if weights[name]}
        total = sum(exact.values())
        self._names = list(exact)
        self._bounds = list(accumulate(weight * batch / total for weight in exact.values()))  # in exact arithmetic
        self._seed = seed
        self._batch = batch
        self._stratified = stratified
        self._before: list[Counter[str]] = [Counter()]  # draws by domain, before each batch
        self._order = lru_cache(maxsize=4)(self._shuffled)

    def at(self, n: int) -> tuple[str, int]:
        """(domain, how many draws it had before) of the n-th admission, from 0."""
        domain = self._order(n // self._batch)[n % self._batch]
        return domain, self.drawn(n)[domain]

    def drawn(self, n: int) -> Counter[str]:
        """Draws by domain among the first n."""
        batch, place = divmod(n, self._batch)
        while len(self._before) <= batch:
            self._before.append(self._before[-1] + Counter(self._order(len(self._before) - 1)))
        return self._before[batch] + Counter(self._order(batch)[:place])

    def _shuffled(self, batch: int) -> list[str]:
        random = Random(f"{self._seed}/blend/{batch}")
        if self._stratified:
            start = Random(f"{self._seed}/blend").getrandbits(64)
            first = Fraction((start + batch * _GOLDEN) % _CIRCLE, _CIRCLE)
            points = [first + k for k in range(self._batch)]
        else:
            points = [Fraction(random.getrandbits(64) * self._batch, _CIRCLE) for _ in range(self._batch)]
        order = [self._names[bisect_right(self._bounds, point)] for point in points]
        random.shuffle(order)
        return order


class PassRates:
    """Raises CannotGoOn for a file or line that can't be used."""

    def __init__(self, files: Iterable[str]) -> None:
        self._counts: dict[tuple[str, float], dict[str, list[int]]] = defaultdict(dict)
        for file in files:
            try:
                lines = read_measured(Path(file))
            except ValueError as error:
                raise CannotGoOn(f"curriculum.pass_rates: {error}") from None
            for measured in lines:
                self._add(measured)

    def _add(self, measured: Measured) -> None:
        count = self._counts[measured.model, measured.hint_ratio].setdefault(measured.id, [0, 0])
        count[0] += measured.samples
        count[1] += measured.correct

    def rates(self, asked: PassRate, stage_hint: float) -> dict[str, float]:
        """Problem id to its pass rate, under the model and the hint that a stage asks for.

        Raises CannotGoOn where the files say nothing of them, or of several models and the stage of none.
        """
        hint = stage_hint if asked.hint_ratio is None else asked.hint_ratio
        at_hint = [model for model, ratio in self._counts if ratio == hint]
        models = [model for model in at_hint if asked.model in ("", model)]
        if len(models) != 1:
            known = (
                ", ".join(f"{model!r} at hint ratio {ratio:g}" for model, ratio in sorted(self._counts)) or "nothing"
            )
            what = f"model {asked.model!r}" if asked.model else "one model"
            raise CannotGoOn(
                f"curriculum.pass_rates: {what} at hint ratio {hint:g} is asked for, and the files hold {known}; set "
                "the stage's pass_rate.model and pass_rate.hint_ratio"
            )
        return {id: correct / samples for id, (samples, correct) in self._counts[models[0], hint].items()}


@dataclass(frozen=True)
class Chosen:
    """left_out: how many problems by reason; of a stage with several ratios, how many pairs of problem and ratio.
    answer_in_hint: the share of those with a hint whose hint holds the answer, rejected or not; None where the stage
    gives no fixed one. ratios: of the hint of each problem; empty: the stage has one for all, or an online one."""

    problems: list[Problem]
    left_out: Counter[str] = field(default_factory=Counter)
    answer_in_hint: float | None = None
    ratios: list[float] = field(default_factory=list)


def choose(problems: Sequence[Problem], stage: Stage, rates: PassRates, hints: Hints) -> Chosen:
    """Raises CannotGoOn where nothing is left, or nothing of a domain that the stage blends in."""
    several = isinstance(stage.hint_ratio, list)
    measured_at = 0.0 if several else (stage.hint_ratios or [0.0])[0]
    passed = rates.rates(stage.pass_rate, measured_at) if stage.pass_rate else {}
    left_out: Counter[str] = Counter()
    chosen: list[Problem] = []
    ratios: list[float] = []
    held: list[bool] = []
    for problem in problems:
        unwanted = _unwanted(problem, stage, passed) or hints.unusable(problem, stage)
        asked = [0.0] if several and hints.is_probe(problem.id) else stage.hint_ratios or [0.0]
        for ratio in asked[:1] if unwanted else asked:
            reason = unwanted
            if reason is None and ratio:
                held.append(hints.holds_answer(problem, ratio))
                reason = hints.refusal(problem, ratio)
            if reason:
                left_out[reason] += 1
            else:
                chosen.append(problem)
                ratios.append(ratio)
    told = ", ".join(f"{n} {reason}" for reason, n in left_out.most_common()) or "none"
    if not chosen:
        raise CannotGoOn(
            f"curriculum.stages: {stage.name}: of {len(problems)} problems none is left ({told}); widen what it asks"
        )
    there = Counter(problem.domain or "" for problem in chosen)
    if missing := [name for name, weight in stage.domains.items() if weight and not there[name]]:
        raise CannotGoOn(
            f"curriculum.stages: {stage.name}: no problem of the domain {', '.join(missing)} is left ({told}); there "
            f"are {', '.join(sorted(filter(None, there))) or 'none with a domain'}; name these"
        )
    return Chosen(chosen, left_out, sum(held) / len(held) if held else None, ratios if several else [])


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
        self._of = stage, seed, groups_per_step
        self._seed = seed
        places = range(len(chosen.problems))
        self._strata: dict[str, Sequence[int]] = {"": places}
        self._blend: Blend | None = None
        if stage.domains:
            domains = [p.domain for p in chosen.problems]
            self._strata = {name: [k for k in places if domains[k] == name] for name in stage.domains}
            self._blend = Blend(f"{seed}/{stage.name}", stage.domains, groups_per_step, stage.stratified)

    def without(self, ids: Collection[str]) -> Pool | None:
        """The same without these problems; None where nothing would be left of one of its domains."""
        gone, ratios = set(ids), self.chosen.ratios
        kept = [k for k, problem in enumerate(self.chosen.problems) if problem.id not in gone]
        problems = [self.chosen.problems[k] for k in kept]
        if not problems or {p.domain for p in self.chosen.problems} != {p.domain for p in problems}:
            return None
        chosen = replace(self.chosen, problems=problems, ratios=[ratios[k] for k in kept] if ratios else [])
        return Pool(chosen, *self._of)

    def at(self, n: int, first_epoch: int) -> tuple[int, Problem]:
        """(epoch, problem) of the stage's n-th admission; epochs count from `first_epoch`, each domain's for itself."""
        epoch, place = self._place(n, first_epoch)
        return epoch, self.chosen.problems[place]

    def ratio(self, n: int, first_epoch: int) -> float | None:
        """The hint's, where the stage has several."""
        return self.chosen.ratios[self._place(n, first_epoch)[1]] if self.chosen.ratios else None

    def _place(self, n: int, first_epoch: int) -> tuple[int, int]:
        domain, nth = self._blend.at(n) if self._blend else ("", n)
        places = self._strata[domain]
        passes, position = divmod(nth, len(places))
        epoch = first_epoch + passes
        key = f"{self._seed}/{domain}/{epoch}" if self._blend else f"{self._seed}/{epoch}"
        return epoch, places[_permutation(key, len(places))[position]]

    def epochs(self, n: int) -> int:
        """Passes begun, over any domain, by the first n admissions."""
        drawn = self._blend.drawn(n) if self._blend else {"": n}
        return max((-(-count // len(self._strata[name])) for name, count in drawn.items()), default=0)


@lru_cache(maxsize=16)
def _permutation(key: str, n: int) -> list[int]:
    order = list(range(n))
    random.Random(key).shuffle(order)
    return order
