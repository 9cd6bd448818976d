"""The hub's own library on a folder of this machine: the same call that pulls a data set from the hub."""

import json
from pathlib import Path

import pytest

from chorus.problems.sources import load_problems

pytest.importorskip("datasets", reason="datasets is not installed")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in ("huggingface_hub.constants", "datasets.config"):  # both read the environment when they are imported
        monkeypatch.setattr(f"{module}.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    folder.mkdir()
    for split, texts in {"train": ["1 + 1?", "1 + 2?"], "test": ["2 + 2?"]}.items():
        rows = [{"question": text, "answer": sum(map(int, text[:-1].split("+")))} for text in texts]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_folder_is_read_split_by_split(folder: Path):
    train = load_problems(f"hub:{folder}?problem=question")
    assert [(p.problem, p.answers) for p in train] == [("1 + 1?", ["2"]), ("1 + 2?", ["3"])]
    test = load_problems(f"hub:{folder}:test?problem=question")
    assert [(p.problem, p.answers) for p in test] == [("2 + 2?", ["4"])]


def test_a_split_and_a_set_that_are_not_there_are_one_line(folder: Path):
    for spec in (f"hub:{folder}:dev", "hub:nobody/nothing"):
        with pytest.raises(ValueError, match="`datasets` can't load it") as caught:
            load_problems(spec)
        assert "\n" not in str(caught.value)
