"""What one GPU that is lent for a quarter of an hour can show: `make gpu-short`. The installation is not in the time.

Part by part, what has been seen least first. Each has a limit of its own and is ended with all its processes when that
is over; what no time is left for is not started. The table at the end says of each whether it passed, and how long it
took; whatever a part printed lies in runs/gpu-short/. Exit status 0: all have passed.

    python tests/gpu/short.py --minutes 12
    python tests/gpu/short.py --list        needs no GPU: each part's tests are found, each command knows its options
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOGS = ROOT / "runs" / "gpu-short"
LEAST_S = 25.0  # with less, no part is begun
GRACE_S = 5.0
DRY_S = 300.0  # of one part, without a GPU, on a machine that may be busy
CHORUS = ("-m", "chorus.cli.main")
BENCHMARKS = ("-m", "chorus.benchmarks")
PYTEST = ("-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider")
LOOP, EVAL, LEARNER = (
    "tests/integration/test_gpu.py",
    "tests/integration/test_vllm.py",
    "tests/unit/learner/test_gpu.py",
)


@dataclass(frozen=True)
class Part:
    """dry: the same without a GPU and in seconds."""

    name: str
    limit_s: float
    shows: str
    command: tuple[str, ...]
    dry: tuple[str, ...]


def test(name: str, limit_s: float, shows: str, file: str, only: str) -> Part:
    command = (*PYTEST, file, "-k", only)
    return Part(name, limit_s, shows, command, (*command, "--collect-only"))


PARTS = (
    Part("check", 120, "packages, driver, device; five steps", (*CHORUS, "check"), (*CHORUS, "check", "--help")),
    test("learner", 90, "a step's gradient is the CPU's; snapshots, checkpointed layers", LEARNER, "test"),
    test("experts", 90, "five steps of qwen3_moe in bfloat16", LOOP, "train_in_bfloat16 and qwen3_moe"),
    test("capped", 90, "five steps of gemma2, soft caps, in bfloat16", LOOP, "train_in_bfloat16 and gemma2"),
    test("adapters", 90, "five steps of LoRA in bfloat16", LOOP, "adapters_train"),
    test("eval", 100, "chorus eval answers as transformers does, after syncs too", EVAL, "answer_greedily"),
    Part(
        "benchmark",
        150,
        "a step at 1.5 billion parameters: tokens/s, memory",
        (*BENCHMARKS, "--only", "gpu", "--repeats", "1"),
        (*BENCHMARKS, "--only", "gpu", "--repeats", "1", "--quick"),
    ),
    test("float32", 90, "learner and generator share the device in float32", LOOP, "share_one_gpu and float32"),
    test("bfloat16", 90, "the same in bfloat16", LOOP, "share_one_gpu and bfloat16"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=12.0, help="for all parts together")
    parser.add_argument("--only", default="", help="these parts, with / between")
    parser.add_argument("--list", action="store_true", help="try that each part would start")
    asked = parser.parse_args()
    parts = [part for part in PARTS if not asked.only or part.name in asked.only.split("/")]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through `finally`, which ends what was begun
    LOGS.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + (60 * asked.minutes if not asked.list else len(parts) * DRY_S)
    rows = []
    for part in parts:
        command = part.dry if asked.list else part.command
        row = one(part, command, end, asked.list)
        print(row, flush=True)
        rows.append(row)
    passed = sum(row.split("|")[2].strip() == "passed" for row in rows)
    print("\n| part | | seconds | shows |\n| --- | --- | --- | --- |")
    print("\n".join(rows))
    print(f"{passed} of {len(rows)} passed{', without a GPU: none was run' if asked.list else ''}; logs in {LOGS}")
    return int(passed < len(rows))


def one(part: Part, command: tuple[str, ...], end: float, dry: bool) -> str:
    """Its row of the table."""
    began = time.monotonic()
    left = end - began
    if left < LEAST_S:
        return f"| {part.name} | not begun: {max(left, 0):.0f} s were left | | {part.shows} |"
    log = LOGS / f"{part.name}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, stdout=file, stderr=file, start_new_session=True
        )
        try:
            status: int | None = process.wait(min(DRY_S if dry else part.limit_s, left))
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end(process)
    seconds = time.monotonic() - began
    return f"| {part.name} | {_outcome(status, log.read_text(errors='replace'), dry)} | {seconds:.0f} | {part.shows} |"


def _end(process: subprocess.Popen[bytes]) -> None:
    """With all that it has started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(GRACE_S)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _outcome(status: int | None, said: str, dry: bool) -> str:
    last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "")
    if status is None:
        return "**not done in its time**"
    if status:
        return f"**failed, {status}**: {last[:120].replace('|', '/')}"
    if not dry and (re.search(r"\d+ skipped", last) or "left out" in said):
        return f"skipped: {last[:120].replace('|', '/')}"
    return "passed"


if __name__ == "__main__":
    sys.exit(main())
