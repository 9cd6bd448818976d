"""The `chorus` command."""

if __name__ != "chorus.cli":
    raise ImportError("import chorus.cli instead of cli, or modules would exist twice")
