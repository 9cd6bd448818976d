"""A user's own grader: its function is found and called here, in a worker that has nothing else to do.

    GraderSpec ─▶ load (once, at the worker's start) ─▶ run(task) ─▶ GradeResult with score and parts
    python -m chorus.reward_server.graders.own SPECS     says which of them can't be loaded, and why

What a function returns is taken at its word only where it is a finite number: anything else is a failure with one
reason, which masks the sample. Its folder is the first place that its imports are looked for, in this process alone.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import math
import numbers
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from chorus.protocol.graders import GROUP, GraderSpec, Result
from chorus.reward_server.graders.adapters import ADAPTERS, Call, DoesNotApply, WrongReturn
from chorus.reward_server.graders.task import ACCURACY, GradeResult, GradeTask

LOAD_LIMIT_S = 60.0
_MAX_REASON_CHARS = 300
_VERDICTS = tuple(ACCURACY)


class GraderError(ValueError):
    """A grader that can't be used. The message says which one, where it stands, and what would do."""


class OwnGrader:
    """One grader, loaded. Raises GraderError."""

    def __init__(self, spec: GraderSpec) -> None:
        self._spec = spec
        self._where = f"reward.graders: {spec.name}: {spec.function}"
        function = self._function()
        if what := _no_plain_function(function):
            raise GraderError(f"{self._where} {what}")
        try:
            self._call: Call = ADAPTERS[spec.interface](function, spec.columns)
        except (TypeError, ValueError) as error:
            raise GraderError(f"{self._where} {error}") from None

    def run(self, task: GradeTask) -> GradeResult:
        """Call it, and judge what it returns: a term may be any number, what decides accuracy is 0 to 1."""
        name, decides = self._spec.name, not task.term
        row = {"answers": list(task.golds), **json.loads(task.row or "{}")}
        try:
            returned = self._call(task.completion, row)
        except DoesNotApply:
            if decides:
                return self._failed("returned None, and decides accuracy: give a number for every problem of its kind")
            returned = 0.0
        except WrongReturn as error:
            return self._failed(str(error))
        except (MemoryError, RecursionError) as error:
            return self._failed("needed more memory than its limit" if isinstance(error, MemoryError) else "recurses")
        except (Exception, SystemExit) as error:
            return self._failed(f"raised {_described(error)}{self._place(error)}")
        try:
            result = returned if isinstance(returned, Result) else Result(_number(returned, "it"))
            score = _number(result.score, "its score")
            parts = {str(part): _number(value, f"its part {part!r}") for part, value in _parts(result.parts).items()}
            verdict = result.verdict or ("correct" if score >= 1.0 else "wrong")
            if verdict not in _VERDICTS:
                raise ValueError(f"returned the verdict {verdict!r:.40}; give one of {', '.join(_VERDICTS)}, or none")
        except ValueError as error:
            return self._failed(str(error))
        if decides and not 0.0 <= score <= 1.0:
            return self._failed(f"returned {score:g}, and decides accuracy: give 0 to 1, or make it a term")
        said = "; ".join([f"scores {score:g}", *(f"{part} {value:g}" for part, value in parts.items())])
        reason = None if result.reason is None else str(result.reason)[:_MAX_REASON_CHARS]
        extracted = None if result.extracted is None else str(result.extracted)
        return GradeResult(
            verdict=verdict,  # pyright: ignore[reportArgumentType]  # it is one of _VERDICTS
            accuracy=score if decides else ACCURACY[verdict],
            verifier=f"{name}: {self._spec.function}",
            extracted=extracted,
            reason=reason,
            explanation=_explanation(task, name, verdict, reason or said) if task.task == "explain" else None,
            score=score,
            parts=parts,
        )

    def _failed(self, reason: str) -> GradeResult:
        return GradeResult.failed(
            f"{self._spec.name}: {self._spec.function}", f"{self._spec.name}: {reason}"[:_MAX_REASON_CHARS]
        )

    def _function(self) -> Callable[..., Any]:
        file, colon, name = self._spec.function.rpartition(":")
        found = self._from_file(Path(file), name) if colon else self._from_entry_point()
        if not callable(found):
            raise GraderError(f"{self._where} is a {type(found).__name__}, and no function")
        return found

    def _from_file(self, file: Path, name: str) -> Any:
        if not file.is_file():
            raise GraderError(
                f"{self._where}: there is no file {file} in {os.getcwd()}; paths are relative to the folder in which "
                "the command is started"
            )
        module_name = file.stem if file.stem not in sys.modules else f"chorus_grader_{file.stem}"
        spec = importlib.util.spec_from_file_location(module_name, file.resolve())
        if spec is None or spec.loader is None:
            raise GraderError(f"{self._where}: {file} is no Python file; give it as FILE.py:FUNCTION")
        sys.path.insert(0, str(file.resolve().parent))
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            raise GraderError(f"{self._where}: loading it raised {_described(error)}{self._place(error)}") from None
        if not hasattr(module, name):
            known = ", ".join(key for key, value in vars(module).items() if inspect.isfunction(value)) or "none"
            raise GraderError(f"{self._where}: there is no {name!r} in it; its functions are: {known}")
        return getattr(module, name)

    def _from_entry_point(self) -> Any:
        found = entry_points(group=GROUP)
        if self._spec.function not in found.names:
            known = ", ".join(sorted(found.names)) or "none is installed"
            raise GraderError(
                f"{self._where}: there is no entry point of that name in the group {GROUP} ({known}); install its "
                "package, or give FILE.py:FUNCTION"
            )
        try:
            return found[self._spec.function].load()
        except Exception as error:
            raise GraderError(f"{self._where}: loading it raised {_described(error)}") from None

    def _place(self, error: BaseException) -> str:
        """The last line of the traceback that stands in the user's folder."""
        folder = Path(self._spec.function.rpartition(":")[0] or ".").resolve().parent
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).parent == folder]
        return f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""


def _no_plain_function(function: Callable[..., Any]) -> str | None:
    """What else it is, and the mend; None where calling it gives its result."""
    called = function if inspect.isroutine(function) or isinstance(function, partial) else type(function).__call__
    if inspect.isclass(function):
        return "is a class; give a function, or an instance that can be called, made in the file"
    if inspect.iscoroutinefunction(called):
        return "is async; a grader is a plain function (it has a process to itself)"
    if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
        return "is a generator; write `return` where it says `yield`"
    return None


def unusable(specs: Sequence[GraderSpec]) -> str | None:
    """Why one of these graders can't be used; None where all can. They are loaded in a process that ends with it."""
    if not specs:
        return None
    told = json.dumps([spec.model_dump(mode="json") for spec in specs])
    command = [sys.executable, "-P", "-m", __name__]
    try:
        done = subprocess.run(command, input=told, stdout=subprocess.PIPE, text=True, timeout=LOAD_LIMIT_S)
    except subprocess.TimeoutExpired:
        return f"reward.graders: they are not loaded after {LOAD_LIMIT_S:g} s; do less when the file is imported"
    if done.returncode == 0:
        return None
    return done.stdout.strip() or f"reward.graders: the process that loads them ended with status {done.returncode}"


def _main() -> int:
    out = os.dup(1)
    os.dup2(2, 1)  # what a file prints when it is imported is no message of ours
    try:
        for spec in json.load(sys.stdin):
            OwnGrader(GraderSpec.model_validate(spec))
    except GraderError as error:
        os.write(out, str(error).encode(errors="replace"))
        return 1
    return 0


def _number(value: Any, what: str) -> float:
    """Raises ValueError with the reason."""
    if not isinstance(value, numbers.Real):
        shown = "None" if value is None else f"{value!r:.60} ({type(value).__name__})"
        raise ValueError(f"returned {shown} where {what} must be a number; give a float or a Result")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"returned {number} where {what} must be a finite number")
    return number


def _parts(parts: Any) -> Mapping[Any, Any]:
    if not isinstance(parts, Mapping):
        raise ValueError(f"returned parts that are a {type(parts).__name__}; give a dict of names and numbers")
    return parts


def _described(error: BaseException) -> str:
    said = next(iter(str(error).splitlines()), "")[:200]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _explanation(task: GradeTask, name: str, verdict: str, reason: str) -> dict[str, Any]:
    gold = ", ".join(task.golds)
    compared = {"gold": gold, "normalised": gold, "equal": verdict == "correct", "rule": name, "reason": reason}
    return {"extraction": None, "normalised": None, "comparisons": [compared]}


if __name__ == "__main__":
    sys.exit(_main())
