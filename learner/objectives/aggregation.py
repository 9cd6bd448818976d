"""How token losses become the loss of a mini-batch: what one token's loss counts, by the sequence it belongs to.

Every mode is a weighted sum over tokens whose weights depend on lengths alone. They are computed once for the whole
mini-batch, so that neither micro-batches nor ranks change the gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def token_scales(
    lengths: Sequence[int] | np.ndarray, mode: str, constant: int = 1, micro: int | None = None
) -> np.ndarray:
    """[sequences] float64: the weight of each token of a sequence; 0 for sequences without tokens.

    Args:
        lengths: [sequences] of the whole mini-batch, in order; those with 0 tokens count nowhere.
        mode: `token-mean`: 1 / all tokens (DAPO, arXiv 2503.14476). `seq-mean-token-mean`: 1 / (sequences x its
            tokens) (GRPO, 2402.03300). `seq-mean-token-sum`: 1 / sequences. `dr-const`: 1 / (sequences x constant)
            (Dr. GRPO, 2503.20783).
        constant: for `dr-const`, the same during the whole run: the longest completion.
        micro: for `token-mean`, the mean is taken within each `micro` sequences that follow each other and then
            over these parts, which count the same; that is what verl does. None: one mean over all tokens.
    """
    n = np.asarray(lengths, dtype=np.float64)
    filled = n > 0
    count = max(int(filled.sum()), 1)
    if mode == "token-mean" and micro is not None:
        part = np.arange(len(n)) // micro
        tokens = np.bincount(part, weights=n)[part]
        parts = max(len(np.unique(part[filled])), 1)
        scales = 1.0 / (np.maximum(tokens, 1) * parts)
    elif mode == "token-mean":
        scales = np.full(len(n), 1.0 / max(n.sum(), 1.0))
    elif mode == "seq-mean-token-mean":
        scales = 1.0 / (count * np.maximum(n, 1))
    elif mode == "seq-mean-token-sum":
        scales = np.full(len(n), 1.0 / count)
    elif mode == "dr-const":
        scales = np.full(len(n), 1.0 / (count * constant))
    else:
        raise ValueError(f"aggregation {mode!r} is unknown")
    return np.where(filled, scales, 0.0)
