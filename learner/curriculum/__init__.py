"""Which problems come when, and with how much of a hint."""
