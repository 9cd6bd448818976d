"""Objectives: pure functions on arrays and tensors, looked up by name. Formulas and sources stand with each.

    advantages   rewards of a step ─▶ what each sample (or token) is worth           numpy, float64
    corrections  proximal / behaviour ─▶ weights and rejections for stale tokens     torch, constants
    losses       current / proximal ─▶ one loss a token                              torch, with gradient
    kl           current against reference                                           torch, with gradient
    aggregation  lengths ─▶ what each token's loss counts in the mini-batch's        numpy, float64
    combine      all of it for one micro-batch, as the trainer calls it

A new loss is one function in losses.py and one line in protocol/config/objective.py (its name and its kind).
"""
