"""`python -m chorus.benchmarks.experiments.sparkle`: problems that the tiny policy never solves, in five versions each.

Arms: `in_parts` is recipes/demo_sparkle.toml, none to four parts of a solution as the beginning of the answer;
`unaided` asks the problems as they are; `behind_the_problem` gives the same parts as QuestA does. Accuracy is of
held-out problems, unaided; that of the last steps by how much of the solution was given.
"""

import sys
from statistics import fmean

from chorus.benchmarks.experiments.arms import LAST, Figure, evaluated, main
from chorus.protocol.run_folder.folder import RunFolder

SHARES = ("0", "0.25", "0.5", "0.75", "1")


def given(share: str) -> Figure:
    """Accuracy of the last steps' groups that had this share of their solution."""

    def figure(run: RunFolder) -> float | None:
        parts = [(r.get("by_hint") or {}).get(share) for r in run.records()[-LAST:]]
        values = [part["accuracy"] for part in parts if part and part["accuracy"] is not None]
        return fmean(values) if values else None

    return figure


FIGURES = {
    "held out, unaided: accuracy before": evaluated("before", "accuracy"),
    "held out, unaided: accuracy after": evaluated("after", "accuracy"),
    **{
        f"last steps: accuracy with {share} of the solution": given(share)
        for share in ("0", "0.25", "0.5", "0.75", "1")
    },
}

if __name__ == "__main__":
    sys.exit(main("sparkle", __doc__, FIGURES))
