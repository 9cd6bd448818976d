"""What a learner keeps between two micro-batches, counted from the shapes of what trains.

weights      learner.master's width     of adapters; the model's own weights beside them in model.dtype
gradients    the same width             of what trains
moments      8 bytes a parameter        or codes of 8 bits (protocol/config/update.py), on the card or on the host
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chorus.deploy.shapes import Model, Shape
from chorus.protocol.config.run import RunConfig

_WIDTH = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class State:
    """Bytes, over all ranks. `moments` lie on the host where `offloaded`; a checkpoint has what is `stored` of them,
    which is copied first, and its `export`."""

    weights: float
    gradients: float
    moments: float
    offloaded: bool
    stored: float
    export: float

    @property
    def on_cards(self) -> float:
        return self.weights + self.gradients + (0.0 if self.offloaded else self.moments)

    @property
    def checkpoint(self) -> float:
        return self.stored + self.export

    @property
    def on_hosts(self) -> float:
        return self.moments if self.offloaded else 0.0


def state_of(config: RunConfig, model: Model) -> State:
    c, lora = config.learner, config.model.lora
    matrices = shapes_of(model.shape) if model.shape else {}
    kept = _WIDTH[config.model.dtype if lora else c.master]
    if lora:
        chosen = None if lora.targets == "all-linear" else set(lora.targets)
        targets = {name: s for name, s in matrices.items() if name not in _ROOT and (chosen is None or name in chosen)}
        trained = [
            (times, part) for times, (out, into) in targets.values() for part in ((lora.rank, into), (out, lora.rank))
        ]
        beside, other = model.count * kept, 0.0
    else:
        trained = [*matrices.values()]
        # Norms and biases; all, where no shape is known.
        beside, other = 0.0, model.count - _values(trained)
    count, width = _values(trained) + other, _WIDTH[c.master]
    moments = sum(times * c.moment_bytes(shape) for times, shape in trained)
    moments += (8.0 if matrices else _unknown_moments(config)) * other
    moments *= 2 if config.relift.enabled else 1  # its updates have an optimizer of their own
    stored = count * width + moments
    return State(beside + count * width, count * width, moments, c.moments_on_host, stored, model.count * kept)


def _values(shapes: Iterable[tuple[int, Sequence[int]]]) -> int:
    """Of so many tensors of each shape."""
    return sum(times * math.prod(shape) for times, shape in shapes)


def reference_bytes(config: RunConfig, model: Model) -> float:
    """The reference policy's, over all ranks; beside an adapter it is the policy with the adapter switched off."""
    needed = config.objective.needs_reference and config.model.lora is None
    return model.count * _WIDTH[config.learner.master] if needed else 0.0


def _unknown_moments(config: RunConfig) -> float:
    """Bytes a parameter of a model of which only the number of parameters is known: as if all were large matrices."""
    return config.learner.moment_bytes((4096, 4096)) / 4096**2


_ROOT = ("embed_tokens", "lm_head")


def shapes_of(shape: Shape) -> dict[str, tuple[int, tuple[int, int]]]:
    """A decoder's matrices: how many, and each one's shape."""
    s, layers = shape, shape.layers
    query = s.heads * s.head_dim
    matrices = {
        "q_proj": (layers, (query, s.hidden)),
        "k_proj": (layers, (s.kv_width, s.hidden)),
        "v_proj": (layers, (s.kv_width, s.hidden)),
        "o_proj": (layers, (s.hidden, query)),
        "gate_proj": (layers, (s.intermediate, s.hidden)),
        "up_proj": (layers, (s.intermediate, s.hidden)),
        "down_proj": (layers, (s.hidden, s.intermediate)),
        "embed_tokens": (1, (s.vocabulary, s.hidden)),
    }
    return matrices if s.tied else {**matrices, "lm_head": (1, (s.vocabulary, s.hidden))}
