"""A TCP link that can be cut, throttled and delayed: what netem does, where the kernel has none."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

_PIECE = 16 << 10


class Proxy:
    """`host`:`port` to `target()`. Runs on a thread of its own; all methods may be called from others.

    `cut()` drops every connection and refuses new ones; `freeze()` keeps them open and passes nothing on, as a
    link that loses every packet does; `delay_s` and `bytes_per_s` hold from then on; `restore()` ends all of it.
    """

    def __init__(self, target: Callable[[], tuple[str, int]], port: int = 0, host: str = "127.0.0.1") -> None:
        self.delay_s = 0.0
        self.bytes_per_s = 0.0
        self._target = target
        self._down = False
        self._open = threading.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._serve, host, port))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def _call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    def cut(self) -> None:
        self._down = True
        self._loop.call_soon_threadsafe(self._drop)

    def freeze(self) -> None:
        self._open.clear()

    def restore(self) -> None:
        self._down, self.delay_s, self.bytes_per_s = False, 0.0, 0.0
        self._open.set()

    def close(self) -> None:
        self.restore()
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._drop)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _drop(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._down:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target())
        except OSError:
            writer.transport.abort()
            return
        both = {writer, far_writer}
        self._writers |= both
        try:
            await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))
        finally:
            self._writers -= both
            for w in both:
                w.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_PIECE):
                while not self._open.is_set():
                    await asyncio.sleep(0.02)
                pause = self.delay_s + (len(data) / self.bytes_per_s if self.bytes_per_s else 0.0)
                if pause:
                    await asyncio.sleep(pause)
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
