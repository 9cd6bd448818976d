"""Commands that measure a model on problems."""
