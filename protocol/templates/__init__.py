"""Reasoning templates: what they say, how a completion keeps to one, how a run draws them."""
