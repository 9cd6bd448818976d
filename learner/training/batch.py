"""From rollout groups to micro-batches of tensors.

Sequences are sorted by length and right-padded, without an attention mask: a causal model's real tokens never see what
stands to their right. Rows packed end to end were slower, on CPU and GPU (docs/adr/0006).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class TrainingSequence:
    """One sample, ready to train on.

    behaviour [completion tokens]: the engine's log-probabilities; advantage: of the sample, or [completion tokens];
    age [completion tokens], or one for all: steps between the weights that sampled a token and the step's first ones.
    temperature: that the sample was drawn at; None, for all of a step: the run's.
    """

    prompt: np.ndarray
    completion: np.ndarray
    behaviour: np.ndarray
    advantage: float | np.ndarray
    age: int | np.ndarray = 0
    temperature: float | None = None

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.completion)


@dataclass(frozen=True)
class MicroBatch:
    """One forward pass. `n` is the number of completion tokens in it.

    input_ids [rows, width]; index [n]: flat positions whose next token is predicted; target [n], behaviour [n],
    advantage [n], age [n]; temperature [n], or None: the run's; lengths [sequences]: completion tokens of each; origin:
    which sequences, and where each one's tokens lie among the n.
    """

    input_ids: torch.Tensor
    index: torch.Tensor
    target: torch.Tensor
    behaviour: torch.Tensor
    advantage: torch.Tensor
    age: torch.Tensor
    temperature: torch.Tensor | None
    lengths: torch.Tensor
    origin: list[tuple[int, slice]]

    def to(self, device: torch.device) -> MicroBatch:
        return MicroBatch(
            input_ids=self.input_ids.to(device),
            index=self.index.to(device),
            target=self.target.to(device),
            behaviour=self.behaviour.to(device),
            advantage=self.advantage.to(device),
            age=self.age.to(device),
            temperature=None if self.temperature is None else self.temperature.to(device),
            lengths=self.lengths.to(device),
            origin=self.origin,
        )


def cut(sequences: Sequence[TrainingSequence], token_budget: int) -> list[MicroBatch]:
    """All micro-batches at once."""
    return [filled(sequences, members) for members in planned(sequences, token_budget)]


def planned(sequences: Sequence[TrainingSequence], token_budget: int) -> list[list[int]]:
    """Which sequences make each micro-batch of at most `token_budget` tokens, padding included (at least one sequence
    each).

    Sequences without completion tokens have nothing to train on and are left out.
    """
    order = sorted((i for i, s in enumerate(sequences) if len(s.completion)), key=lambda i: (-sequences[i].length, i))
    batches: list[list[int]] = []
    members: list[int] = []
    for i in order:
        # Rows are as wide as the first, the longest one.
        if members and sequences[members[0]].length * (len(members) + 1) > token_budget:
            batches.append(members)
            members = []
        members.append(i)
    return [*batches, members] if members else batches


def one_ahead(
    sequences: Sequence[TrainingSequence], plans: Sequence[list[int]], device: torch.device
) -> Iterator[MicroBatch]:
    """The micro-batches of these plans in turn; a thread fills the next one while one is at work."""
    with ThreadPoolExecutor(1, "micro-batches") as thread:
        coming: Future[MicroBatch] | None = None
        for members in (*plans, None):
            ready, coming = coming, thread.submit(filled, sequences, members) if members else None
            if ready is not None:
                yield ready.result().to(device)


def filled(sequences: Sequence[TrainingSequence], members: list[int]) -> MicroBatch:
    """Each array is made once and filled: a step's tokens are millions."""
    chosen = [sequences[i] for i in members]
    width, n = max(s.length for s in chosen), sum(len(s.completion) for s in chosen)
    ids = np.zeros((len(members), width), dtype=np.int64)
    index, target, age = (np.empty(n, dtype=np.int64) for _ in range(3))
    behaviour, advantage = (np.empty(n, dtype=np.float32) for _ in range(2))
    origin, end = [], 0
    for row, (i, s) in enumerate(zip(members, chosen, strict=True)):
        where, first = slice(end, end := end + len(s.completion)), len(s.prompt)
        ids[row, :first] = s.prompt
        ids[row, first : s.length] = s.completion
        index[where] = np.arange(row * width + first - 1, row * width + s.length - 1)
        target[where], behaviour[where] = s.completion, s.behaviour
        advantage[where], age[where] = s.advantage, s.age
        origin.append((i, where))
    return MicroBatch(
        input_ids=torch.from_numpy(ids),
        index=torch.from_numpy(index),
        target=torch.from_numpy(target),
        behaviour=torch.from_numpy(behaviour),
        advantage=torch.from_numpy(advantage),
        age=torch.from_numpy(age),
        temperature=_temperature(chosen),
        lengths=torch.tensor([len(s.completion) for s in chosen]),
        origin=origin,
    )


def _temperature(sequences: Sequence[TrainingSequence]) -> torch.Tensor | None:
    known = [s.temperature for s in sequences if s.temperature is not None]
    return torch.from_numpy(_per_token(known, sequences).astype(np.float32)) if known else None


def _per_token(values: Sequence[float | np.ndarray], sequences: Sequence[TrainingSequence]) -> np.ndarray:
    return np.concatenate([np.broadcast_to(v, len(s.completion)) for v, s in zip(values, sequences, strict=True)])
