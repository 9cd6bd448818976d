"""A grader process as the real one, but for its graders, which take no time to import: for tests of the pool alone.

    python tests/support/stub_worker.py PARENT_PID TIMEOUT_S MEMORY_BYTES

Right is an answer that is its gold as text, of whatever stands in the box; a tower of powers is computed for ever.
"""

from __future__ import annotations

import re
import sys
import types

from chorus.reward_server.graders.task import GradeResult, GradeTask


def run(task: GradeTask) -> GradeResult:
    if "^{9^{9" in task.completion:
        while True:
            pass
    boxed = re.search(r"\\boxed\{(.*)\}", task.completion)
    extracted = boxed[1] if boxed else None
    right = extracted in task.golds
    return GradeResult("correct" if right else "wrong", float(right), "math: stub", extracted)


def main(argv: list[str]) -> int:
    registry = types.ModuleType("chorus.reward_server.graders.registry")
    registry.run, registry.warm_up = run, lambda: None  # type: ignore[attr-defined]
    sys.modules[registry.__name__] = registry
    from chorus.reward_server.pool import worker

    return worker.main(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
