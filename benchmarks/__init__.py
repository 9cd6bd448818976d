"""Performance measurements: each prints a ratio against a peer measured beside it, in the same run."""
