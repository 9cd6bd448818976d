"""The table of `make gpu-short`: what is said of a part that passes, fails, hangs, is skipped or comes too late."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_short", ROOT / "tests" / "gpu" / "short.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_short", module)  # dataclasses look it up
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "LOGS", tmp_path)
    return module


def said(short: ModuleType, script: str, limit_s: float = 20.0, left_s: float = 60.0) -> str:
    part = short.Part("part", limit_s, "this", ("-c", script), ("-c", ""))
    return short.one(part, part.command, time.monotonic() + left_s, False).split("|")[2].strip()


def test_a_part_passes_only_where_something_has_run(short: ModuleType) -> None:
    assert said(short, "print('2 passed in 1 s')") == "passed"
    assert said(short, "print('gpu: no CUDA device, left out')").startswith("skipped")
    assert said(short, "print('1 skipped, 3 deselected in 1 s')").startswith("skipped")
    assert said(short, "print('1 passed, 1 skipped in 1 s')").startswith("skipped")
    assert said(short, "import sys; print('why'); sys.exit(3)") == "**failed, 3**: why"


def test_a_part_that_hangs_is_ended_with_all_that_it_started(short: ModuleType, tmp_path: Path) -> None:
    child = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
    assert said(short, f"{child}; print(p.pid, flush=True); p.wait()", limit_s=0.7) == "**not done in its time**"
    number = int((tmp_path / "part.log").read_text())
    end = time.monotonic() + 5
    while Path(f"/proc/{number}").exists() and "Z" not in Path(f"/proc/{number}/stat").read_text().split()[2]:
        assert time.monotonic() < end, "its child lives on"
        time.sleep(0.02)


def test_a_part_that_has_no_time_left_is_not_begun(short: ModuleType, tmp_path: Path) -> None:
    assert said(short, "print()", left_s=10.0) == "not begun: 10 s were left"
    assert os.listdir(tmp_path) == []


def test_what_has_never_run_fits_into_twelve_minutes_however_long_it_takes(short: ModuleType) -> None:
    limits = {part.name: part.limit_s for part in short.PARTS}
    assert sum(limits[name] for name in ("check", "experts", "capped", "adapters", "eval", "benchmark")) <= 12 * 60
