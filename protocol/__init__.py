"""What the processes agree on: configuration, messages, ledger, templates, rewards."""
