"""Right and wrong verdicts on the labelled set: ours beside math-verify's, as documented and with golds boxed.

Bare math-verify is `verify(parse(gold), parse(completion))`. Most golds parse to nothing that way, so it is also
given each gold in \\boxed{}, which is the stronger peer and the one that the goals are held against. `paper` and
`strict` mode and the kinds without mathematics have no peer and are left out of the comparison.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import cast

from math_verify import parse, verify

from chorus.benchmarks.bench import Bench
from chorus.benchmarks.labelled import Pair, Score, load, score
from chorus.benchmarks.report import Row, at_least, at_most
from chorus.reward_server.graders.registry import run
from chorus.reward_server.graders.task import GradeResult, GradeTask, Mode

GOAL = at_least(0.99)


def ours(pair: Pair) -> bool:
    """Whether our grader accepts; in this process, without the service around it."""
    reply = run(GradeTask(pair.kind, pair.completion, pair.golds, cast(Mode, pair.mode), options=pair.options))
    return isinstance(reply, GradeResult) and reply.verdict == "correct"


def bare(pair: Pair) -> bool:
    """math-verify as its documentation uses it (default timeouts: main thread only)."""
    return any(verify(parse(gold), parse(pair.completion)) for gold in pair.golds)


def boxed(pair: Pair) -> bool:
    """math-verify, each gold in \\boxed{} unless it comes in dollars or a box."""
    return any(verify(parse(_boxed(gold)), parse(pair.completion)) for gold in pair.golds)


def comparable(pairs: list[Pair]) -> list[Pair]:
    """The pairs that both can be asked about."""
    return [pair for pair in pairs if pair.kind == "math" and pair.mode == "train"]


def measure(bench: Bench) -> Iterator[Row]:
    logging.disable(logging.CRITICAL)  # math-verify logs every text that it cannot parse
    pairs = load()
    if bench.quick:
        pairs = pairs[::10]
    yield _row("all pairs", score(pairs, ours), None)
    yield _row("held-out third", score([p for p in pairs if p.held_out], ours), None)
    both = comparable(pairs)
    mine, strong = score(both, ours), score(both, boxed)
    yield _row("math-verify, golds as they are", mine, score(both, bare))
    yield _row("math-verify, golds boxed", mine, strong)
    for name, attribute in (("false accepts", "false_accepts"), ("false rejects", "false_rejects")):
        here, there = ([float(len(getattr(s, attribute)))] for s in (mine, strong))
        note = f"of {len(both)} pairs"
        yield Row(f"verifier: {name} / math-verify's, golds boxed", "pairs", here, there, at_most(0.99), note)
    logging.disable(logging.NOTSET)


def _row(name: str, ours: Score, peer: Score | None) -> Row:
    note = f"{ours.pairs} pairs; {_faults(ours)}" + (f" against {_faults(peer)}" if peer else "")
    if peer is None:
        return Row(f"verifier: accuracy, {name}", "ratio", [ours.accuracy], goal=GOAL, note=note)
    return Row(f"verifier: accuracy / {name}", "ratio", [ours.accuracy], [peer.accuracy], note=note)


def _faults(score: Score) -> str:
    return f"{len(score.false_accepts)} false accepts, {len(score.false_rejects)} false rejects"


def _boxed(gold: str) -> str:
    return gold if "boxed" in gold or "$" in gold.replace("\\$", "") else f"\\boxed{{{gold}}}"
