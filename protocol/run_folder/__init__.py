"""A run's folder: its paths, its files, and how they are written so that a crash leaves none half."""
