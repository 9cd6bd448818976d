"""Blends: exact shares a batch, the same whoever asks, and nothing skipped within a domain."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chorus.learner.curriculum.sampler import Blend

WEIGHTS = st.dictionaries(
    st.sampled_from("abcdefg"), st.floats(min_value=0, max_value=10, width=32), min_size=1, max_size=7
).filter(lambda weights: sum(weights.values()) > 0.1)


def batches(blend: Blend, size: int, count: int) -> list[Counter[str]]:
    return [Counter(blend.at(b * size + k)[0] for k in range(size)) for b in range(count)]


def test_two_to_one_in_batches_of_twelve_is_eight_and_four_in_every_batch() -> None:
    assert batches(Blend("s", {"general": 2, "math": 1}, 12), 12, 50) == [Counter(general=8, math=4)] * 50


@settings(max_examples=60, deadline=None)
@given(WEIGHTS, st.integers(1, 40))
def test_every_batch_tracks_the_weights_within_one_item(weights: dict[str, float], size: int) -> None:
    total = sum(weights.values())
    for batch in batches(Blend("s", weights, size), size, 8):
        for name, weight in weights.items():
            assert abs(batch[name] - size * weight / total) < 1 + 1e-9
            assert weight or not batch[name]


def test_what_rounding_takes_from_one_batch_it_gives_to_another() -> None:
    drawn = sum(batches(Blend("s", {"a": 0.9, "b": 0.07, "c": 0.03}, 8), 8, 500), Counter())
    assert drawn["a"] == pytest.approx(3600, abs=3)
    assert drawn["b"] == pytest.approx(280, abs=3)
    assert drawn["c"] == pytest.approx(120, abs=3)


def test_draws_of_a_domain_are_counted_on_without_a_gap() -> None:
    blend = Blend("s", {"a": 3, "b": 2}, 7)
    seen: dict[str, list[int]] = {"a": [], "b": []}
    for n in range(100):
        assert blend.drawn(n) == Counter({name: len(places) for name, places in seen.items() if places})
        domain, nth = blend.at(n)
        seen[domain].append(nth)
    assert all(places == list(range(len(places))) for places in seen.values())


def test_a_resumed_run_draws_the_same_from_the_middle_on_and_another_seed_others() -> None:
    weights = {"a": 1.0, "b": 1.0}
    whole = [Blend("s", weights, 10).at(n) for n in range(200)]
    late = Blend("s", weights, 10)
    assert [late.at(n) for n in range(150, 200)] == whole[150:]
    assert [Blend("t", weights, 10).at(n) for n in range(200)] != whole


def test_without_stratification_the_shares_hold_on_average_only() -> None:
    found = batches(Blend("s", {"a": 2, "b": 1}, 12, stratified=False), 12, 300)
    assert len({batch["a"] for batch in found}) > 3
    assert sum(batch["a"] for batch in found) / 3600 == pytest.approx(2 / 3, abs=0.03)
