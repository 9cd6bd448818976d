"""`python -m chorus.benchmarks.experiments.critique`: critique fine-tuning of the tiny policy on one running total.

Arms: `ten` has candidates of ten habits, `one` only of the policy's own, `few` a tenth of the critiques.
"""

import sys

from chorus.benchmarks.experiments.arms import evaluated, main, trained

FIGURES = {
    "held out: accuracy before": evaluated("before", "accuracy"),
    "held out: accuracy after": evaluated("after", "accuracy"),
    "held out: greedy before": evaluated("before", "greedy"),
    "held out: greedy after": evaluated("after", "greedy"),
    "first steps: verdicts": trained("supervised_verdicts", first=True),
    "last steps: verdicts": trained("supervised_verdicts"),
    "last steps: loss": trained("supervised_loss"),
}

if __name__ == "__main__":
    sys.exit(main("critique", __doc__, FIGURES))
