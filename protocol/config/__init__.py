"""The recipe: one model a section, and the loader that merges file, environment and `--set`."""
