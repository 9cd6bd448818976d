"""Objectives: pure functions on tensors, looked up by name. Formulas and sources stand with each."""
