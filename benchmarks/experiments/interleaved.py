"""`python -m chorus.benchmarks.experiments.interleaved`: sums of two hops, told at the end or on the way.

Arms: `think_then_answer` has one think and one answer block; `unpaid` interleaves and is paid for format and final
answer alone; `interleaved` is recipes/demo_interleaved.toml; `no_gate` pays sub-answers in every step.
"""

import sys

from chorus.benchmarks.experiments.arms import evaluated, main, trained

FIGURES = {
    "held out: accuracy before": evaluated("before", "accuracy"),
    "held out: accuracy after": evaluated("after", "accuracy"),
    "held out: format after": evaluated("after", "format"),
    "held out: tokens after": evaluated("after", "response_tokens_mean"),
    "first steps: share before the first answer": trained("first_answer", first=True),
    "last steps: share before the first answer": trained("first_answer"),
    "last steps: answers in a completion": trained("answers"),
    "last steps: sub-answers found": trained("sub_answers_found"),
    "last steps: share with the gate open": trained("interleaved_gate"),
}

if __name__ == "__main__":
    sys.exit(main("interleaved", __doc__, FIGURES))
