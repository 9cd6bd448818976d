"""Settings for machines that exist: each fits by a dry run of its command, and the pages tell what is counted."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from chorus.cli.main import main
from chorus.deploy.tools.gpu_tables import MACHINES, TABLES, Machine, written

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.title)
def test_each_command_fits_its_machine(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs" / "gpus.md").read_text(encoding="utf-8")
    [row] = [line for line in page.splitlines() if line.startswith(f"| {machine.title} | `{machine.command}` |")]
    assert main(shlex.split(machine.dry_run)[1:]) == 0
    told = capsys.readouterr().out
    assert f"verdict     fits {machine.cards} x {machine.gib} GiB: learner " in told
    assert "stays idle" not in told
    assert f"expected {row.split(' | ')[-1].rstrip(' |')}, with completions of {machine.mean} tokens" in told


def test_the_small_card_s_recipe_also_fits_one_that_has_22_5_gib(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["run", MACHINES[0].recipe, "--dry-run", "--gpus", "1", "--gpu-gib", "22.5"]) == 0
    assert "verdict     fits 1 x 22.5 GiB: learner " in capsys.readouterr().out


@pytest.mark.parametrize("file", TABLES)
def test_the_tables_of_the_pages_are_what_is_counted(file: str) -> None:
    page = (ROOT / file).read_text(encoding="utf-8")
    assert page == written(page, file), "python deploy/tools/gpu_tables.py writes it again"
