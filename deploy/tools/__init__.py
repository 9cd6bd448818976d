"""Generators of checked-in files: the dashboard and the reference of metrics."""
