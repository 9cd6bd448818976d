"""All we know of vLLM's server: how it is started, asked for samples, and given new weights.

Its endpoints listen on loopback and have one caller, the agent. Every call has a deadline.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from pydantic import ValidationError

from chorus.generator.engine import Completion, EngineError, EngineGone
from chorus.generator.vllm_log import last_error
from chorus.protocol.config.run import RunConfig
from chorus.protocol.messages import WEIGHT_CHECKS, SyncOffer, Version, WeightCheck, unpack_floats, unpack_ids
from chorus.protocol.runtime.adapters import Adapter
from chorus.protocol.runtime.environment import child_environment, socket_folder, with_caches
from chorus.protocol.runtime.exits import first_line
from chorus.protocol.runtime.processes import Guarded, bind_tree, free_port, spawn_guarded

_HEALTH_INTERVAL_S = 0.25
_GONE = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError)


class VllmEngine:
    """A vLLM server of our own: started, watched, and ended together with this process.

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
        self._http: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Start the server and wait until it is healthy. Raises EngineError after the start deadline."""
        await self.stop()
        port = free_port()
        env = with_caches(child_environment(os.environ), self._log.absolute().parent / "cache")
        env |= socket_folder(env)
        env |= {
            "VLLM_SERVER_DEV_MODE": "1",  # the control endpoints
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "PYTHONSAFEPATH": "1",  # in all of its processes: a folder of the user's never hides a module
            "VLLM_CPU_KVCACHE_SPACE": str(max(1, round(self.config.generator.kv_cache_gib))),
            "TOKENIZERS_PARALLELISM": "false",
        }
        if self._on_one_core:
            env["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # or vLLM would not let the scheduler run the model itself
        if self._cpus is not None:
            env.setdefault("OMP_NUM_THREADS", str(len(self._cpus)))
            env.setdefault("VLLM_CPU_OMP_THREADS_BIND", ",".join(map(str, sorted(self._cpus))))
        if self.config.model.dtype == "float32":
            env.setdefault("TRITON_F32_DEFAULT", "ieee")  # or attention on a GPU rounds to TF32
        env.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        # vLLM's own `vllm` command fails in the CPU build; the module is the same server.
        argv = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *self._arguments(port)]
        log_begin = self._log.stat().st_size if self._log.exists() else 0
        self._process = await asyncio.to_thread(spawn_guarded, argv, env=env, log=self._log, name="vllm")
        self.starts += 1
        # uvicorn drops idle connections after 5 s; one that we let go of sooner is never dropped in our hand.
        self._http = aiohttp.ClientSession(
            f"http://127.0.0.1:{port}", connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=2.0)
        )
        await self._wait_healthy(log_begin)
        if self._cpus is not None:
            # Only now: what it imports and compiles may take any core that is free.
            await asyncio.to_thread(bind_tree, self._process.pid, self._cpus)
        self.world_size = int((await self._get("/get_world_size"))["world_size"])

    @property
    def _on_one_core(self) -> bool:
        """A scheduler that spins for its worker's answer would take the core that the worker needs."""
        return self._cpus is not None and len(self._cpus) == 1 and not self.config.placement.generator_gpus

    def _arguments(self, port: int) -> list[str]:
        c = self.config
        return [
            *("--model", c.model.path, "--served-model-name", "policy", "--dtype", c.model.dtype),
            *("--host", "127.0.0.1", "--port", str(port)),
            *("--max-model-len", str(c.model.context)),
            *("--max-num-seqs", str(c.generator.max_num_seqs + WEIGHT_CHECKS)),
            *("--logprobs-mode", "processed_logprobs", "--generation-config", "vllm"),
            *("--weight-transfer-config", json.dumps({"backend": "chorus"})),
            *("--worker-extension-cls", "chorus.generator.extension.Told"),
            *("--enable-scale-out", "--disable-uvicorn-access-log"),
            *(("--distributed-executor-backend", "uni") if self._on_one_core else ()),
            *self._gpu_arguments(),
            *c.generator.vllm_args,
        ]

    def _gpu_arguments(self) -> list[str]:
        replicas = self.config.placement.generator_gpus
        if not replicas:
            return []
        share = self.config.generator.gpu_memory or (0.4 if self.config.shares_gpu_memory else 0.85)
        return ["--tensor-parallel-size", str(len(replicas[0])), "--gpu-memory-utilization", str(share)]

    async def _wait_healthy(self, log_begin: int) -> None:
        assert self._process
        assert self._http
        deadline = time.monotonic() + self.config.generator.start_deadline_s
        while time.monotonic() < deadline:
            if (code := self._process.poll()) is not None:
                why = last_error(self._log, log_begin)
                raise EngineError(
                    f"vLLM ended with status {code} while starting{why and f' ({why})'}; see its log {self._log}", why
                )
            if await self._healthy(5.0):
                return
            await asyncio.sleep(_HEALTH_INTERVAL_S)  # the server has no event to wait on before it listens
        raise EngineError(
            f"vLLM was not healthy after generator.start_deadline_s = "
            f"{self.config.generator.start_deadline_s:g} s; see its log {self._log}, or raise that"
        )

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def wait_dead(self) -> None:
        """Return once the server has exited, or has failed three health checks of 10 s in a row."""
        assert self._process
        assert self._http
        exited = asyncio.ensure_future(self._process.wait_async())
        failures = 0
        try:
            while failures < 3:
                done, _ = await asyncio.wait({exited}, timeout=5.0)
                if done:
                    return
                failures = 0 if await self._healthy(10.0) else failures + 1
        finally:
            exited.cancel()

    async def stop(self) -> None:
        if self._http:
            await self._http.close()
            self._http = None
        if self._process:
            await asyncio.to_thread(self._process.stop, 5.0)
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
        those that vLLM takes from the model's generation config and its tokenizer."""
        body = {
            "model": "policy",
            "token_ids": prompt,
            "sampling_params": {
                "n": n,
                "max_tokens": max_tokens,
                "temperature": temperature,
                "top_p": top_p,
                "stop_token_ids": list(stop),
                "logprobs": 0,
                "detokenize": False,
            },
        }
        answer = await self._post("/inference/v1/generate", body, deadline_s)
        return [_completion(choice) for choice in answer["choices"]]

    async def join_group(self, offer: SyncOffer) -> None:
        info = {
            "backend": offer.backend,
            "group": offer.group,
            "store_host": offer.store_host,
            "store_port": offer.store_port,
            "world_size": offer.world_size,
            "timeout_s": offer.timeout_s,
        }
        # The deadline holds for the store and again for the connection. To give up before vLLM does would only put
        # the next call behind this one.
        await self._post("/init_weight_transfer_engine", {"init_info": info}, 2 * offer.timeout_s + 10)

    async def pause(self, clear_cache: bool, deadline_s: float) -> None:
        """Freeze sampling where it stands. `clear_cache`: old keys and values are recomputed on resume."""
        await self._post(f"/pause?mode=keep&clear_cache={str(clear_cache).lower()}", None, deadline_s)

    async def receive(self, offer: SyncOffer) -> None:
        """Take the weights of `offer`. Blocks until all buckets came or the offer's deadline is over."""
        info = {
            "tensors": [t.model_dump() for t in offer.tensors],
            "bucket_bytes": offer.bucket_bytes,
            "timeout_s": offer.timeout_s,
            "scaling": offer.adapter.scaling if offer.adapter else None,
        }
        await self._post("/start_weight_update", None, 30.0)
        await self._post("/update_weights", {"update_info": info}, offer.timeout_s + 10)
        await self._post("/finish_weight_update", {"weight_version": offer.version}, offer.timeout_s)

    async def adapter_in_place(self, deadline_s: float) -> list[Adapter]:
        """What the last adapter moved, as each worker saw it; none where one has none, or has half of one."""
        told = await self._post("/collective_rpc", {"method": "adapter_in_place"}, deadline_s)
        try:
            return [Adapter.model_validate(seen) for seen in told["results"] if seen is not None]
        except (KeyError, ValidationError) as error:
            raise EngineError(f"vLLM does not say what the adapter moved: {first_line(error)}") from None

    async def resume(self, deadline_s: float) -> None:
        await self._post("/resume", None, deadline_s)

    async def logprob_gaps(self, offer: SyncOffer) -> np.ndarray:
        """|engine - learner| [points x tokens]: next-token log-probabilities through the sampling path."""
        gaps = await asyncio.gather(*(self._gaps_at(p, offer) for p in offer.checks))
        return np.concatenate([np.empty(0), *gaps])

    async def _gaps_at(self, point: WeightCheck, offer: SyncOffer) -> np.ndarray:
        wanted = dict(zip(unpack_ids(point.token_ids).tolist(), unpack_floats(point.logprobs).tolist(), strict=True))
        body = {
            "model": "policy",
            "token_ids": unpack_ids(point.prefix).tolist(),
            "sampling_params": {
                "max_tokens": 1,
                "temperature": offer.temperature,
                "logprobs": len(wanted),
                "detokenize": False,
            },
        }
        answer = await self._post("/inference/v1/generate", body, offer.timeout_s)
        top = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        gaps = [abs(t["logprob"] - wanted[t["token_id"]]) for t in top if t["token_id"] in wanted]
        # Not one of the learner's likeliest tokens is likely here: as far apart as it gets.
        return np.array(gaps or [np.inf])

    async def _healthy(self, deadline_s: float) -> bool:
        assert self._http
        try:
            async with self._http.get("/health", timeout=aiohttp.ClientTimeout(deadline_s)) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def _get(self, path: str) -> dict[str, Any]:
        return await self._call("GET", path, None, 30.0)

    async def _post(self, path: str, body: dict[str, Any] | None, deadline_s: float) -> dict[str, Any]:
        return await self._call("POST", path, body, deadline_s)

    async def _call(self, method: str, path: str, body: dict[str, Any] | None, deadline_s: float) -> dict[str, Any]:
        if self._http is None:
            raise EngineGone(f"vLLM {path}: the server is not running")
        try:
            limit = aiohttp.ClientTimeout(deadline_s)
            async with self._http.request(method, path, json=body, timeout=limit) as answer:
                status, text = answer.status, await answer.text()
        except (aiohttp.ClientError, TimeoutError, RuntimeError) as error:
            kind = EngineGone if isinstance(error, _GONE) and not isinstance(error, TimeoutError) else EngineError
            raise kind(f"vLLM {path}: {type(error).__name__} {error}".rstrip()) from None
        if status != 200:
            raise EngineError(f"vLLM {path}: status {status}: {text[:500]}")
        return json.loads(text)


def _completion(choice: dict[str, Any]) -> Completion:
    ids = choice["token_ids"]
    return Completion(
        token_ids=ids,
        logprobs=[entry["logprob"] for entry in choice["logprobs"]["content"]] if ids else [],
        versions=[
            (*_version(run["version"]), run["end"] - run["start"])
            for run in choice["weight_versions"]
            if run["end"] > run["start"]
        ],
        finish_reason=choice["finish_reason"],
    )


def _version(text: str) -> tuple[int, int]:
    if "." not in text:
        return -1, -1  # the weights the server was started with: never verified, so never committed
    version = Version.parse(text)
    return version.fence, version.step
