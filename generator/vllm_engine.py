"""vLLM as the agent has it: how its process is started, watched, asked for samples, and given new weights.

The process (generator/vllm_process.py) is at the other end of a socket that nobody else can reach: its name stood in a
folder of ours (mode 700), and is gone once the two have met. Every call has a deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from chorus.generator.engine import Completion, EngineError, EngineGone
from chorus.generator.vllm_log import last_error
from chorus.generator.wire import HELLO, Frames, frame
from chorus.protocol.config.run import RunConfig
from chorus.protocol.messages import WEIGHT_CHECKS, SyncOffer, Version, WeightCheck, pack_ids, unpack_floats, unpack_ids
from chorus.protocol.runtime.adapters import Adapter
from chorus.protocol.runtime.environment import child_environment, socket_folder, with_caches
from chorus.protocol.runtime.exits import first_line
from chorus.protocol.runtime.processes import Guarded, bind_tree, spawn_guarded

_PING_S = 5.0
_SILENCE_S = 90.0  # longer than any step: thousands of prompt tokens on a shared core are one
_READ_BYTES = 2**20


class VllmEngine:
    """A vLLM process of our own: started, watched, and ended together with this process.

    States: stopped -> (start) -> healthy -> (exits, hangs or is stopped) -> stopped. `starts` counts the
    starts; a new start has forgotten every process group and every weight update.
    """

    def __init__(self, config: RunConfig, log: Path, cpus: set[int] | None = None) -> None:
        self.config = config
        self.starts = 0
        self.world_size = 1
        self._log = log
        self._cpus = cpus
        self._process: Guarded | None = None
        self._link: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None
        self._numbers = itertools.count(HELLO + 1)
        self._open: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def start(self) -> None:
        """Start the process and wait until it is healthy. Raises EngineError after the start deadline."""
        await self.stop()
        deadline = time.monotonic() + self.config.generator.start_deadline_s
        env = environment_of(self.config, self._log, self._cpus)
        begin = self._log.stat().st_size if self._log.exists() else 0
        folder = tempfile.mkdtemp(prefix="chorus-", dir=env.get("VLLM_RPC_BASE_PATH"))  # of mode 700
        try:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(f"{folder}/engine")
                listener.listen(1)
                listener.setblocking(False)
                argv = [sys.executable, "-m", "chorus.generator.vllm_process", f"{folder}/engine"]
                argv += arguments_of(self.config)
                self._process = await asyncio.to_thread(spawn_guarded, argv, env=env, log=self._log, name="vllm")
                self.starts += 1
                accepted = asyncio.get_running_loop().sock_accept(listener)
                connection, _ = await self._before_it_ends(accepted, deadline, begin)
        finally:
            shutil.rmtree(folder)
        hello = await self._meet(connection)
        self.world_size = int((await self._before_it_ends(hello, deadline, begin))["world_size"])
        if self._cpus is not None:
            # Only now: what it imports and compiles may take any core that is free.
            await asyncio.to_thread(bind_tree, self._process.pid, self._cpus)

    async def _meet(self, connection: socket.socket) -> Awaitable[dict[str, Any]]:
        """Begin to listen; returns what the engine's first word will be."""
        reader, self._link = await asyncio.open_unix_connection(sock=connection, limit=_READ_BYTES)
        hello = self._open[HELLO] = asyncio.get_running_loop().create_future()
        self._listening = asyncio.create_task(self._listen(reader))
        return hello

    async def _before_it_ends(self, sign: Awaitable[Any], deadline: float, log_begin: int) -> Any:
        """What the new process gives, or why it does not."""
        assert self._process
        given, ended = asyncio.ensure_future(sign), asyncio.ensure_future(self._process.wait_async())
        try:
            left_s = deadline - time.monotonic()
            await asyncio.wait({given, ended}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            if given.done() and given.exception() is None:
                return given.result()
            with contextlib.suppress(TimeoutError):  # it hangs up a moment before it ends
                code = await asyncio.wait_for(ended, 10.0 if given.done() else 0.0)
                why = last_error(self._log, log_begin)
                raise EngineError(
                    f"vLLM ended with status {code} while starting{why and f' ({why})'}; see its log {self._log}", why
                )
        finally:
            for future in (given, ended):
                future.cancel()
            await asyncio.gather(given, ended, return_exceptions=True)  # the listener is closed after us
        raise EngineError(
            f"vLLM was not healthy after generator.start_deadline_s = "
            f"{self.config.generator.start_deadline_s:g} s; see its log {self._log}, or raise that"
        )

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def wait_dead(self) -> None:
        """Return once the process has ended or hung up, or its loop has given no sign for _SILENCE_S."""
        assert self._process
        assert self._listening
        ended = asyncio.ensure_future(self._process.wait_async())
        try:
            while True:
                signs = {ended, self._listening}
                if (await asyncio.wait(signs, timeout=_PING_S, return_when=asyncio.FIRST_COMPLETED))[0]:
                    return
                try:
                    await self._call("ping", _SILENCE_S)
                except EngineError:
                    return
        finally:
            ended.cancel()

    async def stop(self) -> None:
        if self._listening:
            self._listening.cancel()
            await asyncio.wait({self._listening})
            self._listening = None
        if self._link:
            self._link.close()
            self._link = None
        if self._process:
            await asyncio.to_thread(self._process.stop, 1.0)
            self._process = None

    async def generate(
        self,
        prompt: list[int],
        n: int,
        temperature: float,
        max_tokens: int,
        deadline_s: float,
        top_p: float = 1.0,
        stop: Sequence[int] = (),
    ) -> list[Completion]:
        """`n` samples of `prompt` (token ids), with the version of every token. They end at the tokens `stop`, and at
        those that vLLM takes from the model's generation config and its tokenizer. Whoever cancels it ends them."""
        sampling = {
            "n": n,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "stop_token_ids": list(stop),
            "logprobs": 0,
        }
        return _completions(await self._call("generate", deadline_s, prompt=pack_ids(prompt), sampling=sampling))

    async def join_group(self, offer: SyncOffer) -> None:
        info = {
            "backend": offer.backend,
            "group": offer.group,
            "store_host": offer.store_host,
            "store_port": offer.store_port,
            "world_size": offer.world_size,
            "timeout_s": offer.timeout_s,
        }
        # The deadline holds for the store and again for the connection. To give up before vLLM does would only have
        # the next call refused.
        await self._call("join", 2 * offer.timeout_s + 10, info=info)

    async def receive(self, offer: SyncOffer) -> None:
        """Have the weights of `offer` beside those that sample; returns once they are whole, and nothing is changed."""
        info = {
            "version": offer.version,
            "tensors": [t.model_dump() for t in offer.tensors],
            "bucket_bytes": offer.bucket_bytes,
            "piece_bytes": offer.piece_bytes,
            "onward": offer.onward.model_dump() if offer.onward else None,
            "delta": offer.delta.model_dump() if offer.delta else None,
            "timeout_s": offer.timeout_s,
            "scaling": offer.adapter.scaling if offer.adapter else None,
        }
        await self._call("receive", 2 * offer.timeout_s + 30, info=info)

    async def put_in_place(self, offer: SyncOffer, clear_cache: bool, deadline_s: float) -> float:
        """Sample on with what was received. `clear_cache`: old keys and values are computed anew. Returns the seconds
        from the end of the last step under the old weights until all is ready for the first under the new ones."""
        deadline_s += offer.timeout_s if offer.backend == "nccl" else 0.0  # there the bytes come only now
        answer = await self._call("put_in_place", deadline_s, version=offer.version, clear_cache=clear_cache)
        return float(answer["pause_s"])

    async def adapter_in_place(self, deadline_s: float) -> list[Adapter]:
        """What the last adapter moved, as each worker saw it; none where one has none, or has half of one."""
        told = await self._call("adapter_in_place", deadline_s)
        try:
            return [Adapter.model_validate(seen) for seen in told["workers"] if seen is not None]
        except (KeyError, ValidationError) as error:
            raise EngineError(f"vLLM does not say what the adapter moved: {first_line(error)}") from None

    async def logprob_gaps(self, offer: SyncOffer) -> np.ndarray:
        """|engine - learner| [points x tokens]: next-token log-probabilities through the sampling path."""
        gaps = await asyncio.gather(*(self._gaps_at(p, offer) for p in offer.checks))
        return np.concatenate([np.empty(0), *gaps])

    async def _gaps_at(self, point: WeightCheck, offer: SyncOffer) -> np.ndarray:
        wanted = dict(zip(unpack_ids(point.token_ids).tolist(), unpack_floats(point.logprobs).tolist(), strict=True))
        sampling = {"max_tokens": 1, "temperature": offer.temperature, "logprobs": len(wanted)}
        answer = await self._call("generate", offer.timeout_s, prompt=point.prefix, sampling=sampling)
        ((ids, logprobs),) = answer["likeliest"]
        found = dict(zip(unpack_ids(ids).tolist(), unpack_floats(logprobs).tolist(), strict=True))
        gaps = [abs(found[id] - value) for id, value in wanted.items() if id in found]
        # Not one of the learner's likeliest tokens is likely here: as far apart as it gets.
        return np.array(gaps or [np.inf])

    async def _call(self, do: str, deadline_s: float, **what: Any) -> dict[str, Any]:
        if self._link is None:
            raise EngineGone(f"vLLM {do}: it is not running")
        if self._listening is None or self._listening.done():  # nobody would hand the answer on
            raise EngineGone(f"vLLM {do}: it has hung up")
        number = next(self._numbers)
        answer = self._open[number] = asyncio.get_running_loop().create_future()
        self._link.write(frame({"call": number, "do": do, **what}))
        try:
            async with asyncio.timeout(deadline_s):
                return await answer
        except TimeoutError:
            raise EngineError(f"vLLM {do}: no answer within {deadline_s:g} s") from None
        except EngineError as error:
            raise type(error)(f"vLLM {do}: {error}") from None
        finally:
            if self._open.pop(number, None) is not None and do == "generate" and self._link:  # given up
                self._link.write(frame({"call": number, "do": "abort"}))

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Hand answers to those who asked, until the engine hangs up."""
        frames = Frames()
        try:
            while data := await reader.read(_READ_BYTES):
                for message in frames.feed(data):
                    answer = self._open.pop(message["call"], None)
                    if answer is None or answer.done():
                        continue  # given up meanwhile
                    if "ok" in message:
                        answer.set_result(message["ok"])
                    else:
                        answer.set_exception(EngineError(message["error"]))
        except ConnectionError:
            pass
        finally:
            self._lose_all()

    def _lose_all(self) -> None:
        while self._open:
            _, answer = self._open.popitem()
            if not answer.done():
                answer.set_exception(EngineGone("it has hung up"))


def environment_of(config: RunConfig, log: Path, cpus: set[int] | None) -> dict[str, str]:
    """What vLLM's process finds in its environment; `log`: beside it lie caches that a home has no place for."""
    env = with_caches(child_environment(os.environ), log.absolute().parent / "cache")
    env |= socket_folder(env)
    env |= {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the core in the engine's own process, and on a CPU the model too
        "GLOO_SOCKET_IFNAME": "lo",  # vLLM's own groups, of one host; weights come over a device of our choice
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONSAFEPATH": "1",  # in all of its processes: a folder of the user's never hides a module
        "VLLM_CPU_KVCACHE_SPACE": str(max(1, round(config.generator.kv_cache_gib))),
        "TOKENIZERS_PARALLELISM": "false",
    }
    if cpus is not None:
        env.setdefault("OMP_NUM_THREADS", str(len(cpus)))
        env.setdefault("VLLM_CPU_OMP_THREADS_BIND", ",".join(map(str, sorted(cpus))))
    if config.model.dtype == "float32":
        env.setdefault("TRITON_F32_DEFAULT", "ieee")  # or attention on a GPU rounds to TF32
    env.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    return env


def arguments_of(config: RunConfig) -> list[str]:
    """What vLLM's engine is told, as on the command line of `vllm serve`."""
    return [
        *("--model", config.model.path, "--dtype", config.model.dtype),
        *("--max-model-len", str(config.model.context)),
        *("--max-num-seqs", str(config.generator.max_num_seqs + WEIGHT_CHECKS)),
        *("--logprobs-mode", "processed_logprobs", "--generation-config", "vllm"),
        *("--weight-transfer-config", json.dumps({"backend": "chorus"})),
        *("--worker-extension-cls", "chorus.generator.extension.Told"),
        *_gpu_arguments(config),
        *config.generator.vllm_args,
    ]


def _gpu_arguments(config: RunConfig) -> list[str]:
    replicas = config.placement.generator_gpus
    if not replicas:
        return []
    share = config.generator.gpu_memory or (0.4 if config.shares_gpu_memory else 0.85)
    return ["--tensor-parallel-size", str(len(replicas[0])), "--gpu-memory-utilization", str(share)]


def _completions(group: dict[str, Any]) -> list[Completion]:
    ids, logprobs = unpack_ids(group["ids"]).tolist(), unpack_floats(group["logprobs"]).tolist()
    ends = list(itertools.accumulate(group["lengths"]))
    parts = zip([0, *ends], ends, group["versions"], group["finish"], strict=False)
    return [
        Completion(ids[begin:end], logprobs[begin:end], [(*_version(v), n) for v, n in runs if n], finish)
        for begin, end, runs, finish in parts
    ]


def _version(text: str) -> tuple[int, int]:
    if "." not in text:
        return -1, -1  # the weights the engine was started with: never verified, so never committed
    version = Version.parse(text)
    return version.fence, version.step
