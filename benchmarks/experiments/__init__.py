"""Whole trainings, an arm against another, over several seeds."""
