"""Sources of problems: files, the hub, and synthetic arithmetic."""
