"""The most that vLLM does on a core: `LLM.generate`, its engine's core in the same process and nothing else beside it.

The far side is this module run as a program, on the generator's cores, with the arguments and the environment of our
engine. It gets whole rounds of prompts and gives back how many tokens it made in how many seconds.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chorus.generator.vllm_engine import arguments_of, environment_of
from chorus.generator.wire import Frames, frame
from chorus.protocol.config.run import RunConfig
from chorus.protocol.messages import Task, unpack_ids
from chorus.protocol.runtime.processes import bind_tree, spawn_guarded

_DEADLINE_S = 600.0


@dataclass(frozen=True)
class Round:
    """`cpu_s`: processor time of the whole process, `model_s` of it inside the model."""

    tokens: int
    seconds: float
    cpu_s: float
    model_s: float


class Offline:
    """This side of it."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._frames = Frames()

    def generate(self, tasks: list[Task]) -> Round:
        """All of `tasks`, which are sampled alike."""
        s = tasks[0].sampling
        sampling = {"n": tasks[0].group_size, "max_tokens": s.max_tokens, "temperature": s.temperature}
        sampling |= {"top_p": s.top_p, "stop_token_ids": s.stop, "logprobs": 0, "detokenize": False}
        self._link.sendall(frame({"prompts": [task.prompt_ids for task in tasks], "sampling": sampling}))
        return Round(**self.hear())

    def hear(self) -> dict[str, Any]:
        while True:
            data = self._link.recv(2**20)
            if not data:
                raise RuntimeError("vLLM alone has ended; see its log, offline.log")
            for message in self._frames.feed(data):
                return message


@contextmanager
def offline_vllm(config: RunConfig, cores: set[int], log: Path) -> Iterator[Offline]:
    """vLLM alone in a process, started as our engine is."""
    argv = [sys.executable, "-m", "chorus.benchmarks.offline"]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/offline")
        listener.listen(1)
        listener.settimeout(_DEADLINE_S)
        env = environment_of(config, log, cores)
        process = spawn_guarded(
            [*argv, f"{folder}/offline", *arguments_of(config)], name="offline", env=env, log=log, grace_s=1.0
        )
        try:
            link, _ = listener.accept()
            with link:
                link.settimeout(_DEADLINE_S)
                peer = Offline(link)
                peer.hear()
                bind_tree(process.pid, cores)
                yield peer
        finally:
            process.stop(1.0)


def main() -> None:
    from vllm import LLM, EngineArgs, SamplingParams
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    link = socket.socket(socket.AF_UNIX)
    link.connect(sys.argv[1])
    parser: Any = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser())
    llm: Any = LLM(**vars(EngineArgs.from_cli_args(parser.parse_args(sys.argv[2:]))))
    in_model = _timed(llm.llm_engine.model_executor)
    link.sendall(frame({}))
    frames = Frames()
    while data := link.recv(2**20):
        for asked in frames.feed(data):
            prompts = [{"prompt_token_ids": unpack_ids(ids).tolist()} for ids in asked["prompts"]]
            started, worked, in_model[0] = time.monotonic(), time.process_time(), 0.0
            outputs = llm.generate(prompts, SamplingParams(**asked["sampling"]), use_tqdm=False)
            seconds, cpu_s = time.monotonic() - started, time.process_time() - worked
            tokens = sum(len(sample.token_ids) for output in outputs for sample in output.outputs)
            link.sendall(frame({"tokens": tokens, "seconds": seconds, "cpu_s": cpu_s, "model_s": in_model[0]}))


def _timed(executor: Any) -> list[float]:
    """Processor time that goes into the executor's two calls, in one place."""
    spent = [0.0]

    def timed(call: Any) -> Any:
        def measured(*args: Any, **how: Any) -> Any:
            begin = time.process_time()
            try:
                return call(*args, **how)
            finally:
                spent[0] += time.process_time() - begin

        return measured

    for name in ("execute_model", "sample_tokens"):
        setattr(executor, name, timed(getattr(executor, name)))
    return spent


if __name__ == "__main__":
    main()
    os._exit(0)  # vLLM's own end prints errors of its finalizers
