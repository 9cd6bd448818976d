"""Grader processes as the real ones, but for their graders, which take no time to import: for tests of the pool alone.

    python tests/support/stub_worker.py SERVER_PID CONTROL_FD TIMEOUT_S MEMORY_BYTES

Right is an answer that is its gold as text, of whatever stands in the box; a double integral is computed for ever.
"""

from __future__ import annotations

import re
import sys

from chorus.reward_server.graders.task import ACCURACY, GradeResult, GradeTask, Verdict
from chorus.reward_server.pool import worker


def run(task: GradeTask) -> GradeResult:
    if r"\int_0^1\int_0^1" in task.completion:
        while True:
            pass
    boxed = re.search(r"\\boxed\{(.*)\}", task.completion)
    extracted = boxed[1] if boxed else None
    verdict: Verdict = "correct" if extracted in task.golds else "wrong"
    return GradeResult(verdict, ACCURACY[verdict], "stub", extracted)


if __name__ == "__main__":
    worker._ours = lambda: run
    sys.exit(worker.main(sys.argv[1:]))
