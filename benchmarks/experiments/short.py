"""`python -m chorus.benchmarks.experiments.short`: a policy that is warmed up verbose, with and without length rewards.

Arms: `plain` has none; `short` is recipes/demo_short.toml; `all_lengths`, `no_band` and `no_gate` switch one design off
each, `always` all of them. Accuracy and length are those of held-out problems, before and after.
"""

import sys

from chorus.benchmarks.experiments.arms import evaluated, main, trained

FIGURES = {
    "held out: accuracy before": evaluated("before", "accuracy"),
    "held out: accuracy after": evaluated("after", "accuracy"),
    "held out: tokens before": evaluated("before", "response_tokens_mean"),
    "held out: tokens after": evaluated("after", "response_tokens_mean"),
    "last steps: tokens of a right answer": trained("response_tokens_right"),
    "last steps: share with the gate open": trained("short_gate"),
    "last steps: length reward": trained("short_reward"),
}

if __name__ == "__main__":
    sys.exit(main("short", __doc__, FIGURES))
