"""Performance measurements: each prints a ratio against a peer that is measured beside it, in the same run."""
