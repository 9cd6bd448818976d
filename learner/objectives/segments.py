"""Sequences that lie end to end in one row of tokens. Everything here is constant: no gradient flows through it."""

from __future__ import annotations

import torch


def segment_mean(values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """[sequences]: the mean of each sequence's values. `values` [tokens], `lengths` [sequences], each at least 1."""
    return segment_sum(values, lengths) / lengths


def segment_sum(values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """[sequences]: the sum of each sequence's values, in the same order every time (no atomic adds)."""
    return torch.segment_reduce(values.detach(), "sum", lengths=lengths)


def over_tokens(values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """[tokens]: each sequence's value at all of its tokens."""
    return values.repeat_interleave(lengths)
