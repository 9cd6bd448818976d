"""What a token's loss counts under each mode, on sequences of 2, 3, 0 and 1 tokens."""

from __future__ import annotations

import numpy as np
import pytest

from chorus.learner.objectives.aggregation import token_scales

LENGTHS = [2, 3, 0, 1]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("token-mean", [1 / 6, 1 / 6, 0, 1 / 6]),
        ("seq-mean-token-mean", [1 / 6, 1 / 9, 0, 1 / 3]),
        ("seq-mean-token-sum", [1 / 3, 1 / 3, 0, 1 / 3]),
        ("dr-const", [1 / 30, 1 / 30, 0, 1 / 30]),
    ],
)
def test_an_empty_sequence_counts_in_no_mode(mode: str, expected: list[float]) -> None:
    np.testing.assert_allclose(token_scales(LENGTHS, mode, constant=10), expected)


def test_the_micro_scope_averages_within_parts_that_count_the_same() -> None:
    # parts of 2: (2, 3) has 5 tokens, (0, 1) has one
    np.testing.assert_allclose(token_scales(LENGTHS, "token-mean", micro=2), [1 / 10, 1 / 10, 0, 1 / 2])
    # parts of 1: three that are not empty
    np.testing.assert_allclose(token_scales(LENGTHS, "token-mean", micro=1), [1 / 6, 1 / 9, 0, 1 / 3])
    np.testing.assert_allclose(token_scales(LENGTHS, "token-mean", micro=99), token_scales(LENGTHS, "token-mean"))


@pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "dr-const"])
@pytest.mark.parametrize("lengths", [[], [0, 0]])
def test_a_batch_without_tokens_weighs_nothing_and_is_no_nan(mode: str, lengths: list[int]) -> None:
    assert token_scales(lengths, mode, constant=10).tolist() == [0.0] * len(lengths)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="'mean' is unknown"):
        token_scales([1], "mean")
