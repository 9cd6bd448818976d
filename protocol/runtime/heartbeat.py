"""Something that is repeated beside a block until it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def beating(name: str, every_s: float, beat: Callable[[], None]) -> Iterator[None]:
    """Call `beat` every so many seconds, on a thread of that name, until the block ends; `beat` must not raise."""
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(every_s):
            beat()

    thread = threading.Thread(target=go_on, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
