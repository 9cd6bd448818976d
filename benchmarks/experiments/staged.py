"""`python -m chorus.benchmarks.experiments.staged`: small numbers before large ones, beside all at once.

Arms: `staged` is recipes/demo_staged.toml; `one_stage` draws from both levels throughout, with the run's own settings;
`hard_only` from the second level. Accuracy is of held-out problems, before and after, at equal steps.
"""

import sys

from chorus.benchmarks.experiments.arms import evaluated, main, trained

FIGURES = {
    "held out: accuracy before": evaluated("before", "accuracy"),
    "held out: accuracy after": evaluated("after", "accuracy"),
    "held out: greedy after": evaluated("after", "greedy"),
    "first steps: entropy": trained("entropy", first=True),
    "last steps: entropy": trained("entropy"),
    "last steps: share cut off": trained("truncated"),
}

if __name__ == "__main__":
    sys.exit(main("staged", __doc__, FIGURES))
