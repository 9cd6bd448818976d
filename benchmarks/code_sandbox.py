"""What a graded program costs: `python -m chorus.benchmarks.code_sandbox [REPEATS]`, in milliseconds a grade.

Each grade builds a sandbox of its own (with the mechanism that the server would take) and tears it down again.
"""

from __future__ import annotations

import json
import sys
import time

from chorus.reward_server.graders.code import grade_program
from chorus.reward_server.graders.task import GradeTask, Program
from chorus.reward_server.sandbox.sandbox import find_mechanism

_PROGRAM = "```python\na, b = map(int, input().split())\nprint(a + b)\n```"


def main() -> int:
    """Print median and spread for 1 and for 10 tests. Returns 1 where there is no sandbox."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    mechanism, why_not = find_mechanism()
    if mechanism is None:
        print(f"no sandbox: {why_not}", file=sys.stderr)
        return 1
    for n_tests in (1, 10):
        times = sorted(_grade_ms(mechanism, n_tests) for _ in range(repeats))
        low, median, high = (times[int(share * (repeats - 1))] for share in (0.1, 0.5, 0.9))
        print(f"{mechanism}, {n_tests} tests: median {median:.1f} ms, 10 to 90 % {low:.1f} to {high:.1f} ms")
    return 0


def _grade_ms(mechanism: str, n_tests: int) -> float:
    tests = json.dumps([{"input": f"{i} 1\n", "output": f"{i + 1}\n"} for i in range(n_tests)])
    task = GradeTask("code", _PROGRAM, program=Program(tests, mechanism, timeout_s=5.0))
    started = time.perf_counter()
    result = grade_program(task)
    took_ms = (time.perf_counter() - started) * 1000
    if result.verdict != "correct":
        raise RuntimeError(f"the benchmark's own program was not graded: {result}")
    return took_ms


if __name__ == "__main__":
    sys.exit(main())
