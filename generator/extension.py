"""What vLLM's worker is asked by name, beside what it has: its class takes this one in (`--worker-extension-cls`)."""

from __future__ import annotations

from typing import Any


class Told:
    """Part of a worker; its receiver does the work (generator/receiver.py)."""

    weight_transfer_engine: Any

    def weights_begin(self, do: str, info: dict[str, Any]) -> None:
        self.weight_transfer_engine.begin(do, info)

    def weights_go_on(self) -> str | None:
        return self.weight_transfer_engine.go_on()

    def weights_put_in_place(self) -> None:
        self.weight_transfer_engine.put_in_place()

    def adapter_in_place(self) -> dict[str, Any] | None:
        """What the last adapter moved in this worker's weights; None: there was none, or it was not put in whole."""
        adapter = self.weight_transfer_engine.in_place
        return adapter and adapter.model_dump()
