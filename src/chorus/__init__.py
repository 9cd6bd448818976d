"""Chorus: reinforcement-learning post-training of reasoning models, as a service of separate processes."""
