"""Runs side by side: read (runs), drawn (plots), tabulated (tables), written as one page and as Markdown (pages)."""
