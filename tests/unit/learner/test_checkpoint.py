"""Which checkpoints count: whole ones, whose manifest was written last."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chorus.protocol.run_folder import checkpoints


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Whole checkpoints of the steps 5 and 10, and one of step 15 that a crash cut short."""
    for step in (5, 10, 15):
        path = tmp_path / f"step-{step:06d}"
        (path / "state").mkdir(parents=True)
        (path / "huggingface").mkdir()
        if step < 15:
            entries = {str(step): [f"{step}-0"]}
            manifest = {"step": step, "fence": 1, "entries": entries, "rolled_back_to": 5 if step == 10 else None}
            (path / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


def test_a_folder_without_a_manifest_is_no_checkpoint(folder: Path) -> None:
    assert checkpoints.latest(folder) == folder / "step-000010"
    assert checkpoints.oldest(folder) == folder / "step-000005"
    assert checkpoints.rollbacks(folder) == [10]


def test_pruning_keeps_the_newest_the_selected_and_every_manifest(folder: Path) -> None:
    checkpoints.prune(folder, 1)
    assert not (folder / "step-000005" / "state").exists()
    assert (folder / "step-000010" / "state").is_dir()
    assert checkpoints.read_manifest(folder / "step-000005").all_entries == ["5-0"]
    assert checkpoints.oldest(folder) == folder / "step-000010"
