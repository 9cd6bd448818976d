"""`python -m chorus.benchmarks.experiments.prorl`: a run that its KL stalls, with and without resets of the reference.

Arms: `stalled` keeps the first policy as its reference; `kept` resets it every so many steps and keeps the optimizer;
`anew` begins the optimizer anew, too; `free` has nearly no KL.
"""

import sys
from itertools import pairwise

from chorus.benchmarks.experiments.arms import evaluated, main, trained
from chorus.protocol.run_folder.folder import RunFolder


def longest_rise(run: RunFolder) -> float | None:
    """The largest number of steps in a row over which the KL, a mean of ten steps, grew."""
    values = [r["reference_k2"] for r in run.records() if r.get("reference_k2") is not None]
    means = [sum(values[k : k + 10]) / 10 for k in range(0, len(values) - 9, 10)]
    best = here = 0
    for before, after in pairwise(means):
        here = here + 10 if after > before else 0
        best = max(best, here)
    return float(best) if means else None


FIGURES = {
    "held out: accuracy before": evaluated("before", "accuracy"),
    "held out: accuracy after": evaluated("after", "accuracy"),
    "last steps: accuracy": trained("accuracy"),
    "last steps: KL to the reference, k2": trained("reference_k2"),
    "resets": trained("reference_resets"),
    "steps over which the KL rose without a pause": longest_rise,
    "last steps: entropy": trained("entropy"),
}

if __name__ == "__main__":
    sys.exit(main("prorl", __doc__, FIGURES))
