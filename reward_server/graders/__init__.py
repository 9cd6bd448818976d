"""Verdicts: where an answer stands in a completion, and whether it is the gold."""
