"""From rollout groups to micro-batches of tensors.

Two layouts of the same tokens. `padded`: sequences sorted by length, right-padded, no attention mask (a
causal model's real tokens never see what stands to their right). `packed`: sequences end to end in one row with
restarting positions, which attention has to mask. Measured, padded is the faster one (docs/adr/0006).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class TrainingSequence:
    """One sample, ready to train on.

    behaviour [completion tokens]: the engine's log-probabilities; advantage: of the sample, or [completion tokens];
    age [completion tokens], or one for all: steps between the weights that sampled a token and the step's first ones.
    """

    prompt: np.ndarray
    completion: np.ndarray
    behaviour: np.ndarray
    advantage: float | np.ndarray
    age: int | np.ndarray = 0

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.completion)


@dataclass(frozen=True)
class MicroBatch:
    """One forward pass. `n` is the number of completion tokens in it.

    input_ids [rows, width]; position_ids [rows, width] or None (0, 1, 2, ...); index [n]: flat positions
    whose next token is predicted; target [n], behaviour [n], advantage [n], age [n]; lengths [sequences]:
    completion tokens of each; origin: which sequences, and where each one's tokens lie among the n.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor | None
    index: torch.Tensor
    target: torch.Tensor
    behaviour: torch.Tensor
    advantage: torch.Tensor
    age: torch.Tensor
    lengths: torch.Tensor
    origin: list[tuple[int, slice]]

    def to(self, device: torch.device) -> MicroBatch:
        return MicroBatch(
            input_ids=self.input_ids.to(device),
            position_ids=self.position_ids.to(device) if self.position_ids is not None else None,
            index=self.index.to(device),
            target=self.target.to(device),
            behaviour=self.behaviour.to(device),
            advantage=self.advantage.to(device),
            age=self.age.to(device),
            lengths=self.lengths.to(device),
            origin=self.origin,
        )


def cut(sequences: Sequence[TrainingSequence], token_budget: int, layout: str) -> list[MicroBatch]:
    """Cut into micro-batches of at most `token_budget` tokens, padding included (at least one sequence each).

    Sequences without completion tokens have nothing to train on and are left out.
    """
    order = sorted((i for i, s in enumerate(sequences) if len(s.completion)), key=lambda i: (-sequences[i].length, i))
    batches: list[MicroBatch] = []
    members: list[int] = []
    cost = 0
    for i in order:
        length = sequences[i].length
        # padded rows are as wide as the first (longest) one; a packed row just grows
        grown = cost + length if layout == "packed" else sequences[(members or [i])[0]].length * (len(members) + 1)
        if members and grown > token_budget:
            batches.append(_tensors(sequences, members, layout))
            members, grown = [], length
        members.append(i)
        cost = grown
    if members:
        batches.append(_tensors(sequences, members, layout))
    return batches


def _tensors(sequences: Sequence[TrainingSequence], members: list[int], layout: str) -> MicroBatch:
    lengths = [sequences[i].length for i in members]
    packed = layout == "packed"
    rows, width = (1, sum(lengths)) if packed else (len(members), max(lengths))
    ids = np.zeros((rows, width), dtype=np.int64)
    positions = np.zeros((rows, width), dtype=np.int64) if packed else None
    index, origin = [], []
    start = n = 0
    for row, i in enumerate(members):
        s = sequences[i]
        begin = start if packed else row * width
        flat = ids.reshape(-1)
        flat[begin : begin + len(s.prompt)] = s.prompt
        flat[begin + len(s.prompt) : begin + s.length] = s.completion
        if positions is not None:
            positions[0, begin : begin + s.length] = np.arange(s.length)
        first = begin + len(s.prompt) - 1
        index.append(np.arange(first, first + len(s.completion)))
        origin.append((i, slice(n, n + len(s.completion))))
        n += len(s.completion)
        start += s.length
    chosen = [sequences[i] for i in members]
    return MicroBatch(
        input_ids=torch.from_numpy(ids),
        position_ids=torch.from_numpy(positions) if positions is not None else None,
        index=torch.from_numpy(np.concatenate(index)),
        target=torch.from_numpy(np.concatenate([s.completion for s in chosen]).astype(np.int64)),
        behaviour=torch.from_numpy(np.concatenate([s.behaviour for s in chosen]).astype(np.float32)),
        advantage=torch.from_numpy(_per_token([s.advantage for s in chosen], chosen).astype(np.float32)),
        age=torch.from_numpy(_per_token([s.age for s in chosen], chosen).astype(np.int64)),
        lengths=torch.tensor([len(s.completion) for s in chosen]),
        origin=origin,
    )


def _per_token(values: Sequence[float | np.ndarray], sequences: Sequence[TrainingSequence]) -> np.ndarray:
    return np.concatenate([np.broadcast_to(v, len(s.completion)) for v, s in zip(values, sequences, strict=True)])
