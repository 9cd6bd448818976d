"""Performance measurements: each prints a ratio against a peer measured beside it, in the same run."""

import sys

# `python -m benchmarks.NAME` from a clone may: Python only looks for the program then, which imports by full names.
if __name__ != "chorus.benchmarks" and sys.argv[0] != "-m":
    raise ImportError("import chorus.benchmarks instead of benchmarks, or modules would exist twice")
