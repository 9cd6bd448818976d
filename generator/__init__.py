"""Generators: a vLLM engine each, and the agent beside it that leases, samples and commits."""

if __name__ != "chorus.generator":
    raise ImportError("import chorus.generator instead of generator, or modules would exist twice")
