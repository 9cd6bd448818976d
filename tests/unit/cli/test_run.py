"""`chorus run --dry-run`: on this machine, or as if on another."""

from __future__ import annotations

from pathlib import Path

import pytest

from chorus.cli.main import main

DEMO = str(Path(__file__).parents[3] / "recipes" / "demo.toml")


def test_a_dry_run_shows_the_placement_on_gpus_that_are_not_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", DEMO, "--dry-run", "--gpus", "4", "--tokens-per-second", "1000"]) == 0
    text = capsys.readouterr().out
    assert "placement   learner on GPU 0, generators on GPU 1" in text
    assert "at most 13.7 min at 1,000 tokens/s, if" in text  # 50 x 256 x 64 tokens


def test_a_chat_template_that_is_not_there_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", DEMO, "--set", "templates.chat=my.jinja"]) == 3
    assert "templates.chat my.jinja: can't be read (" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "mend"),
    [
        ("--mean-tokens=0", "give a number above 0"),
        ("--mean-tokens=65", "no completion is longer than sampling.max_tokens = 64; give at most that"),
        ("--gpu-gib=-1", "give a number above 0"),
        ("--generator-rate=nan", "give a number above 0"),
    ],
)
def test_numbers_that_can_t_be_are_refused(option: str, mend: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", DEMO, "--dry-run", option]) == 3
    said = capsys.readouterr().err
    assert option.split("=")[0] in said
    assert mend in said
