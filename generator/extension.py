"""What vLLM's worker is asked by name, beside what it has: its class takes this one in (`--worker-extension-cls`)."""

from __future__ import annotations

from typing import Any


class Told:
    """Part of a worker."""

    weight_transfer_engine: Any

    def adapter_in_place(self) -> dict[str, Any] | None:
        """What the last adapter moved in this worker's weights; None: there was none, or it was not put in whole."""
        adapter = self.weight_transfer_engine.in_place
        return adapter and adapter.model_dump()
