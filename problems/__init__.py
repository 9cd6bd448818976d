"""Sources of problems: files, the hub, and synthetic arithmetic."""

if __name__ != "chorus.problems":
    raise ImportError("import chorus.problems instead of problems, or modules would exist twice")
