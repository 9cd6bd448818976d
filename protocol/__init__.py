"""What the processes agree on: configuration, messages, ledger, templates, rewards."""

if __name__ != "chorus.protocol":
    raise ImportError("import chorus.protocol instead of protocol, or modules would exist twice")
