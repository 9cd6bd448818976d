"""What a number of generators comes to, and which number to take."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from chorus.deploy.simulator.fleet import Fleet
from chorus.deploy.simulator.pace import Pace
from chorus.protocol.config.run import RunConfig

ENOUGH = 0.95  # of the best throughput in sight
_BUSY = 0.10  # a learner that waits less is the limit itself


@dataclass(frozen=True)
class Forecast:
    """Shares and rates over the steps after the warm-up.

    learner_idle: time the learner waits for groups. generators_idle: time a generator holds no group at all, as
    `generator_wait_ratio` counts it. staleness: steps between a group's first token's weights and those it trains.
    dropped: groups too old (or filtered), of all that were finished.
    """

    generators: int
    samples_per_s: float
    steps_per_hour: float
    learner_idle: float
    generators_idle: float
    staleness_mean: float
    staleness_max: int
    dropped: float


def forecast(config: RunConfig, pace: Pace, generators: int, steps: int = 100) -> Forecast:
    """Simulate `steps` steps after a warm-up of a tenth of them."""
    fleet = Fleet(config, pace)
    for _ in range(generators):
        fleet.join()
    warm_up = max(3, steps // 10)
    fleet.run(steps=warm_up)
    since, waited, held, seen = fleet.now, fleet.learner_waited_s(), fleet.held_s(), len(fleet.staleness)
    dropped = fleet.dropped
    fleet.run(steps=warm_up + steps)
    seconds, ages = fleet.now - since, fleet.staleness[seen:]
    dropped = fleet.dropped - dropped
    return Forecast(
        generators=generators,
        samples_per_s=len(ages) * config.sampling.group_size / seconds,
        steps_per_hour=3600 * steps / seconds,
        learner_idle=(fleet.learner_waited_s() - waited) / seconds,
        generators_idle=1.0 - (fleet.held_s() - held) / (seconds * generators),
        staleness_mean=statistics.fmean(ages),
        staleness_max=max(ages),
        dropped=dropped / (dropped + len(ages)),
    )


def recommend(forecasts: Sequence[Forecast], config: RunConfig) -> tuple[Forecast, str]:
    """The smallest fleet that gives ENOUGH of the best throughput in sight, and why, in one sentence."""
    best = max(f.samples_per_s for f in forecasts)
    chosen = next(f for f in forecasts if f.samples_per_s >= ENOUGH * best)
    fleet = _counted(chosen.generators)
    gain = best / chosen.samples_per_s - 1.0
    more = f"more would add {gain:.0%} at most" if gain >= 0.005 else "more would add nothing"
    idle = f"{chosen.learner_idle:.0%} of its time"
    if chosen.learner_idle <= _BUSY:
        why = f"the learner waits only {idle} then"
        return chosen, f"{fleet}: {why}" if chosen is forecasts[-1] else f"{fleet}: {why}, and {more}"
    if chosen is forecasts[-1]:
        return (
            chosen,
            f"{fleet}, the most that was asked for: the learner still waits {idle}; look at larger fleets too",
        )
    if config.staleness.target == 0:
        return chosen, (
            f"{fleet}: {more}, although the learner waits {idle}: with staleness.target = 0 it waits while a step's "
            f"{config.capacity} groups are sampled"
        )
    return chosen, (
        f"{fleet}: {more}, although the learner waits {idle}; it lacks groups to give them, not generators: "
        f"{config.capacity} may be outstanding"
    )


def _counted(generators: int) -> str:
    return f"{generators} generator{'s' if generators > 1 else ''}"


def remarks(config: RunConfig, pace: Pace, forecasts: Sequence[Forecast], chosen: Forecast, steps: int) -> list[str]:
    """What a person would want to know beside the figures."""
    found = []
    if any(f.dropped > 0 for f in forecasts) and pace.accepted == 1.0:
        found.append(
            f"in some fleets groups are older than staleness.max = {config.staleness.max} when due, and dropped"
        )
    if text := _better_shared(config, pace, forecasts, chosen, steps):
        found.append(text)
    return found


def _better_shared(
    config: RunConfig, pace: Pace, forecasts: Sequence[Forecast], chosen: Forecast, steps: int
) -> str | None:
    """Whoever asks first takes a step's groups, up to its slots. With fewer slots, several work on one step."""
    found: list[tuple[Forecast, int]] = []
    for generators in (f.generators for f in forecasts):
        shared = -(-config.learner.groups_per_step // generators)
        if shared < min(config.groups_in_flight, -(-config.capacity // generators)):
            generator = config.generator.model_copy(update={"groups_in_flight": shared})
            changed = config.model_copy(update={"generator": generator})
            found.append((forecast(changed, pace, generators, steps), shared))
    best = max((f.samples_per_s for f, _ in found), default=0.0)
    better, slots = next(((f, n) for f, n in found if f.samples_per_s >= ENOUGH * best), (chosen, 0))
    fewer = better.generators < chosen.generators and better.samples_per_s >= ENOUGH * chosen.samples_per_s
    if not fewer and better.samples_per_s < 1.1 * chosen.samples_per_s:
        return None
    fleet = _counted(better.generators)
    return (
        f"a step has {config.learner.groups_per_step} groups, and whoever asks first may take them all; with "
        f"--set generator.groups_in_flight={slots}, {fleet} would give "
        f"{better.samples_per_s:.3g} samples/s, and the learner wait {better.learner_idle:.0%} of its time"
    )
