"""Benchmarks, the estimators over their answers, and reports that compare runs."""
