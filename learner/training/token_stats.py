"""What one training step measured on its tokens: sums by sequence and by age, the same on all ranks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.distributed as dist

from chorus.learner.objectives.objective import TOKEN_STATS
from chorus.learner.training.batch import MicroBatch
from chorus.protocol.metrics import step

KEPT = ("entropy", "ratio")  # of every token, where they are asked for
AGES = len(step.AGES)  # staleness buckets
_COLUMNS = 1 + len(TOKEN_STATS)  # tokens, then each statistic's sum over them
_LOG_W_BIN = 0.02
_LOG_W_MAX = 5.0
_BINS = 2 * round(_LOG_W_MAX / _LOG_W_BIN)


@dataclass
class TokenSums:
    """A row: its tokens, the sum of each statistic over them, and the least and the largest of their weights w.

    table [rows, 1 + stats], w_low, w_high [rows], float64; a row without tokens has w_low > w_high.
    """

    table: np.ndarray
    w_low: np.ndarray
    w_high: np.ndarray

    @classmethod
    def empty(cls, rows: int) -> TokenSums:
        return cls(np.zeros((rows, _COLUMNS)), np.full(rows, np.inf), np.zeros(rows))

    def add(self, rows: Sequence[int] | np.ndarray, stats: np.ndarray, starts: Sequence[int] | np.ndarray) -> None:
        """stats [stats, tokens]: those from starts[k] to starts[k + 1] belong to rows[k]; no row comes twice."""
        w = stats[TOKEN_STATS.index("w")]
        self.table[rows, 0] += np.diff([*starts, stats.shape[1]])
        self.table[rows, 1:] += np.add.reduceat(stats, starts, axis=1).T
        self.w_low[rows] = np.minimum(self.w_low[rows], np.minimum.reduceat(w, starts))
        self.w_high[rows] = np.maximum(self.w_high[rows], np.maximum.reduceat(w, starts))

    def tokens(self, rows: Iterable[int] | slice = slice(None)) -> int:
        return int(self._chosen(rows)[:, 0].sum())

    def mean(self, name: str, rows: Iterable[int] | slice = slice(None)) -> float | None:
        """The mean over the tokens of the rows; None where they have none."""
        chosen = self._chosen(rows).sum(0)
        return float(chosen[1 + TOKEN_STATS.index(name)] / chosen[0]) if chosen[0] else None

    def effective(self, rows: Iterable[int] | slice = slice(None)) -> float | None:
        """ESS / N of the importance weights: (sum w)^2 / (N sum w^2), 1 where all are the same."""
        w, squared = self.mean("w", rows), self.mean("w_squared", rows)
        return w * w / squared if w is not None and squared else None

    def w_range(self, rows: Iterable[int] | slice = slice(None)) -> tuple[float, float] | tuple[None, None]:
        """(least, largest) weight of the rows' tokens."""
        which = rows if isinstance(rows, slice) else list(rows)
        low, high = self.w_low[which].min(initial=np.inf), self.w_high[which].max(initial=0.0)
        return (float(low), float(high)) if low <= high else (None, None)

    def _chosen(self, rows: Iterable[int] | slice) -> np.ndarray:
        return self.table[rows if isinstance(rows, slice) else list(rows)]


@dataclass
class StepStats:
    """One step on all ranks. Rows of `by_sequence` are the step's sequences in order, of `by_age` the buckets.

    lengths: tokens of every sequence, where `by_token` shall keep KEPT of each of them; a rank's own are nonzero.
    """

    sequences: int
    loss: float = 0.0
    lr: float = 0.0  # of the last update
    grad_norms: list[float] = field(default_factory=list)
    skipped_updates: int = 0  # a gradient that was no finite number, or nothing to train on
    ratio_off_max: float = 0.0  # first update: max |current / behaviour - 1|
    lengths: Sequence[int] = ()
    mfu: float | None = None

    def __post_init__(self) -> None:
        self.by_sequence = TokenSums.empty(self.sequences)
        self.by_age = TokenSums.empty(AGES)
        self._log_w = np.zeros((AGES, _BINS))
        self._starts = np.cumsum([0, *self.lengths])
        self._kept = np.zeros((len(KEPT), int(self._starts[-1])))

    def by_token(self, name: str) -> list[np.ndarray] | None:
        """[tokens] float32 of every sequence; None where they are not kept."""
        if not self.lengths:
            return None
        return np.split(self._kept[KEPT.index(name)].astype("<f4"), self._starts[1:-1])

    @property
    def tokens(self) -> int:
        return self.by_sequence.tokens()

    def mean(self, name: str) -> float:
        return self.by_sequence.mean(name) or 0.0

    def count(self, b: MicroBatch, values: torch.Tensor, offset: int) -> None:
        """Add a micro-batch; values [stats, tokens]; its sequences' rows begin at `offset`."""
        table = values.cpu().numpy().astype(np.float64)
        self.by_sequence.add([offset + i for i, _ in b.origin], table, [where.start for _, where in b.origin])
        age = np.minimum(b.age.cpu().numpy(), AGES - 1)
        order = np.argsort(age, kind="stable")
        ages, starts = np.unique(age[order], return_index=True)
        self.by_age.add(ages, table[:, order], starts)
        at = age * _BINS + _log_w_bin(table[TOKEN_STATS.index("w")])
        self._log_w += np.bincount(at, minlength=AGES * _BINS).reshape(AGES, _BINS)
        for i, where in b.origin if self.lengths else ():
            start, end = self._starts[offset + i : offset + i + 2]
            self._kept[:, start:end] = table[[TOKEN_STATS.index(name) for name in KEPT], where]
        if offset == 0:
            off = np.abs(table[TOKEN_STATS.index("ratio")] - 1).max()
            self.ratio_off_max = max(self.ratio_off_max, float(off))

    def w_quantile(self, share: float, ages: Iterable[int] | slice = slice(None)) -> float | None:
        """The weight that `share` of the tokens of these ages do not exceed, to 2 % (bins of 0.02 in log w)."""
        counted = self._log_w[ages if isinstance(ages, slice) else list(ages)].sum(0).cumsum()
        if not counted[-1]:
            return None
        k = int(np.searchsorted(counted, share * counted[-1]))
        return float(np.exp(-_LOG_W_MAX + (k + 1) * _LOG_W_BIN))

    def reduce(self, device: torch.device) -> None:
        """Sum over ranks, so that every rank reports the same."""
        parts = [self.by_sequence.table, self.by_age.table, self._log_w, np.array([self.loss]), self._kept]
        total = torch.from_numpy(np.concatenate([part.ravel() for part in parts])).to(device)
        dist.all_reduce(total)
        at = 0
        for part in parts:
            part[...] = total[at : at + part.size].cpu().numpy().reshape(part.shape)
            at += part.size
        self.loss = float(parts[-2][0])
        ranges = [self.by_sequence.w_high, self.by_age.w_high, -self.by_sequence.w_low, -self.by_age.w_low]
        largest = torch.from_numpy(np.concatenate([*ranges, [self.ratio_off_max]])).to(device)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        *highs, self.ratio_off_max = largest.tolist()
        n = self.sequences
        high, low = np.split(np.array(highs), 2)
        self.by_sequence.w_high, self.by_age.w_high = high[:n], high[n:]
        self.by_sequence.w_low, self.by_age.w_low = -low[:n], -low[n:]


def _log_w_bin(w: np.ndarray) -> np.ndarray:
    """[tokens]: which bin of log w each falls into; what lies beyond the ends falls into the last."""
    bins = np.floor((np.log(np.maximum(w, 1e-30)) + _LOG_W_MAX) / _LOG_W_BIN)
    return bins.clip(0, _BINS - 1).astype(np.int64)
