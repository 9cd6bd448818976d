"""`/v1/grade` and `/v1/explain` without a server: the same grades, from one killable process behind this interpreter.

    grade() ──▶ event loop on a thread of its own ──▶ grader process ──▶ answer
    (any thread, a notebook's too)      │
                                        ├─ past its limit: killed, `timeout`; the next one is forked
                                        └─ interpreter ends: killed, by atexit or by the kernel

The process starts with the first grade, which so takes some seconds; each further one takes milliseconds. It is started
with its own command, so that a script needs no main guard. The thread lives as long as the interpreter does: the kernel
kills a grader as soon as the thread is gone that started it. After a fork the child starts a grader of its own.
"""

from __future__ import annotations

import asyncio
import atexit
import math
import numbers
import os
import threading
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypedDict, Unpack

from pydantic import ValidationError

from chorus.reward_server.api.schemas import ExplainResponse, GradeRequest, GradeResponse
from chorus.reward_server.api.service import Service
from chorus.reward_server.api.settings import Settings
from chorus.reward_server.graders.task import Asked

_END_S = 2.0
Gold = str | int | float  # a number is taken as its text


class How(TypedDict, total=False):
    """What may be said besides the completion and its gold; the defaults are those of `/v1/grade`."""

    kind: str
    template: str | None
    mode: str
    options: Sequence[str] | None
    tests: Sequence[dict[str, Any]] | None
    scoring: str


def grade(completion: str, gold: Gold | Sequence[Gold] | None = None, **how: Unpack[How]) -> GradeResponse:
    r"""Grade a completion (the model's text after the prompt) as a reward server with default settings does.

    `grade(r"... \boxed{7}", gold="7")` has the fields of `/v1/grade`: `.verdict`, `.accuracy`, `.format`, `.reward`,
    `.extracted`, `.verifier`, `.reason` and `.ms`. A verdict `timeout` or `error` is the verifier's failure: accuracy
    and reward are None then, never 0. `how`: kind, template, mode, options, tests and scoring, as in a request.

    Raises ValueError for what can't be graded (an unknown template or kind, no gold), with the field in its message,
    NoSandboxError for kind `code` on a machine without a sandbox, and PoolFailedError where no process can be started.
    """
    return GradeResponse(**_grader().ask(_request(completion, gold, how), "grade"))


def explain(completion: str, gold: Gold | Sequence[Gold] | None = None, **how: Unpack[How]) -> ExplainResponse:
    """Grade and tell the way to the grade: where the answer stood, what it was compared with, how often each marker
    occurs, and the parts of the reward. Takes and raises what `grade` does; has the fields of `/v1/explain`.
    """
    return ExplainResponse(**_grader().ask(_request(completion, gold, how), "explain"))


def _request(completion: str, gold: Gold | Sequence[Gold] | None, how: How) -> GradeRequest:
    """The checked request. Raises ValueError with the first thing that is wrong, in one line."""
    try:
        return GradeRequest.model_validate({"completion": completion, "gold": _golds(gold), **how})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{where}: {first['msg']} (got {first['input']!r:.80})") from None


def _golds(gold: Any) -> str | list[str] | None:
    """Numbers as their texts. Raises ValueError."""
    if gold is None:
        return None
    is_one = not isinstance(gold, Iterable) or isinstance(gold, str | bytes | Mapping)
    several = [gold] if is_one else [*gold]
    if not several or not all(isinstance(one, str) or _is_number(one) for one in several):
        raise ValueError(f"gold: {gold!r:.80} is no answer; give a text or a number, or a list of some of them")
    return str(gold) if is_one else [str(one) for one in several]


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


class LocalGrader:
    """The reward server's service on an event loop of its own. Any thread may ask."""

    def __init__(self, settings: Settings) -> None:
        self.service = Service(settings)  # reads the templates; raises ValueError for one that can't be read
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="chorus-grader", daemon=True)
        self._thread.start()

    def ask(self, request: GradeRequest, asked: Asked) -> dict[str, Any]:
        """The fields of a response. Waits no longer than the pool lets a job wait."""
        return self._wait(self.service.grade(request, asked))

    def close(self) -> None:
        """Kill the grader process; the thread ends with the interpreter."""
        with suppress(TimeoutError):
            self._wait(self.service.pools.close(), _END_S)

    def _serve(self) -> None:
        self._loop.call_soon(self.service.pools.start)
        self._loop.run_forever()

    def _wait(self, call: Coroutine[Any, Any, Any], timeout_s: float | None = None) -> Any:
        future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return future.result(timeout_s)
        except BaseException:
            future.cancel()
            raise


_lock = threading.Lock()
_current: LocalGrader | None = None
_of_parents: list[LocalGrader] = []  # kept for ever: what they hold belongs to another process


def _grader() -> LocalGrader:
    global _current
    with _lock:
        if _current is None or _current.service.pools.failed is not None:
            # No spare: after a timeout the next one is there within milliseconds.
            _current = LocalGrader(Settings(workers=1, spares=0))
        return _current


def _close() -> None:
    if _current is not None:
        _current.close()


def _after_fork() -> None:
    """Begin anew in the child. The parent's grader is not touched: its pipes and its epoll are the parent's, too."""
    global _current, _lock
    _lock = threading.Lock()  # another thread may have held it
    if _current is not None:
        _of_parents.append(_current)
        _current = None


atexit.register(_close)
os.register_at_fork(after_in_child=_after_fork)
