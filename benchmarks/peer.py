"""The whole loop beside TRL's GRPO trainer (`make bench-peer`): the same model and prompts, on the same cores in turn.

    ours, TRL, ours, TRL, ...     32 prompts x 8 samples a step, natural lengths, 3 M parameters

TRL comes from an environment of its own (peer-requirements.txt). The last line is `loop / TRL: R (min .. max)`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chorus.benchmarks import machine, trl_side
from chorus.benchmarks.bench import WARM_UP_STEPS, Bench, say
from chorus.benchmarks.loop import GROUP_SIZE, GROUPS, run_once
from chorus.benchmarks.models import three_million
from chorus.benchmarks.report import Row, Spread, at_least, table
from chorus.benchmarks.runs import program_to_its_end
from chorus.learner.rollouts.admission import Admission

GOAL = at_least(1.5)
_AT_ONCE = 64  # sequences of a forward pass; what TRL was quickest with on two cores
_DEADLINE_S = 900.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chorus.benchmarks.peer", description=__doc__)
    add = parser.add_argument
    add("--python", type=Path, required=True, help="the interpreter of TRL's environment")
    add("--repeats", type=int, default=3, help="pairs (default: 3)")
    add("--steps", type=int, default=12, help="of each run, two of them a warm-up (default: 12)")
    add("--dir", type=Path, default=Path("runs"), help="where runs and caches lie (default: runs)")
    args = parser.parse_args()
    if args.repeats < 1 or args.steps <= WARM_UP_STEPS:
        parser.error(f"--repeats start at 1, --steps at {WARM_UP_STEPS + 1}")
    folder = args.dir / "bench" / time.strftime("peer-%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    bench = Bench(folder, args.dir / ".cache", args.repeats, args.steps, staleness=1, quick=False, say=say)
    bench.cache.mkdir(parents=True, exist_ok=True)
    about, row = machine.describe(), None
    for row in compare(bench, args.python):  # kept pair by pair: a later one may fail
        told = about | {"rows": [row.as_dict()]}
        (folder / "results.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    assert row
    assert row.ratio
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    print(table([row]))
    print(last_line(row.ratio))
    return os.EX_OK


def compare(bench: Bench, python: Path) -> Iterator[Row]:
    """Ours and TRL in turn, ours first, each on the whole machine; after every pair all so far."""
    model = three_million(bench)
    prompts = bench.folder / "prompts.jsonl"
    _write_prompts(bench, model, prompts)
    ours: list[float] = []
    theirs: list[Theirs] = []
    lengths: list[float] = []
    for k in range(bench.repeats):
        # Threads of our processes must not spin while they wait; TRL's are as it wants them (below).
        os.environ["OMP_WAIT_POLICY"] = "passive"
        rate, tokens = run_once(bench, f"loop-{k + 1}", model)
        ours.append(rate)
        lengths.append(tokens)
        theirs.append(_run_trl(bench, python, f"trl-{k + 1}", model, prompts))
        bench.say(f"{ours[-1]:.1f} samples/s, TRL {theirs[-1].samples_per_s:.1f}")
        yield _row(ours, theirs, lengths)


def _row(ours: list[float], theirs: list[Theirs], lengths: list[float]) -> Row:
    note = f"{GROUPS} x {GROUP_SIZE}, {sum(lengths) / len(lengths):.1f} tokens a completion; TRL {theirs[0].trl}: "
    note += f"{theirs[0].tokens:.1f} tokens, {theirs[0].generating:.0%} of its time generating"
    return Row("loop / TRL", "samples/s", ours, [each.samples_per_s for each in theirs], GOAL, note)


def _write_prompts(bench: Bench, model: Path, path: Path) -> None:
    """As text what our generators get as token ids. Raises ValueError where it would not be the same ids again."""
    admission = Admission(bench.config(f"model.path={model}"), "bench")
    rows = []
    for k in range(GROUPS * bench.steps):
        _, prompted = admission.at(k)
        text = admission.tokenizer.decode(prompted.ids, skip_special_tokens=False)
        if admission.tokenizer.encode(text, add_special_tokens=False) != prompted.ids:
            raise ValueError(f"prompt {k} is not the same token ids again: {text!r}")
        rows.append(json.dumps({"prompt": text, "answer": prompted.problem.answers[0]}) + "\n")
    path.write_text("".join(rows), encoding="utf-8")


@dataclass(frozen=True)
class Theirs:
    """What a run of TRL came to. tokens: a completion; generating: share of the time."""

    samples_per_s: float
    steps: int
    tokens: float
    generating: float
    trl: str
    torch: str


def _run_trl(bench: Bench, python: Path, name: str, model: Path, prompts: Path) -> Theirs:
    config = bench.config()
    asked = {
        "model": str(model.absolute()),
        "prompts": str(prompts.absolute()),
        "output_dir": str((bench.folder / name).absolute()),
        "groups": GROUPS,
        "group_size": GROUP_SIZE,
        "at_once": _AT_ONCE,
        "max_tokens": config.sampling.max_tokens,
        "temperature": config.sampling.temperature,
        "learning_rate": config.learner.lr,
        "seed": config.run.seed,
        "warm_up": WARM_UP_STEPS,
        "steps": bench.steps - WARM_UP_STEPS,
    }
    log = bench.folder / f"{name}.log"
    bench.say(f"TRL, {name}")
    offline = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"), "1") | {"TOKENIZERS_PARALLELISM": "false"}
    env = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "PYTHONPATH")} | offline
    # -P: the modules beside that program are ours, and some have names that others want.
    argv = [str(python), "-P", trl_side.__file__, json.dumps(asked)]
    program_to_its_end(name, log, argv, _DEADLINE_S, env)
    return read_result(log.read_text(encoding="utf-8", errors="replace"))


def read_result(log: str) -> Theirs:
    """From all that the far side has said. Raises RuntimeError where no result is among it, or none of this kind."""
    found = [line for line in log.splitlines() if line.startswith(trl_side.RESULT)]
    if not found:
        raise RuntimeError(f"TRL has ended without a result; the end of what it said: {log[-300:]!r}")
    fields: dict[str, Any] = json.loads(found[-1].removeprefix(trl_side.RESULT))
    try:
        theirs = Theirs(**fields)
    except TypeError as error:
        raise RuntimeError(f"TRL's side gave another result than was asked for: {error}") from None
    if not theirs.steps or not theirs.samples_per_s > 0:
        raise RuntimeError(f"TRL's side measured no step: {fields}")
    return theirs


def last_line(ratio: Spread) -> str:
    """What a script reads."""
    return f"loop / TRL: {ratio.median:.2f} ({ratio.low:.2f} .. {ratio.high:.2f})"


if __name__ == "__main__":
    sys.exit(main())
