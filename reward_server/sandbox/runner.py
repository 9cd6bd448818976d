"""The child: limits, filter, then the model's program. From `Filter.load` on nothing here can be trusted."""

from __future__ import annotations

import atexit
import builtins
import contextlib
import json
import os
import resource
import sys
import types
from typing import Any

from . import libc, prelude
from .syscalls import Filter

VALUE_FD = 3
STARTED = b"R"  # the first byte of the value: the walls stood before the program ran. It cannot be taken back
COMPILE_FAILED = 86  # exit status; a program that fakes it fakes its own failure
_OPEN_FILES = 32
_THREADS = 32
_NOTHING = (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE, resource.RLIMIT_MSGQUEUE, resource.RLIMIT_MEMLOCK)


def become(pipes: list[int], filter: Filter, limits: dict[str, Any]) -> None:
    """Take the four pipes, close all else, and give up what a program does not need. There is no way back."""
    libc.die_with_parent()
    for fd, pipe in enumerate(pipes):
        os.dup2(pipe, fd)  # 0 to 2 are /dev/null in the supervisor and 3 is its own: no pipe is overwritten
    os.closerange(len(pipes), 1024)
    for nothing in _NOTHING:
        _limit(nothing, 0)
    _limit(resource.RLIMIT_AS, limits["memory_bytes"])
    _limit(resource.RLIMIT_CPU, limits["cpu_s"])
    _limit(resource.RLIMIT_NPROC, _THREADS)  # threads count; processes are refused anyway
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    filter.load(os.getpid())
    os.write(VALUE_FD, STARTED)


def run(source: str, test: dict[str, Any]) -> None:
    """Run the program as a script, or import it and call its function; then end the process.

    What the program raises travels, so that Python itself reports it and sets the exit status.
    """
    name = "__main__" if "stdin" in test else "solution"
    module = types.ModuleType(name)
    sys.modules[name] = module
    sys.argv = ["solution.py"]
    builtins.exit = builtins.quit = sys.exit  # scripts use them; -S leaves them out
    try:
        code = compile(source, "solution.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, MemoryError, RecursionError, OverflowError) as error:
        os.write(2, f"{type(error).__name__}: {error}".encode(errors="replace"))
        os._exit(COMPILE_FAILED)
    for line in prelude.lines(code):
        with contextlib.suppress(ImportError):  # a name that this Python does not have yet
            exec(line, module.__dict__)
    exec(code, module.__dict__)
    if "stdin" not in test:
        value = _call(module, test["function"], test["args"])
        data = memoryview(json.dumps(value).encode())
        while data:
            data = data[os.write(VALUE_FD, data) :]
    else:
        _finish_threads()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)  # taking the interpreter apart takes ten times as long as all the rest


def _finish_threads() -> None:
    """Wait for threads as the end of a script does: `Thread(target=main).start()` is all some programs say."""
    threading = sys.modules.get("threading")
    while threading is not None:
        others = [t for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
        if not others:
            break
        others[0].join()


def _limit(which: int, value: int) -> None:
    """Hard and soft alike, so that a program meets SIGKILL and not a signal it could catch; never above what is."""
    hard = resource.getrlimit(which)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, value))


def _call(module: types.ModuleType, function: str, args: list[Any]) -> Any:
    """`name` or `Class.method` (the class is made without arguments)."""
    owner, _, name = function.rpartition(".")
    return getattr(getattr(module, owner)() if owner else module, name)(*args)
