"""Generators: a stock vLLM server each, and the agent beside it that leases, samples and commits."""
