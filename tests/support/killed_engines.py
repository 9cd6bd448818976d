"""What an agent's process holds after 5 and after 21 kills of its engine, in a process where nothing else happens.

`killed_engines.py FOLDER` writes [descriptors, threads, resident bytes] of both as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from chorus.generator import vllm_engine
from chorus.protocol.config.run import RunConfig
from chorus.protocol.runtime.processes import Guarded, spawn_guarded

LOOKS = (5, 21)  # kills before each
# Says that it is there, in the bytes of one frame, and waits.
QUICK = """
import socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect(sys.argv[1])
body = b"\\x82\\xa4call\\x00\\xa2ok\\x81\\xaaworld_size\\x01"
link.sendall(len(body).to_bytes(4, "little") + body)
link.recv(1)
"""


def _spawn(argv: Sequence[str], **how: Any) -> Guarded:
    return spawn_guarded([sys.executable, "-I", "-S", "-c", QUICK, argv[3]], **how)


async def main(folder: Path) -> list[tuple[int, int, int]]:
    vllm_engine.spawn_guarded = _spawn  # type: ignore[assignment]
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))  # or it grows whenever its threads are late
    config = RunConfig.model_validate(
        {"model": {"path": "none"}, "problems": {"train": ["none"]}, "templates": {"names": ["qwen-math"]}}
    )
    agent, engine = psutil.Process(), vllm_engine.VllmEngine(config, folder / "vllm.log")
    held: list[tuple[int, int, int]] = []
    for kills in range(1, LOOKS[-1] + 1):
        await engine.start()
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        await asyncio.wait_for(engine.wait_dead(), 10.0)
        await engine.stop()
        if kills in LOOKS:
            held.append(await _least(agent))
    return held


async def _least(agent: psutil.Process) -> tuple[int, int, int]:
    """Over half a second: what is only closed a moment late is no leak."""
    seen = []
    for _ in range(10):
        await asyncio.sleep(0.05)
        seen.append((agent.num_fds(), agent.num_threads(), agent.memory_info().rss))
    fds, threads, rss = map(min, zip(*seen, strict=True))
    return fds, threads, rss


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(Path(sys.argv[1])))))
