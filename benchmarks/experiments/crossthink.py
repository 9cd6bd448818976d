"""`python -m chorus.benchmarks.experiments.crossthink`: multiple choice and arithmetic, 2 : 1, beside other mixtures.

Arms: `blend` is recipes/demo_crossthink.toml; `unblended` draws from all problems alike, which are as many of each
kind; `choice_only` and `math_only` have one kind; `format_apart` pays the format by itself. Accuracy is of held-out
problems of both kinds, before and after.
"""

import sys

from chorus.benchmarks.experiments.acereason import of_kind
from chorus.benchmarks.experiments.arms import evaluated, main

FIGURES = {
    "held out: accuracy before": evaluated("before", "accuracy"),
    "held out: accuracy after": evaluated("after", "accuracy"),
    "choice before": of_kind("before", "choice"),
    "choice after": of_kind("after", "choice"),
    "math before": of_kind("before", "math"),
    "math after": of_kind("after", "math"),
    "held out: format before": evaluated("before", "format"),
    "held out: format after": evaluated("after", "format"),
}

if __name__ == "__main__":
    sys.exit(main("crossthink", __doc__, FIGURES))
