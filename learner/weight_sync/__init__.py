"""Weights to the generators: who gets a version from whom, and the links that carry it."""
