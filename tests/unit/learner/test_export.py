"""An export is a folder that the model's own family loads: its weights, all of its tokenizer, its chat template."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint import state_dict_saver
from transformers import AutoModelForCausalLM, AutoTokenizer

from chorus.learner.training import export as exports
from chorus.learner.training.checkpoint import save
from chorus.learner.training.distributed import DistributedTrainer
from chorus.learner.training.export import Export, check_export
from chorus.learner.training.policy import Policy, load_policy
from chorus.learner.training.sharding import whole
from chorus.problems.rendering import load_tokenizer
from chorus.protocol.config.run import RunConfig
from chorus.protocol.run_folder.checkpoints import Manifest
from chorus.protocol.runtime.exits import CannotGoOn

CHAT = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
# transformers refuses to write this one, which hub models have all the same.
GENERATION = {"do_sample": False, "temperature": 0.6, "top_p": 0.9, "eos_token_id": [2, 0]}


@pytest.fixture
def source(tiny_model: Path, tmp_path: Path) -> Path:
    folder = shutil.copytree(tiny_model, tmp_path / "source")
    (folder / "chat_template.jinja").write_text(CHAT)
    (folder / "generation_config.json").write_text(json.dumps(GENERATION))
    (folder / "vocab.json").write_text("{}")
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder


def config_of(source: Path) -> RunConfig:
    sections: dict[str, Any] = {
        "model": {"path": str(source), "dtype": "float32", "context": 400},
        "problems": {"train": ["any"], "max_prompt_tokens": 300},
        "templates": {"names": ["qwen-math"]},
        "sampling": {"max_tokens": 16},
    }
    return RunConfig.model_validate(sections)


@pytest.fixture
def policy(source: Path) -> Policy:
    return load_policy(config_of(source), torch.device("cpu"))


@pytest.fixture
def exported(policy: Policy, tmp_path: Path) -> Path:
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(1.0)
    path = tmp_path / "export"
    Export(policy, path).write(whole, first=True)
    return path


def test_its_family_loads_the_policy_as_it_is_with_all_that_belongs_to_it(
    exported: Path, policy: Policy, source: Path
) -> None:
    check_export(policy, exported)
    loaded: Any = AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32)
    for (name, ours), (_, theirs) in zip(policy.hf.named_parameters(), loaded.named_parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    assert AutoTokenizer.from_pretrained(exported).chat_template == CHAT
    assert load_tokenizer(str(exported)).chat_template == CHAT
    for name in ("generation_config.json", "vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"):
        assert (exported / name).read_bytes() == (source / name).read_bytes()
    assert loaded.generation_config.eos_token_id == [2, 0]


def test_what_is_too_much_for_one_file_stands_in_several(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 0 holds one file's tensors at a time."""
    monkeypatch.setattr(exports, "_FILE_BYTES", 3000)
    Export(policy, tmp_path / "export").write(whole, first=True)
    files = sorted((tmp_path / "export").glob("*.safetensors"))
    assert len(files) > 3
    assert all(len(load_file(file)) == 1 or file.stat().st_size < 3000 + 2000 for file in files)
    check_export(policy, tmp_path / "export")
    loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "export", dtype=torch.float32)
    for (name, ours), theirs in zip(policy.hf.named_parameters(), loaded.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def tensors(folder: Path, change: Any) -> None:
    file = folder / "model.safetensors"
    found = load_file(file)
    change(found)
    save_file(found, file, {"format": "pt"})


NORM = "model.layers.0.input_layernorm.weight"
BROKEN = {
    "missing keys: " + NORM: lambda p: tensors(p, lambda t: t.pop(NORM)),
    "unexpected keys: model.extra": lambda p: tensors(p, lambda t: t.update({"model.extra": torch.zeros(2)})),
    "mismatched keys: ": lambda p: tensors(p, lambda t: t.update({NORM: torch.zeros(3)})),
    "no tokenizer.json": lambda p: (p / "tokenizer.json").unlink(),
    "its chat template or its end of a turn": lambda p: (p / "chat_template.jinja").unlink(),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_an_export_that_is_not_the_model_is_refused_with_what_is_wrong(
    fault: str, exported: Path, policy: Policy
) -> None:
    BROKEN[fault](exported)
    with pytest.raises(CannotGoOn) as caught:
        check_export(policy, exported)
    assert fault in str(caught.value)


def test_the_check_changes_no_random_number(exported: Path, policy: Policy) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    check_export(policy, exported)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_checkpoint_of_a_model_whose_folder_is_gone_is_none(policy: Policy, source: Path, tmp_path: Path) -> None:
    shutil.rmtree(source)
    optimizers = {"optimizer": torch.optim.AdamW(policy.parameters())}
    with pytest.raises(CannotGoOn, match=r"there is no such folder"):
        save(tmp_path / "checkpoints", policy, optimizers, Manifest(1, 1, {}))
    assert not list(tmp_path.rglob("manifest.json"))


def test_a_checkpoint_holds_all_as_it_was_when_it_began_whatever_trains_meanwhile(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks = DistributedTrainer(config_of(source), torch.device("cpu"), None)
    policy, optimizer = ranks.trainer.policy, ranks.trainer.optimizer
    for parameter in policy.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    weights = [parameter.detach().clone() for parameter in policy.parameters()]
    moments = [optimizer.state[parameter]["exp_avg"].clone() for parameter in policy.parameters()]
    changed, real = threading.Event(), state_dict_saver.save

    def late(*state: Any, **how: Any) -> Any:
        assert changed.wait(30)
        return real(*state, **how)

    monkeypatch.setattr(state_dict_saver, "save", late)
    saving = ranks.save(tmp_path, Manifest(1, 1, {}))
    assert not saving.done
    optimizer.step()
    changed.set()
    saved = saving.wait()
    exported: Any = AutoModelForCausalLM.from_pretrained(saved / "huggingface", dtype=torch.float32)
    assert all(map(torch.equal, weights, exported.parameters()))
    ranks.load(saved)
    assert all(map(torch.equal, weights, policy.parameters()))
    assert all(map(torch.equal, moments, (optimizer.state[p]["exp_avg"] for p in policy.parameters())))


def test_a_checkpoint_whose_disk_is_full_is_none_and_says_so_when_it_is_waited_for(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks = DistributedTrainer(config_of(source), torch.device("cpu"), None)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(exports, "save_file", full)
    saving = ranks.save(tmp_path, Manifest(1, 1, {}))
    with pytest.raises(OSError, match="No space left"):
        saving.wait()
    assert not list(tmp_path.rglob("manifest.json"))


OTHER_RANK = """
import os, sys
import torch.distributed as dist
dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=1, world_size=2)
dist.new_group(backend="gloo")
dist.barrier()
os._exit(9)
"""


def test_a_rank_that_dies_while_a_checkpoint_is_written_leaves_none(policy: Policy, tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", OTHER_RANK, str(tmp_path / "meeting")])
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=2)
    try:
        beside = dist.new_group(backend="gloo")
        optimizers = {"optimizer": torch.optim.AdamW(policy.parameters())}
        saving = save(tmp_path / "checkpoints", policy, optimizers, Manifest(1, 1, {}), beside=beside)
        assert other.wait(30) == 9
        with pytest.raises(RuntimeError):
            saving.wait()
    finally:
        dist.destroy_process_group()
    assert not list(tmp_path.rglob("manifest.json"))


def test_the_first_export_is_checked_and_the_first_after_a_way_back(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[str] = []
    monkeypatch.setattr(
        "chorus.learner.training.checkpoint.check_export", lambda _, path: looked_at.append(path.parent.name)
    )
    ranks = DistributedTrainer(config_of(source), torch.device("cpu"), None, check_exports=True)
    first = ranks.save(tmp_path, Manifest(1, 1, {})).wait()
    ranks.save(tmp_path, Manifest(2, 1, {})).wait()
    ranks.load(first)
    ranks.save(tmp_path, Manifest(3, 1, {})).wait()
    ranks.save(tmp_path, Manifest(4, 1, {})).wait()
    assert looked_at == ["step-000001", "step-000003"]
