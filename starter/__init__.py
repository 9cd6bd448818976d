"""Builds the tiny policy of the CPU demo from nothing."""

if __name__ != "chorus.starter":
    raise ImportError("import chorus.starter instead of starter, or modules would exist twice")
