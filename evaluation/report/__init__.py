"""Runs side by side: read (runs), drawn (figures), tabulated (tables), written as one page and as Markdown (pages)."""
