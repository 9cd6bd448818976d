"""What a step and a run say of themselves, and what alarms look at."""
