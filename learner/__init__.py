"""The learner: admission, objectives, training, weight broadcast, checkpoints."""
