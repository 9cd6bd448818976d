"""Right and wrong verdicts on every labelled set that lies here: ours beside math-verify's, golds bare and boxed.

Bare math-verify is `verify(parse(gold), parse(completion))`. Most golds parse to nothing that way, so it is also
given each gold in \\boxed{}, which is the stronger peer and the one that the goals are held against: on no set may
either kind of fault be more frequent with us. `paper` and `strict` mode and the kinds without mathematics have no
peer and are left out of the comparison. The sets: tests/labelled, pairs derived from the golds of data sets, and cases
that others reported about their graders (the last two from the optional ../shared/data).
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from math_verify import parse, verify

from chorus.benchmarks.bench import Bench
from chorus.benchmarks.labelled import FOLDER, Pair, Score, load, score
from chorus.benchmarks.report import Row, at_least, at_most
from chorus.reward_server.graders.registry import run
from chorus.reward_server.graders.task import GradeResult, GradeTask, Mode

GOAL = at_least(0.99)
DATA = FOLDER.parents[2] / "shared" / "data"
CASES = DATA / "grading_cases.jsonl"
SUPPORT = FOLDER.parent / "support"


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


def reported(path: Path = CASES) -> list[Pair]:
    """The uncontested cases of mathematics in words that others reported; none where the file is absent."""
    if not path.is_file():
        return []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    # A case named "hang" or "large" is about time, and math-verify's own limit needs this process' main thread.
    rows = [
        row for row in rows if not row["contested"] and "completion" in row and row["topic"] not in ("hang", "large")
    ]
    return [
        Pair(
            row["topic"],
            row["completion"],
            tuple(row["gold"]) if isinstance(row["gold"], list) else (row["gold"],),
            row["expected"] == "correct",
            row["source"],
            row["kind"],
            row.get("mode", "train"),
            tuple(row.get("options") or ()),
        )
        for row in rows
        if row["kind"] in ("math", "choice", "text")
    ]


def derived() -> list[Pair]:
    """Pairs made from the golds of the optional data sets."""
    if not DATA.is_dir():
        return []
    sys.path.insert(0, str(SUPPORT))
    try:
        from derived import derive  # pyright: ignore[reportMissingImports]

        return derive(DATA, per_file=20)
    finally:
        sys.path.remove(str(SUPPORT))


def measure(bench: Bench) -> Iterator[Row]:
    logging.disable(logging.CRITICAL)  # math-verify logs every text that it cannot parse
    step = 10 if bench.quick else 1
    pairs = load()[::step]
    yield _row("all pairs", score(pairs, ours), None)
    yield _row("held-out third", score([p for p in pairs if p.held_out], ours), None)
    both = comparable(pairs)
    yield _row("math-verify, golds as they are", score(both, ours), score(both, bare))
    for name, some in (("tests/labelled", both), ("derived", derived()[::step]), ("reported", reported()[::step])):
        if some:
            yield from _against_peer(name, comparable(some))
    logging.disable(logging.NOTSET)


def _against_peer(name: str, pairs: list[Pair]) -> Iterator[Row]:
    """Both kinds of fault on one set, each held against the peer's count."""
    mine, strong = score(pairs, ours), score(pairs, boxed)
    yield _row(f"math-verify, golds boxed: {name}", mine, strong)
    for kind, attribute in (("false accepts", "false_accepts"), ("false rejects", "false_rejects")):
        here, there = (len(getattr(s, attribute)) for s in (mine, strong))
        note = f"{name}: {here} against {there}, of {len(pairs)} pairs"
        # One is added on both sides: a ratio of nothing to nothing is none.
        yield Row(
            f"verifier: {kind} + 1 / math-verify's, {name}", "pairs", [here + 1.0], [there + 1.0], at_most(1.0), note
        )


def _row(name: str, ours: Score, peer: Score | None) -> Row:
    note = f"{ours.pairs} pairs; {_faults(ours)}" + (f" against {_faults(peer)}" if peer else "")
    if peer is None:
        return Row(f"verifier: accuracy, {name}", "ratio", [ours.accuracy], goal=GOAL, note=note)
    return Row(f"verifier: accuracy / {name}", "ratio", [ours.accuracy], [peer.accuracy], note=note)


def _faults(score: Score) -> str:
    return f"{len(score.false_accepts)} false accepts, {len(score.false_rejects)} false rejects"


def _boxed(gold: str) -> str:
    return gold if "boxed" in gold or "$" in gold.replace("\\$", "") else f"\\boxed{{{gold}}}"
