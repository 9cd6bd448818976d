"""Weights and their optimizer: from a step's rollouts to an update, on one rank or many."""
