"""`chorus view`: which runs it shows, to whom, and what today's graders say of an answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from viewedrun import HOSTILE, TEXTS, viewed_run

from chorus.cli.main import main
from chorus.cli.view import find_runs, judging, live_lines
from chorus.protocol.runtime.exits import CANNOT_GO_ON, CannotGoOn


def test_nobody_else_is_answered_without_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CHORUS_VIEW_TOKEN", raising=False)
    viewed_run(tmp_path / "demo", steps=0)
    assert main(["view", str(tmp_path), "--host", "0.0.0.0", "--port", "0"]) == CANNOT_GO_ON
    assert "set CHORUS_VIEW_TOKEN to a token" in capsys.readouterr().err


def test_runs_are_found_by_their_folders_and_by_the_folder_that_holds_them(tmp_path: Path) -> None:
    runs = [viewed_run(tmp_path / "runs" / name, steps=0) for name in ("a", "b")]
    (tmp_path / "runs" / ".cache").mkdir()
    assert {run.name for run in find_runs((tmp_path / "runs",))} == {"a", "b"}
    assert [run.name for run in find_runs((runs[1].path,))] == ["b"]
    viewed_run(tmp_path / "other" / "a", steps=0)
    for wrong, why in (
        ((tmp_path / "none",), "no such folder"),
        ((tmp_path / "runs" / ".cache",), "there is no run in it yet"),
        ((runs[0].path, tmp_path / "other" / "a"), "have the same name"),
    ):
        with pytest.raises(CannotGoOn, match=why):
            find_runs(wrong)


@pytest.mark.usefixtures("inline_graders")
async def test_an_answer_is_judged_again_with_the_run_s_own_settings(tmp_path: Path) -> None:
    run = viewed_run(tmp_path / "run", steps=0, problems={"train": ["any"]}, templates={"names": ["abel"]})
    sample = {"kind": "math", "gold": ["7"], "tests": None, "row": None, "template": "abel"}
    sample |= {"options": [], "sub_answers": []}
    async with judging(1) as judge:
        verdicts = [(await judge(run, sample | {"text": text}))["verdict"] for text in (TEXTS[0], TEXTS[2], HOSTILE)]
    assert verdicts[:2] == ["correct", "wrong"]
    assert verdicts[2] in ("wrong", "no_answer")


def test_of_a_run_that_is_over_the_files_are_told(tmp_path: Path) -> None:
    assert live_lines(viewed_run(tmp_path / "run", steps=2, redis={"url": "redis://127.0.0.1:1/0"}))
