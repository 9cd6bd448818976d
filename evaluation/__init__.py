"""Benchmarks, the estimators over their answers, and reports that compare runs."""

if __name__ != "chorus.evaluation":
    raise ImportError("import chorus.evaluation instead of evaluation, or modules would exist twice")
