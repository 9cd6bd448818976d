"""How long a run takes: at most, by its recipe, and as expected, by its mean length and the speed of its cards.

One rate was measured: a learner at the shape of Qwen2.5-1.5B on one H100 (docs/results.md). It is scaled by parameters
and by the passes that the recipe asks for. No generator's rate was measured on such a model: one is assumed and called
so, until --generator-rate says what a card really does.
"""

from __future__ import annotations

from dataclasses import dataclass

from chorus.deploy.placement import Placement
from chorus.deploy.shapes import Model
from chorus.protocol.config.run import RunConfig

TOKENS_PER_SECOND = (1_000, 10_000, 50_000)  # for a run whose speed nobody has told
MEASURED_PARAMETERS = 1_543_714_304
MEASURED_LEARNER_RATE = 22_264.0  # tokens/s of one H100: forward and backward, padded rows, layers kept
_CHECKPOINTED = 13_169 / 16_285  # of that with each layer computed again, both with packed rows
_FORWARD_SHARE = 1 / 3  # of forward and backward, for each further pass
ASSUMED_GENERATOR_RATE = 10_000.0  # tokens/s of one card at MEASURED_PARAMETERS
# Of one generator, whatever its card: vLLM's own work beside the model, 77 to 107 us a token, fills a core of 2.1 GHz
# at this (docs/results.md, whole rounds at 0.7 M and 3 M parameters). A faster core does more: --generator-rate.
MOST_GENERATOR_RATE = 10_400.0
PROMPT_TOKENS = 200


@dataclass(frozen=True)
class Speed:
    """What the command line says: completion tokens on average, and tokens/s where they are known."""

    mean_tokens: float | None = None
    whole: float | None = None
    learner: float | None = None
    generator: float | None = None


@dataclass(frozen=True)
class Hours:
    """Each half by itself; `in_turn`: with staleness 0, or on one card, else side by side."""

    learner: float
    generators: float
    in_turn: bool

    @property
    def whole(self) -> float:
        return self.learner + self.generators if self.in_turn else max(self.learner, self.generators)


def completion_tokens(config: RunConfig, mean: float) -> float:
    return config.run.steps * config.learner.groups_per_step * config.largest_group * mean


def learner_rate(config: RunConfig, parameters: float) -> float:
    """Tokens/s of one rank, prompts included, as on the H100 that was measured."""
    o, passes = config.objective, 1.0
    passes += _FORWARD_SHARE * (o.proximal == "recompute" and config.learner.updates_per_step > 1)
    passes += _FORWARD_SHARE * o.needs_reference
    rate = MEASURED_LEARNER_RATE * MEASURED_PARAMETERS / parameters / passes
    return rate * (_CHECKPOINTED if config.learner.gradient_checkpointing else 1.0)


def generator_rate(parameters: float, tensor_parallel: int) -> float:
    """Tokens/s of one generator: assumed."""
    return min(MOST_GENERATOR_RATE, ASSUMED_GENERATOR_RATE * tensor_parallel * MEASURED_PARAMETERS / parameters)


def expected(config: RunConfig, model: Model, placement: Placement, speed: Speed) -> Hours | None:
    """None where no mean length is given, or the run is not on GPUs."""
    if speed.mean_tokens is None or not placement.learner_gpus:
        return None
    sampled = completion_tokens(config, speed.mean_tokens)
    trained = completion_tokens(config, speed.mean_tokens + PROMPT_TOKENS)
    trains = (speed.learner or learner_rate(config, model.count)) * placement.learner_ranks
    samples = speed.generator or generator_rate(model.count, len(placement.generator_gpus[0]))
    samples *= placement.replicas
    in_turn = config.staleness.target == 0 or placement.shares_gpus
    return Hours(trained / trains / 3600, sampled / samples / 3600, in_turn)


def told_time(config: RunConfig, model: Model | None, placement: Placement, speed: Speed) -> list[str]:
    """The lines of a dry run: at most, and as expected."""
    most = completion_tokens(config, config.sampling.max_tokens)
    rates = (speed.whole,) if speed.whole else TOKENS_PER_SECOND
    lines = [f"at most {_at(most, rates)}, if every completion is as long as it may be"]
    if speed.mean_tokens is None:
        return lines
    tokens = completion_tokens(config, speed.mean_tokens)
    mean = f"completions of {speed.mean_tokens:,g} tokens on average"
    hours = expected(config, model, placement, speed) if model is not None else None
    if speed.whole or hours is None or model is None:
        return [*lines, f"expected {_at(tokens, rates)}, with {mean}"]
    learner = "as given" if speed.learner else "as measured on an H100, scaled by size and passes"
    trains = speed.learner or learner_rate(config, model.count)
    samples = speed.generator or generator_rate(model.count, len(placement.generator_gpus[0]))
    full = "what fills a core of 2.1 GHz, whatever the card"
    sampler = f"{full if samples == MOST_GENERATOR_RATE else 'assumed, not measured'}: --generator-rate says better"
    sampler = "as given" if speed.generator else sampler
    how = "one after the other" if hours.in_turn else "side by side, the slower one counts"
    return [
        *lines,
        f"expected {duration(3600 * hours.whole)}, with {mean}, {how}; evaluations, syncs and checkpoints apart",
        f"  learner {duration(3600 * hours.learner)}: {placement.learner_ranks} x {trains:,.0f} tokens/s, prompts "
        f"of {PROMPT_TOKENS} included ({learner})",
        f"  generators {duration(3600 * hours.generators)}: {placement.replicas} x {samples:,.0f} tokens/s ({sampler})",
    ]


def _at(tokens: float, rates: tuple[float, ...]) -> str:
    return ", ".join(f"{duration(tokens / rate)} at {rate:,.0f} tokens/s" for rate in rates)


def duration(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else f"{seconds / 60:,.1f} min"
