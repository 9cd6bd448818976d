"""The learner: admission, objectives, training, weight broadcast, checkpoints."""

if __name__ != "chorus.learner":
    raise ImportError("import chorus.learner instead of learner, or modules would exist twice")
