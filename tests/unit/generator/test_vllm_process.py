"""The loop around the engine, and the frames that go in and out."""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from enum import Enum
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standin import GROUP, StandIn, served

from chorus.generator.vllm_process import Vllm, serve
from chorus.generator.wire import Frames, frame

MESSAGES = st.lists(st.fixed_dictionaries({"call": st.integers(0, 2**40), "ok": st.binary(max_size=300)}), max_size=5)


@given(MESSAGES, st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_messages_come_out_as_they_went_in_however_the_stream_is_cut(
    messages: list[dict[str, Any]], cuts: list[int]
) -> None:
    data, frames, found = b"".join(map(frame, messages)), Frames(), []
    for size in [*cuts, len(data)]:
        piece, data = data[:size], data[size:]
        found += frames.feed(piece)
    assert found == messages


def ask(agent: socket.socket, *messages: dict[str, Any]) -> None:
    agent.sendall(b"".join(map(frame, messages)))


def hear(agent: socket.socket, wanted: int) -> list[dict[str, Any]]:
    agent.settimeout(10)
    frames, found = Frames(), []
    while len(found) < wanted:
        found += frames.feed(agent.recv(2**20))
    return found


def test_a_call_is_answered_between_two_steps_of_a_group_that_goes_on() -> None:
    engine = StandIn(steps=10**9)
    with served(engine) as agent:
        ask(agent, {"call": 1, "do": "generate"}, {"call": 2, "do": "ping"})
        assert hear(agent, 1) == [{"call": 2, "ok": {}}]
        assert engine.busy
        ask(agent, {"call": 3, "do": "receive"}, {"call": 1, "do": "abort"}, {"call": 4, "do": "ping"})
        assert hear(agent, 2) == [{"call": 3, "error": "RuntimeError: no such group"}, {"call": 4, "ok": {}}]
        assert not engine.busy


def hear_of(engine: StandIn, calls: int) -> bool:
    """Whether it is asked so often within some seconds."""
    end = time.monotonic() + 5
    while len(engine.asked) < calls and time.monotonic() < end:
        time.sleep(0.01)
    return len(engine.asked) == calls


def test_groups_that_the_agent_is_too_busy_to_read_do_not_stop_the_engine() -> None:
    engine = StandIn(GROUP | {"ids": bytes(2**20)})
    with served(engine) as agent:
        ask(agent, *({"call": n, "do": "generate"} for n in range(1, 9)))
        assert hear_of(engine, 8)
        time.sleep(0.1)  # far more lies there by now than a socket holds
        ask(agent, {"call": 9, "do": "generate"})
        assert hear_of(engine, 9)
        answers = hear(agent, 9)
    assert sorted(answer["call"] for answer in answers) == list(range(1, 10))
    assert {len(answer["ok"]["ids"]) for answer in answers} == {2**20}


def test_an_error_in_a_step_ends_the_loop() -> None:
    class Broken(StandIn):
        def step(self) -> Any:
            raise RuntimeError("CUDA error")

    ours, theirs = socket.socketpair()
    with ours, theirs:
        ask(ours, {"call": 1, "do": "generate"})
        with pytest.raises(RuntimeError, match="CUDA error"):
            serve(theirs, Broken())


def test_an_agent_that_is_gone_ends_the_loop_whatever_is_under_way() -> None:
    ours, theirs = socket.socketpair()
    loop = threading.Thread(target=serve, args=(theirs, StandIn(steps=10**9)), daemon=True)
    loop.start()
    ask(ours, {"call": 1, "do": "generate"}, {"call": 2, "do": "ping"})
    ours.close()  # with an answer that it has not read: a reset, not an end
    loop.join(10)
    assert not loop.is_alive()
    theirs.close()


class PauseState(Enum):
    """As in vLLM."""

    UNPAUSED = 0
    PAUSED_ALL = 2


class Device:
    """In the place of vLLM's engine on a GPU: steps that have begun end later, `ends` says with which calls each."""

    def __init__(self, *ends: list[int]) -> None:
        self.batch_queue = deque(ends)
        self.done: list[str] = []
        self.scheduler = SimpleNamespace(
            pause_state=PauseState.UNPAUSED, set_pause_state=lambda to: self.done.append(to.name)
        )
        self.engine_core = SimpleNamespace(engine_core=self)
        self.states: list[list[str | None]] = []  # what its workers say, each time that they are looked after
        self.fails = ""

    def collective_rpc(self, method: str, kwargs: dict[str, Any]) -> list[Any]:
        word = method.removeprefix("weights_")
        if word == "go_on":
            return self.states.pop(0)
        if word == self.fails:
            raise RuntimeError(f"no {word}")
        self.done.append(" ".join(map(str, [word, *kwargs.values()])))
        return []

    def set_weight_version(self, version: str) -> None:
        self.done.append(f"version {version}")

    def resume_scheduler(self) -> None:
        self.done.append("resumed")

    def step(self) -> list[Any]:
        self.done.append("step")
        return [SimpleNamespace(request_id=str(number), outputs=[]) for number in self.batch_queue.popleft()]

    def pause_scheduler(self, mode: str, clear_cache: bool) -> None:
        assert not self.batch_queue, "the device is at work"
        self.done.append(f"{mode}, {clear_cache}")

    def abort_request(self, requests: list[str], internal: bool) -> None:
        self.done.append(f"abort {requests}")


def test_weights_are_put_in_place_once_what_a_device_has_under_way_is_taken_in() -> None:
    device = Device([1], [], [2, 3])
    engine = Vllm(device)
    engine._requests = {number: f"request {number}" for number in (1, 2, 3, 4)}
    answer = engine.call(5, "put_in_place", version="1.2", clear_cache=True)
    steps = ["PAUSED_ALL", "step", "step", "step", "keep, True", "put_in_place", "version 1.2", "resumed"]
    assert device.done == steps
    assert answer is not None
    assert 0 <= answer["pause_s"] < 1
    engine.call(2, "abort")
    device.batch_queue.append([4])
    assert [answer["call"] for answer in engine.step()] == [1, 3, 4], "2 is nobody's"
    assert engine.rest_s is None


def test_weights_that_can_t_be_put_in_place_leave_the_engine_sampling() -> None:
    device = Device()
    device.fails = "put_in_place"
    with pytest.raises(RuntimeError, match="no put_in_place"):
        Vllm(device).call(5, "put_in_place", version="1.2", clear_cache=False)
    assert device.done == ["PAUSED_ALL", "keep, False", "resumed"], "and its version is the one before"


def test_steps_go_on_while_weights_come_and_an_engine_at_rest_looks_for_them() -> None:
    device = Device([], [1])
    device.states = [[None, ""], [None, None], ["", ""]]
    engine = Vllm(device)
    engine._requests = {1: "request 1"}
    assert engine.call(7, "receive", info={"bucket_bytes": 8}) is None
    assert device.done == ["begin receive {'bucket_bytes': 8}"]
    assert engine.rest_s == 0.0
    assert [*engine.step()] == []
    assert [answer["call"] for answer in engine.step()] == [1]
    assert engine.rest_s is not None
    assert 0 < engine.rest_s < 0.1, "nobody asks for anything, and the bytes are still on their way"
    assert [*engine.step()] == [{"call": 7, "ok": {}}]
    assert engine.rest_s is None
    assert device.done[1:].count("step") == 2


def test_what_one_worker_could_not_receive_is_the_call_s_answer() -> None:
    device = Device()
    device.states = [["", "RuntimeError: connection reset"]]
    engine = Vllm(device)
    engine.call(7, "join", info={})
    assert [*engine.step()] == [{"call": 7, "error": "RuntimeError: connection reset"}]
