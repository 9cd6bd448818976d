"""`python -m chorus.benchmarks.experiments.acereason`: arithmetic, then programs, beside other plans of equal length.

Arms: `math_then_code` is recipes/demo_acereason.toml; `mixed` draws from both kinds throughout; `code_only` and
`math_only` from one of them. Accuracy is of held-out problems of both kinds, before and after.
"""

import sys

from chorus.benchmarks.experiments.arms import Figure, evaluated, main
from chorus.protocol.run_folder.files import read_json, read_lines
from chorus.protocol.run_folder.folder import RunFolder


def of_kind(when: str, kind: str) -> Figure:
    """Sampled accuracy on held-out problems of one kind."""
    return lambda run: (read_json(run.evaluation(when)).get("by_kind") or {}).get(kind)


def half_way(kind: str) -> Figure:
    """Of the first validation, which is made after the first stage."""

    def figure(run: RunFolder) -> float | None:
        first = next(iter(read_lines(run.validations)), {})
        return (first.get("by_kind") or {}).get(kind)

    return figure


FIGURES = {
    "held out: accuracy before": evaluated("before", "accuracy"),
    "held out: accuracy after": evaluated("after", "accuracy"),
    "math before": of_kind("before", "math"),
    "math half-way": half_way("math"),
    "math after": of_kind("after", "math"),
    "code before": of_kind("before", "code"),
    "code half-way": half_way("code"),
    "code after": of_kind("after", "code"),
}

if __name__ == "__main__":
    sys.exit(main("acereason", __doc__, FIGURES))
