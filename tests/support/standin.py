"""In vLLM's place: the loop of generator/vllm_process.py around an engine that computes nothing.

As a program it is what the agent's engine starts, with a process of its own below it:

    python tests/support/standin.py SOCKET
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from chorus.generator.vllm_process import serve
from chorus.generator.wire import HELLO, frame
from chorus.protocol.messages import pack_floats, pack_ids

GROUP = {
    "ids": pack_ids([5, 6, 7]),
    "logprobs": pack_floats([-0.5, -0.25, -0.125]),
    "lengths": [2, 1],
    "versions": [[("1.4", 2)], [("1.4", 1)]],
    "finish": ["stop", "length"],
    "likeliest": [(pack_ids([5]), pack_floats([-0.5])), (pack_ids([7]), pack_floats([-0.125]))],
}


class StandIn:
    """Answers every question with `group` after `steps` steps; all that it is asked stands in `asked`."""

    def __init__(self, group: dict[str, Any] | None = None, steps: int = 1) -> None:
        self.group = group or GROUP
        self.steps = steps
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._left: dict[int, int] = {}

    @property
    def busy(self) -> bool:
        return bool(self._left)

    @property
    def rest_s(self) -> float | None:
        return 0.0 if self._left else None

    def call(self, number: int, do: str, **what: Any) -> dict[str, Any] | None:
        self.asked.append((do, what))
        if do == "generate":
            self._left[number] = self.steps
        elif do == "abort":
            self._left.pop(number, None)
        elif do == "receive":
            raise RuntimeError("no such group")
        else:
            return {}
        return None

    def step(self) -> Iterator[dict[str, Any]]:
        for number in list(self._left):
            self._left[number] -= 1
            if not self._left[number]:
                del self._left[number]
                yield {"call": number, "ok": self.group}


@contextmanager
def served(engine: StandIn) -> Iterator[socket.socket]:
    """The agent's end of a socket at whose other end the loop runs, in a thread."""
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=serve, args=(theirs, engine), daemon=True)
    thread.start()
    yield ours
    ours.close()
    thread.join(10)
    assert not thread.is_alive(), "the loop goes on after the agent has hung up"
    theirs.close()


if __name__ == "__main__":
    below = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with socket.socket(socket.AF_UNIX) as agent:
        agent.connect(sys.argv[1])
        agent.sendall(frame({"call": HELLO, "ok": {"world_size": 3}}))
        serve(agent, StandIn())
