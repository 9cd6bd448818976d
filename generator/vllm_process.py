"""The engine's own process: vLLM with its core inside, between prompts that come in and finished groups that go out.

    python -m chorus.generator.vllm_process SOCKET ARGUMENT...      as for `vllm serve`, less what only its server knows

    ┌─▶ what the agent asks ─▶ one step of the engine ─▶ groups that are finished with it ─┐
    └──────────────────────────────────────────────────────────────────────────────────────┘

One thread does all of this, so every call is carried out between two steps, and an answer to `ping` says that the loop
itself goes round. What has to wait for the learner does so in a thread of a worker's (generator/receiver.py), while
sampling goes on. The process connects to the agent's socket before anything else, and ends when the agent hangs up. An
error in a call is that call's answer; one in a step ends the process.
"""

from __future__ import annotations

import select
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, Protocol

from chorus.generator.wire import HELLO, Frames, frame
from chorus.protocol.messages import pack_floats, pack_ids, unpack_ids

_READ_BYTES = 2**20
_LOOK_S = 0.002  # after bytes that come to an engine at rest


class Sampler(Protocol):
    """What the loop needs of an engine; tests have a scripted one, `Vllm` is the real one."""

    @property
    def rest_s(self) -> float | None: ...  # until there is something to do; None: until it is asked
    def call(self, number: int, do: str, **what: Any) -> dict[str, Any] | None: ...
    def step(self) -> Iterator[dict[str, Any]]: ...


def serve(agent: socket.socket, engine: Sampler) -> None:
    """Until the agent hangs up. What `call` gives no answer to, `step` answers, or nobody."""
    agent.setblocking(False)
    asked, answers = Frames(), bytearray()
    while True:
        readable, *_ = select.select([agent], [agent] if answers else [], [], engine.rest_s)
        try:
            if readable:
                if not (data := agent.recv(_READ_BYTES)):
                    return
                for message in asked.feed(data):
                    answers += _answer(engine, message)
            if engine.rest_s is not None:
                for answer in engine.step():
                    answers += frame(answer)
            with suppress(BlockingIOError):  # an agent that is busy itself gets them later
                del answers[: agent.send(answers)]
        except ConnectionError:
            return


def _answer(engine: Sampler, message: dict[str, Any]) -> bytes:
    number, do = message.pop("call"), message.pop("do")
    try:
        result = engine.call(number, do, **message)
    except Exception as error:  # whatever vLLM raises is the caller's to hear
        return frame({"call": number, "error": f"{type(error).__name__}: {error}"[:1000]})
    return b"" if result is None else frame({"call": number, "ok": result})


def started(arguments: Sequence[str]) -> Vllm:
    from vllm.engine.arg_utils import AsyncEngineArgs, EngineArgs
    from vllm.usage.usage_lib import UsageContext
    from vllm.utils.argparse_utils import FlexibleArgumentParser
    from vllm.v1.engine.llm_engine import LLMEngine

    # The asynchronous engine's parser loads the plugins, and with them our receiver.
    parser: Any = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser(prog="vllm"))
    args = EngineArgs.from_cli_args(parser.parse_args(list(arguments)))
    args.disable_log_stats = True
    # The offline defaults: a step takes in more prompt tokens, since nobody waits for a first token.
    return Vllm(LLMEngine.from_engine_args(args, usage_context=UsageContext.LLM_CLASS))


class Vllm:
    """vLLM's engine, its core in this process: nothing of a token leaves it before its group is finished.

    Weights come beside the sampling, at the workers, and are put in place between two steps.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._core: Any = engine.engine_core.engine_core
        self._requests: dict[int, str] = {}  # calls under way, by vLLM's own names
        self._finished: list[Any] = []  # while weights were put in place
        self._beside: int | None = None  # the call whose bytes are on their way to the workers
        self._stepped = 0.0  # when the last step ended

    @property
    def world_size(self) -> int:
        return self._engine.vllm_config.parallel_config.world_size

    @property
    def rest_s(self) -> float | None:
        if self._requests:
            return 0.0
        return None if self._beside is None else _LOOK_S

    def step(self) -> Iterator[dict[str, Any]]:
        outputs, self._finished = self._finished, []
        if self._requests:
            outputs += self._engine.step()
            self._stepped = time.monotonic()
        if self._beside is not None and (answer := self._look_beside()) is not None:
            number, self._beside = self._beside, None
            yield {"call": number} | answer
        for output in outputs:
            number = int(output.request_id)
            if self._requests.pop(number, None) is None:
                continue  # given up after the pause that finished it
            yield {"call": number, **_group(output)}

    def call(self, number: int, do: str, **what: Any) -> dict[str, Any] | None:
        match do:
            case "ping":
                pass
            case "generate":
                return self._generate(number, **what)
            case "abort":
                if (request := self._requests.pop(number, None)) is not None:
                    self._engine.abort_request([request], internal=True)
                return None
            case "join" | "receive":
                self._workers("weights_begin", do=do, info=what["info"])
                self._beside = number
                return None
            case "put_in_place":
                return {"pause_s": self._put_in_place(what["version"], what["clear_cache"])}
            case "adapter_in_place":
                return {"workers": self._workers(do)}
            case _:
                raise ValueError(f"{do!r} is nothing that this engine does")
        return {}

    def _generate(self, number: int, prompt: bytes, sampling: dict[str, Any]) -> None:
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        most = self._engine.vllm_config.scheduler_config.max_num_seqs
        if sampling.get("n", 1) > most:
            raise ValueError(f"{sampling['n']} samples, more than the {most} that run at once")
        kind = RequestOutputKind.FINAL_ONLY
        params = SamplingParams(detokenize=False, flat_logprobs=True, output_kind=kind, **sampling)
        (rendered,) = self._engine.renderer.render_cmpl([{"prompt_token_ids": unpack_ids(prompt).tolist()}])
        self._requests[number] = self._engine.add_request(str(number), rendered, params)

    def _look_beside(self) -> dict[str, Any] | None:
        """The answer to what was begun, once all workers are done; each does a portion now, if there is one to do."""
        states = self._workers("weights_go_on")
        if any(state is None for state in states):
            return None
        failed = [state for state in states if state]
        return {"error": failed[0]} if failed else {"ok": {}}

    def _put_in_place(self, version: str, clear_cache: bool) -> float:
        """`clear_cache`: old keys and values are computed anew. Returns how long nothing was sampled, in seconds."""
        stood = self._stepped if self._requests else time.monotonic()
        self._core.scheduler.set_pause_state(type(self._core.scheduler.pause_state).PAUSED_ALL)
        try:
            while self._core.batch_queue:  # begun on a GPU with the old weights, and to be counted as theirs
                self._finished += self._engine.step()
                stood = time.monotonic()
            self._core.pause_scheduler("keep", clear_cache)
            self._workers("weights_put_in_place")
            self._engine.set_weight_version(version)
        finally:
            self._core.resume_scheduler()
        return time.monotonic() - stood

    def _workers(self, method: str, **what: Any) -> list[Any]:
        """What each of them says."""
        return self._engine.collective_rpc(method, kwargs=what)


def _group(output: Any) -> dict[str, Any]:
    """A finished request as it travels: samples one behind the other; of each the log-probability of every token, and
    those of the likeliest tokens at its first place, as many as were asked for."""
    samples = output.outputs
    if any(sample.finish_reason == "error" for sample in samples):
        return {"error": "vLLM gave the request up for an error of its own; see its log"}
    flat = [sample.logprobs for sample in samples]
    first = [f.end_indices[0] if f.end_indices else 0 for f in flat]
    sampled = (f.logprobs if len(f.logprobs) == len(f) else [f.logprobs[at] for at in f.start_indices] for f in flat)
    return {
        "ok": {
            "ids": pack_ids([*chain.from_iterable(sample.token_ids for sample in samples)]),
            "logprobs": pack_floats([*chain.from_iterable(sampled)]),
            "lengths": [len(sample.token_ids) for sample in samples],
            "versions": [[(v.version, v.end - v.start) for v in sample.weight_versions or ()] for sample in samples],
            "finish": [sample.finish_reason for sample in samples],
            "likeliest": [
                (pack_ids(f.token_ids[:end]), pack_floats(f.logprobs[:end])) for f, end in zip(flat, first, strict=True)
            ],
        }
    }


def main(argv: Sequence[str]) -> int:
    with socket.socket(socket.AF_UNIX) as agent:
        agent.connect(argv[0])
        engine = started(argv[1:])
        agent.sendall(frame({"call": HELLO, "ok": {"world_size": engine.world_size}}))
        serve(agent, engine)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
