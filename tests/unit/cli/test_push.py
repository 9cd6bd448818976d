"""A checkpoint for the hub: what --dry-run writes is what is uploaded, private, and tells nothing of this machine."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from evaluating import spec
from strictrecord import strict_record

from chorus.cli.data.model_card import without_secrets
from chorus.cli.main import main
from chorus.protocol.config.run import RunConfig
from chorus.protocol.run_folder import checkpoints
from chorus.protocol.run_folder.checkpoints import Manifest

SUMMARY = {
    "steps": 4, "wall_seconds": 1800.0, "accuracy": {"before": 0.25, "after": 0.75, "problems": 40},
    "greedy": {"before": 0.5, "after": 0.875}, "format": {"before": 0.9, "after": 1.0},
    "ledger": {"admitted": 17, "trained": 16, "dropped": {"stale": 1}, "outstanding": 0},
    "staleness": {"mean": 1.25, "max": 2}, "weights": {"syncs": 5, "logprob_gap_mean": 2e-6},
    "tokens": {"generated": 5000, "trained": 4000},
}  # fmt: skip
SECRET = "hf_" + "abcdefghij" * 3
BENCHMARK = {
    "title": "MATH-500", "problems": 500, "expected": 500, "accuracy": 0.625, "interval": [0.58, 0.67], "runs": None,
    "runs_std": None, "formatted": 1.0, "format": 1.0, "tokens_mean": 40.0, "tokens_max": 90, "truncated": 0.0,
    "ungraded": 0, "pass_at": {"1": 0.625}, "maj_at": {}, "by_level": {}, "by_subject": {},
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of four steps with two checkpoints, whose configuration names places and people."""
    folder = tmp_path / "somebody" / "runs" / "sums-1"
    folder.mkdir(parents=True)
    base = tmp_path / "somebody" / "models" / "tiny-base"
    config = RunConfig.model_validate(
        {
            "run": {"name": "sums", "dir": str(tmp_path / "somebody" / "runs"), "steps": 4},
            "model": {"path": str(base), "context": 512},
            "problems": {"train": [f"{tmp_path}/somebody/data/train.jsonl?limit=9"], "max_prompt_tokens": 128},
            "templates": {"names": ["qwen-math"]},
            "sampling": {"group_size": 4, "max_tokens": 64},
            "learner": {"groups_per_step": 2, "lr": 3e-5, "host": socket.gethostname()},
            "generator": {"vllm_args": ["--hf-token", SECRET, "--download-dir", f"{tmp_path}/somebody/cache"]},
            "redis": {"url": "redis://:password@10.0.0.7:6379/0"},
            "reward": {"url": "http://10.0.0.8:8100"},
            "trackers": {"wandb": "somebodys-project"},
        }
    )
    (folder / "config.json").write_text(config.model_dump_json())
    (folder / "run.json").write_text(json.dumps({"recipe": f"{tmp_path}/sums.toml", "started_at": 0}))
    (folder / "summary.json").write_text(json.dumps(SUMMARY))
    (folder / "selected.json").write_text('{"step": 2}')
    records = [strict_record(k, reward=k / 4) for k in (1, 2, 3, 4)]
    records[2]["alarms"] = [f"step 3: entropy is low; its log is {tmp_path}/somebody/logs/learner.log"]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    for step in (2, 4):
        path = checkpoints.folder_of(folder / "checkpoints", step)
        export = path / "huggingface"
        export.mkdir(parents=True)
        (export / "model.safetensors").write_bytes(b"weights of %d" % step)
        (export / "config.json").write_text(json.dumps({"_name_or_path": str(base), "hidden_size": 8}))
        (export / "tokenizer.json").write_text('{"model": {}}')
        checkpoints.write_manifest(path, Manifest(step, 1, {}))
    evaluated = {"spec": spec(run="sums-1", step=4, n=1).model_dump(mode="json"), "benchmarks": {"math500": BENCHMARK}}
    (folder / "evals" / "math").mkdir(parents=True)
    (folder / "evals" / "math" / "summary.json").write_text(json.dumps(evaluated))
    (folder / "learning_curves.png").write_bytes(b"picture")
    return folder


def pushed(run: Path, *more: str) -> Path:
    assert main(["push", str(run), "me/sums", "--dry-run", *more]) == 0
    return run / "hub" / "me--sums"


def test_a_dry_run_writes_the_checkpoint_with_its_card_and_says_where(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = pushed(run)
    assert {file.name for file in folder.iterdir()} == {
        *("README.md", "config.json", "learning_curves.png", "model.safetensors", "tokenizer.json"),
    }
    assert (folder / "model.safetensors").read_bytes() == b"weights of 4"
    assert capsys.readouterr().out == f"{folder}: this would be uploaded to me/sums, private\n"


def test_the_card_has_recipe_curves_benchmarks_with_intervals_and_the_accounts(run: Path) -> None:
    card = (pushed(run) / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- chorus\n")
    assert "\n# sums\n" in card
    assert "`tiny-base` after 4 steps" in card
    assert "| MATH-500 | 500 | 0.625 (0.580-0.670) |" in card
    assert "40 held-out problems" in card
    assert "| accuracy, greedy | 0.500 | 0.875 |" in card
    assert "![Learning curves](learning_curves.png)" in card
    assert "\n| 4 | 1.000 | 1.000 |" in card
    assert "17 groups were admitted: 16 trained, dropped 1 stale, 0 left over." in card
    assert '"lr": 3e-05' in card
    assert '"train.jsonl?limit=9"' in card
    assert "<|im_start|>user\nPROBLEM<|im_end|>" in card


def test_neither_the_card_nor_the_settings_hold_a_path_a_host_or_a_token(run: Path, tmp_path: Path) -> None:
    folder = pushed(run)
    for file in (folder / "README.md", folder / "config.json"):
        text = file.read_text()
        private = (str(tmp_path), "somebody", SECRET, socket.gethostname(), "10.0.0", "password", "redis", "sums.toml")
        assert [word for word in private if word in text] == []
    assert json.loads((folder / "config.json").read_text()) == {"_name_or_path": "tiny-base", "hidden_size": 8}


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("its log is /home/me/run/log.txt now", "its log is … now"),
        ("see ~/models/x, or ../models/x", "see …, or …"),
        ("at http://node7.lan:8100/v1 and 10.1.2.3:80", "at … and …"),
        (f"token {SECRET}", "token …"),
        *[(text, text) for text in ("3 tokens/s, and/or", "</think>\n<answer>", "1/2/3", "Qwen/Qwen2.5-1.5B")],
    ],
)
def test_what_is_of_this_machine_is_left_out_of_any_text(text: str, left: str) -> None:
    assert without_secrets(text) == left


def test_secrets_of_the_environment_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "sesame-open")
    monkeypatch.setattr(socket, "gethostname", lambda: "node7.cluster.lan")
    assert without_secrets("say sesame-open on node7, node7.cluster.lan or node77") == "say … on …, … or node77"


def test_the_selected_checkpoint_has_no_figures_of_the_last_one(run: Path) -> None:
    folder = pushed(run, "--checkpoint", "selected")
    card = (folder / "README.md").read_text()
    assert (folder / "model.safetensors").read_bytes() == b"weights of 2"
    assert "after 2 steps" in card
    assert "No benchmark of this checkpoint was measured." in card
    assert "\n| 4 | " not in card


def test_a_chat_template_of_ones_own_goes_with_the_model(run: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.jinja"
    own.write_text("{{ messages }}")
    config = json.loads((run / "config.json").read_text())
    config["templates"] |= {"chat": str(own), "chat_arguments": {"enable_thinking": False}}
    (run / "config.json").write_text(json.dumps(config))
    folder = pushed(run)
    assert (folder / "chat_template.jinja").read_text() == "{{ messages }}"
    assert (
        'the chat template that is in this repository, with {"enable_thinking": false}.'
        in (folder / "README.md").read_text()
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["me/../x"], "REPO me/../x: give NAME or OWNER/NAME"),
        (["me/x", "--checkpoint", "start"], "--checkpoint start: a run's first model is not of its making"),
        (["me/x", "--checkpoint", "3"], "has no weights of step 3; there are those of 2, 4"),
    ],
)
def test_what_can_not_be_pushed_is_refused(
    run: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(run), *arguments, "--dry-run"]) == 3
    assert words in capsys.readouterr().err


class Hub:
    """What huggingface_hub's client would do, and what it was asked."""

    def __init__(self, private: bool = True, fails: str = "") -> None:
        self.private, self.fails = private, fails
        self.created: dict[str, Any] = {}
        self.uploaded: dict[str, Any] = {}

    def create_repo(self, repo: str, **how: Any) -> Any:
        if self.fails:
            raise OSError(self.fails)
        self.created = {"repo": repo, **how}
        return type("Address", (str,), {"repo_id": repo})(f"https://hub/{repo}")

    def repo_info(self, repo_id: str) -> Any:
        return type("Info", (), {"private": self.private})

    def upload_folder(self, **what: Any) -> None:
        self.uploaded = what


def uploading(monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)


@pytest.mark.parametrize("public", [False, True])
def test_a_repository_is_private_unless_it_is_asked_to_be_public(
    run: Path, monkeypatch: pytest.MonkeyPatch, public: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = Hub(private=not public)
    uploading(monkeypatch, hub)
    assert main(["push", str(run), "me/sums", *(["--public"] if public else [])]) == 0
    assert hub.created == {"repo": "me/sums", "private": not public, "exist_ok": True}
    assert hub.uploaded["folder_path"] == run / "hub" / "me--sums"
    assert capsys.readouterr().out == "uploaded to https://hub/me/sums\n"


@pytest.mark.parametrize(
    ("hub", "words"),
    [
        (Hub(private=False), "me/sums: it is there already, and public: give --public, or another name"),
        (
            Hub(fails="401 Unauthorized\nmore"),
            "me/sums: the hub does not take it (401 Unauthorized); log in, or set HF",
        ),
    ],
)
def test_what_the_hub_refuses_uploads_nothing(
    run: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    uploading(monkeypatch, hub)
    assert main(["push", str(run), "me/sums"]) == 3
    assert words in capsys.readouterr().err
    assert hub.uploaded == {}


def test_a_folder_is_written_anew(run: Path) -> None:
    (pushed(run) / "old.txt").write_text("old")
    assert not (pushed(run) / "old.txt").exists()
