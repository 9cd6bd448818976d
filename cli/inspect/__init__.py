"""Commands that look at a run, while it goes or afterwards."""
