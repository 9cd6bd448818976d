"""The verifier on the labelled set: right where a mathematician is, and better than math-verify alone."""

import logging

import pytest
from derived import FOLDER, derive

from chorus.benchmarks.labelled import load, score
from chorus.benchmarks.verifier_quality import boxed, comparable, ours

PAIRS = load()


def test_the_set_is_large_has_both_labels_and_a_reason_for_each():
    assert len(PAIRS) >= 400
    assert min(sum(pair.right for pair in PAIRS), sum(not pair.right for pair in PAIRS)) >= 150
    assert all(pair.reason for pair in PAIRS)
    assert len({(p.kind, p.mode, p.completion, p.golds) for p in PAIRS}) == len(PAIRS)
    assert 0.25 < sum(pair.held_out for pair in PAIRS) / len(PAIRS) < 0.42


@pytest.mark.parametrize("held_out", [False, True], ids=["worked on", "held out"])
def test_ninety_nine_of_a_hundred_verdicts_are_the_labels(held_out):
    result = score([pair for pair in PAIRS if pair.held_out is held_out], ours)
    assert result.accuracy >= 0.99, [*result.false_accepts, *result.false_rejects]


def test_fewer_false_accepts_and_fewer_false_rejects_than_math_verify_with_boxed_golds():
    pairs = comparable(PAIRS)
    logging.disable(logging.CRITICAL)
    try:
        peer = score(pairs, boxed)
    finally:
        logging.disable(logging.NOTSET)
    mine = score(pairs, ours)
    assert len(mine.false_accepts) < len(peer.false_accepts)
    assert len(mine.false_rejects) < len(peer.false_rejects)


def test_pairs_derived_from_the_golds_of_data_sets_are_judged_by_their_construction():
    if not FOLDER.is_dir():
        pytest.skip("the optional data sets are not there (a folder shared/data beside this project)")
    result = score(derive(), ours)
    assert result.pairs >= 1000
    assert result.accuracy >= 0.99, [*result.false_accepts, *result.false_rejects]
