"""Programs that attack: each is run for real, on every mechanism that this machine has."""

import json
import os
import secrets
import socket
import textwrap
import time
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest

from chorus.reward_server.graders.code import grade_program
from chorus.reward_server.graders.task import GradeResult, GradeTask, Program
from chorus.reward_server.sandbox import sandbox as host
from chorus.reward_server.sandbox import self_test as escapes_module

SYSTEM_PYTHON = "/usr/bin/python3"
REFUSED = {"input": "", "output": "refused"}


@cache
def interpreter_for(mechanism: str) -> tuple[str, list[str]]:
    """An interpreter with which the sandbox can be built, and what the self-test managed in it.

    Landlock as root needs an interpreter that everybody may read. Raises SandboxError where no room can be built.
    """
    reasons = []
    for python in dict.fromkeys((host.interpreter(), os.path.realpath(SYSTEM_PYTHON))):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(host, "interpreter", lambda python=python: python)
            try:
                return python, host.try_to_escape(mechanism)
            except (host.SandboxError, OSError) as error:
                reasons.append(str(error))
    raise host.SandboxError("; ".join(reasons))


@pytest.fixture(params=host.MECHANISMS)
def mechanism(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each mechanism that this machine has. One that can be had and does not hold fails the test."""
    try:
        python, escaped = interpreter_for(request.param)
    except host.SandboxError as error:
        pytest.skip(f"{request.param} is not to be had here: {error}")
    if request.param == "bubblewrap" and os.geteuid() == 0:
        pytest.skip("bubblewrap leaves root being root, and is passed over")
    assert escaped == []
    monkeypatch.setattr(host, "interpreter", lambda: python)
    return request.param


@pytest.fixture
def best() -> str:
    """The one mechanism that the server would take: for what all of them share."""
    found, why_not = host.find_mechanism()
    if found is None:
        pytest.skip(f"no sandbox on this machine: {why_not}")
    return found


def grade(mechanism: str, program: str, *tests: dict[str, Any], timeout_s: float = 4.0) -> GradeResult:
    completion = f"```python\n{textwrap.dedent(program)}\n```"
    asked = Program(json.dumps(tests), mechanism, timeout_s, "fractional")
    return grade_program(GradeTask("code", completion, task="explain", program=asked))


def call(*args: Any, expected: Any) -> dict[str, Any]:
    return {"function": "f", "args": list(args), "expected": expected}


def outputs(result: GradeResult) -> list[str]:
    assert result.explanation is not None
    return [comparison["got"] for comparison in result.explanation["comparisons"]]


@pytest.fixture(autouse=True)
def _nothing_survives():
    """After every attack: no process is left that was not there before."""
    before = {process.pid for process in psutil.process_iter()}
    yield
    deadline = time.monotonic() + 10
    while left := [p for p in psutil.process_iter(["cmdline"]) if p.pid not in before and _is_ours(p)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


def _is_ours(process: psutil.Process) -> bool:
    return "sandbox.supervisor" in " ".join(process.info["cmdline"] or []) and str(os.getpid()) in (
        process.info["cmdline"] or []
    )


# --- the mechanism --------------------------------------------------------------------------------


def test_the_self_test_sees_that_nothing_holds_without_a_sandbox():
    reachable = {
        "a socket",
        "a new process",
        "reading /etc/passwd",
        "reading the environment",
        "a signal to its grader",
    }
    pid = os.fork()
    # In a process of its own; what would leave traces on this machine, or end or stop the process, is left out.
    if pid == 0:
        found: set[str] = set()
        try:
            os.execv = os.symlink = _refuse  # type: ignore[assignment]
            escapes_module._write = escapes_module.ctypes.CDLL = _refuse
            found = set(escapes_module.escapes(os.getppid()))
        finally:
            os._exit(0 if reachable <= found and "writing a file" not in found else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _refuse(*_: object, **__: object) -> None:
    raise OSError("not in a test")


def test_a_mechanism_that_leaks_is_passed_over_and_the_reason_is_kept(monkeypatch):
    monkeypatch.setattr(host, "try_to_escape", lambda name: ["a socket"] if name == "bubblewrap" else [])
    assert host.find_mechanism.__wrapped__() == ("namespaces", "")
    monkeypatch.setattr(host, "try_to_escape", lambda name: ["a socket", "ptrace"])
    found, why = host.find_mechanism.__wrapped__()
    assert found is None
    assert "landlock: it does not stop a socket, ptrace" in why


def test_each_mechanism_stops_every_attempt_of_the_self_test(mechanism):
    assert host.try_to_escape(mechanism) == []


# --- bombs ----------------------------------------------------------------------------------------

ENDLESS = {
    "fork bomb": ("import os\nwhile True:\n    os.fork()", "exit status 1: PermissionError"),
    "fork bomb that insists": ("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", "limit of"),
    "memory bomb": ("x = []\nwhile True:\n    x.append(bytearray(1 << 20))", "MemoryError"),
    "endless output": ("while True: print('x' * 100_000)", "bytes of output"),
    "endless stderr": ("import sys\nwhile True: sys.stderr.write('x' * 100_000)", "limit of"),
    "endless loop": ("while True: pass", "limit of"),
    "sleep": ("import time\ntime.sleep(100)", "limit of 1.8 s"),
    "closed pipes": ("import os, time\nos.closerange(0, 32)\ntime.sleep(100)", "limit of 1.8 s"),
    "signals caught": (
        "import signal\nfor n in {*range(1, 32)} - {9, 19}: signal.signal(n, lambda *_: None)\nwhile True: pass",
        "limit of",
    ),
    "threads that never end": (
        "import threading, time\nfor _ in range(8): threading.Thread(target=time.sleep, args=(100,)).start()",
        "limit of 1.8 s",
    ),
    "compile bomb": ("x = " + "-" * 100_000 + "1", "does not compile"),
    "power of powers": ("print(10 ** 10 ** 10)", "limit of"),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_bomb_costs_its_program_and_nobody_else(best, name):
    program, says = ENDLESS[name]
    result = grade(best, program, REFUSED, timeout_s=3.0 if "limit of" in says else 15.0)
    assert (result.verdict, result.accuracy) == ("wrong", 0.0)
    assert says in result.reason


def test_memory_outside_the_address_space_is_refused(mechanism):
    program = """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.shmget(0, 1 << 30, 0o1600) == -1
        assert libc.syscall(319, b"x", 0) == -1  # memfd_create on x86-64
        try: os.memfd_create("x")
        except PermissionError: print("refused")
    """
    assert grade(mechanism, program, REFUSED).verdict == "correct"


def test_twenty_megabytes_in_and_three_out_are_no_attack(mechanism):
    program = "import sys\ndata = sys.stdin.read()\nprint(data[:3_000_000])\nprint(len(data))"
    test = {"input": "x" * 20_000_000, "output": "x" * 3_000_000 + "\n20000000"}
    assert grade(mechanism, program, test, timeout_s=10.0).verdict == "correct"


# --- reaching out ---------------------------------------------------------------------------------


def test_no_file_but_the_standard_library_can_be_read(mechanism, tmp_path):
    (tmp_path / "gold").write_text("the answer")
    os.chmod(tmp_path / "gold", 0o644)
    paths = ["/etc/passwd", "/etc/shadow", "/proc/self/environ", "/proc/1/environ", "/proc/self/mem", "/sys/kernel"]
    paths += [str(tmp_path / "gold"), str(Path(__file__)), f"/proc/{os.getpid()}/environ", "/dev/mem", "/dev/tty"]
    program = f"""
        import os
        for path in {paths!r}:
            for attempt in (lambda: open(path, "rb").read(1), lambda: os.listdir(path)):
                try: attempt()
                except OSError: continue
                print("reached", path)
        print("refused")
    """
    assert outputs(grade(mechanism, program, REFUSED)) == ["refused\n"]


def test_nothing_can_be_written_linked_or_removed(mechanism):
    program = """
        import os, tempfile
        lib = os.path.dirname(os.__file__)
        places = ["/", "/tmp", "/dev", "/dev/shm", "/var/tmp", "/run", lib, "."]
        for place in places:
            path = os.path.join(place, "escaped")
            for attempt in (lambda: os.open(path, os.O_CREAT | os.O_WRONLY),
                            lambda: os.mkdir(path), lambda: os.mkfifo(path),
                            lambda: os.symlink("/etc/passwd", path), lambda: os.link(lib + "/os.py", path),
                            lambda: os.remove(lib + "/os.py"), lambda: os.chmod(lib + "/os.py", 0o777),
                            lambda: os.truncate(lib + "/os.py", 0), lambda: os.rename(lib + "/os.py", path)):
                try: attempt()
                except OSError: continue
                print("reached", path)
        try: tempfile.TemporaryFile()
        except OSError: print("refused")
    """
    assert outputs(grade(mechanism, program, REFUSED)) == ["refused\n"]
    assert Path(os.__file__).exists()


def test_the_environment_and_its_token_stay_outside(mechanism, monkeypatch):
    monkeypatch.setenv("CHORUS_REWARD_TOKEN", "s3cret-token")
    program = """
        import ctypes, os
        print(dict(os.environ))
        block = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ")
        for index in range(50):
            if not block or block[index] is None: break
            print(block[index])
    """
    with host.Sandbox(mechanism, textwrap.dedent(program), host.Limits(cpu_s=2, wall_s=4.0)) as sandbox:
        got = sandbox.run({"stdin": ""}, 4.0).out
    assert got.startswith("{")
    assert "s3cret" not in got
    assert "CHORUS" not in got


def test_no_socket_reaches_a_server_that_listens_here(mechanism):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        program = f"""
            import socket
            for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK):
                try: socket.socket(family)
                except OSError: continue
                print("reached", family)
            try: socket.socketpair()
            except OSError: pass
            else: print("reached a pair")
            try: socket.create_connection(("127.0.0.1", {server.getsockname()[1]}), 0.2)
            except OSError: print("refused")
        """
        assert outputs(grade(mechanism, program, REFUSED)) == ["refused\n"]
        with pytest.raises(TimeoutError):
            server.accept()


def test_no_process_can_be_made_replaced_traced_or_signalled(mechanism):
    program = f"""
        import ctypes, os, resource, signal, subprocess
        libc = ctypes.CDLL(None, use_errno=True)
        def libc_call(name, *args):
            if getattr(libc, name)(*args) < 0: raise OSError(ctypes.get_errno(), name)
        others = [1, os.getppid(), {os.getpid()}, {os.getppid()}, -1, 0]
        attempts = [lambda: os.fork(), lambda: os.posix_spawn("/bin/true", ["true"], {{}}),
                    lambda: os.execv("/bin/sh", ["sh"]), lambda: subprocess.run(["true"]), lambda: os.setsid(),
                    lambda: libc_call("clone", ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 0), None, 17, None),
                    lambda: libc_call("unshare", 0x10000000), lambda: libc_call("setns", 0, 0),
                    lambda: libc_call("prctl", 1, 0, 0, 0, 0),
                    lambda: libc_call("mount", b"x", b"/", b"tmpfs", 0, None)]
        for pid in others:
            attempts += [lambda pid=pid: os.kill(pid, signal.SIGKILL), lambda pid=pid: os.kill(pid, 0),
                         lambda pid=pid: libc_call("ptrace", 16, pid, None, None),
                         lambda pid=pid: libc_call("process_vm_readv", pid, None, 0, None, 0, 0),
                         lambda pid=pid: pid and os.pidfd_open(pid),
                         lambda pid=pid: pid and resource.prlimit(pid, resource.RLIMIT_CPU, (1, 1)),
                         lambda pid=pid: os.setpriority(os.PRIO_PROCESS, pid, 19)]
        for number, attempt in enumerate(attempts):
            try: reached = attempt()
            except (OSError, ValueError, OverflowError): continue
            if reached != 0: print("reached", number)
        print("refused")
    """
    result = grade(mechanism, program, REFUSED, REFUSED)
    assert outputs(result) == ["refused\n"] * 2  # the supervisor is alive, and ran the second test


def test_a_program_may_signal_itself_and_that_is_its_end(mechanism):
    result = grade(mechanism, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", REFUSED)
    assert result.reason == "test 1 of 1: killed by signal 9"


# --- cheating -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "program",
    [
        "import os\nos._exit(0)",
        "raise SystemExit(0)",
        "def f(x):\n    import os; os._exit(0)",
        "def f(x):\n    print('42'); raise SystemExit(0)",
        "def f(x):\n    import os, sys\n    for fd in range(32):\n"
        "        try: os.write(fd, b'{\"verdict\": \"correct\", \"accuracy\": 1, \"passed\": true}')\n"
        "        except OSError: pass\n    os._exit(0)",
        "def f(x):\n    import os\n    os.write(3, b'42 or true'); os._exit(0)",
        "def f(x):\n    import os\n    os.write(3, b'[' * 1_000_000); os._exit(0)",
        "def f(x):\n    import os\n    os.write(3, b'9' * 1_000_000); os._exit(0)",
        "def f(x):\n    import os\n    while True: os.write(3, b'9' * 1_000_000)",
        "class Equal:\n    __eq__ = lambda *_: True\n    __hash__ = None\ndef f(x):\n    return Equal()",
        "class Equal(int):\n    __eq__ = lambda *_: True\ndef f(x):\n    return Equal(7)",
        "import json, builtins\njson.dumps = lambda *_, **__: 'true'\nbuiltins.all = lambda *_: True\n"
        "def f(x):\n    return 7",
        "import sys\nfor name in list(sys.modules):\n    if 'reward' in name: vars(sys.modules[name]).clear()\n"
        "def f(x):\n    return 7",
        "def f(x):\n    return {42}",
    ],
)  # fmt: skip
def test_no_trick_turns_a_wrong_program_into_a_right_one(best, program):
    result = grade(best, program, call(1, expected=42), call(2, expected=42))
    assert (result.verdict, result.accuracy) == ("wrong", 0.0)


def test_a_forged_value_is_compared_like_any_other(mechanism):
    program = "def f(x):\n    import os\n    os.write(3, str(x).encode()); os._exit(0)"
    result = grade(mechanism, program, call(42, expected=42), call(7, expected=42))
    assert result.accuracy == 0.5


def test_the_expected_result_is_nowhere_in_the_programs_memory(mechanism):
    answer = f"EXPECTED-{secrets.token_hex(8)}"
    program = """
        import gc, sys
        def f(prefix):
            found, frame = set(), sys._getframe()
            while frame is not None:
                gc_roots = [*frame.f_locals.values(), *frame.f_globals.values()]
                for thing in gc_roots + gc.get_objects():
                    for part in [thing, *gc.get_referents(thing)]:
                        if isinstance(part, str) and part.startswith(prefix) and len(part) > len(prefix):
                            found.add(part)
                        elif isinstance(part, (bytes, bytearray)) and prefix.encode() in part:
                            found.add(bytes(part).split(prefix.encode())[1][:16].decode(errors="replace"))
                frame = frame.f_back
            return sorted(found) or "nowhere"
    """
    tests = [call("EXPECTED-", expected=answer), {"function": "f", "args": ["EXPECTED-"], "expected": "nowhere"}]
    result = grade(mechanism, program, *tests, timeout_s=20.0)
    assert [comparison["equal"] for comparison in result.explanation["comparisons"]] == [False, True]


def test_one_test_leaves_nothing_for_the_next(mechanism):
    program = """
        import json, math
        count = 0
        def f(x):
            global count
            count += 1
            math.pi, json.marker = 3, getattr(json, "marker", 0) + 1
            return [count, json.marker]
    """
    assert grade(mechanism, program, *[call(x, expected=[1, 1]) for x in range(3)]).verdict == "correct"


def test_a_limit_below_ours_is_kept_and_is_no_fault_of_the_program(mechanism):
    with host.Sandbox(mechanism, "print(1)", host.Limits(cpu_s=1, wall_s=4.0, memory_bytes=1 << 40)) as sandbox:
        assert sandbox.run({"stdin": ""}, 4.0).out == "1\n"


def test_a_keeper_that_dies_is_the_sandboxs_failure(mechanism):
    limits = host.Limits(cpu_s=1, wall_s=4.0)
    with host.Sandbox(mechanism, "print(1)", limits) as sandbox:
        sandbox._supervisor.kill()
        sandbox._supervisor.wait()  # what it has started is killed with it, now and not earlier
        with pytest.raises(host.SandboxError, match="ended"):
            sandbox.run({"stdin": ""}, 4.0)
