"""How a process of ours starts, logs, reaches Redis, guards its children and ends. Nothing here knows a run."""
