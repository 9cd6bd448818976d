"""Performance measurements: each prints a ratio against a peer measured beside it, in the same run."""

if __name__ != "chorus.benchmarks":
    raise ImportError("import chorus.benchmarks instead of benchmarks, or modules would exist twice")
