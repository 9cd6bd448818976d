"""Which checkpoints count: whole ones, whose manifest was written last."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint import state_dict_saver
from torch.distributed.checkpoint.state_dict import get_state_dict

from chorus.learner.training import checkpoint
from chorus.learner.training.export import to_dtype
from chorus.protocol.run_folder import checkpoints
from chorus.protocol.runtime.exits import CannotGoOn


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
    assert checkpoints.oldest(folder, 2) == folder / "step-000005"
    assert checkpoints.rollbacks(folder) == [10]


def test_pruning_keeps_the_newest_the_selected_and_every_manifest(folder: Path) -> None:
    checkpoints.prune(folder, 1)
    assert not (folder / "step-000005" / "state").exists()
    assert (folder / "step-000010" / "state").is_dir()
    assert checkpoints.read_manifest(folder / "step-000005").all_entries == ["5-0"]
    assert checkpoints.oldest(folder, 2) == folder / "step-000010"


def test_a_way_back_is_as_long_as_the_newest_checkpoints_that_are_kept_reach(folder: Path) -> None:
    """The selected one may be of long ago, and so may one from before the first alarm."""
    checkpoints.write_manifest(folder / "step-000015", checkpoints.Manifest(15, 1, {}))
    checkpoints.prune(folder, 2, [5])
    assert [path.name for path in checkpoints.loadable(folder)] == ["step-000005", "step-000010", "step-000015"]
    assert checkpoints.oldest(folder, 2) == folder / "step-000010"


def test_the_exports_of_pruned_checkpoints_may_stay_made_smaller_once(folder: Path) -> None:
    thinned: list[Path] = []
    checkpoints.prune(folder, 1, thin=thinned.append)
    checkpoints.prune(folder, 1, thin=thinned.append)
    assert thinned == [folder / "step-000005" / "huggingface"]
    assert (folder / "step-000005" / "huggingface").is_dir()
    assert not (folder / "step-000005" / "state").exists()
    assert (folder / "step-000010" / "state").is_dir()


def test_an_export_is_rewritten_in_the_dtype_that_it_is_kept_in(tmp_path: Path) -> None:
    tensors = {"w": torch.tensor([1.0, 1.0 / 3.0]), "n": torch.tensor([7])}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"dtype": "float32", "hidden_size": 4}')
    for _ in range(2):  # a crash may have come in between
        to_dtype(tmp_path, "bfloat16")
    found = load_file(tmp_path / "model.safetensors")
    assert found["w"].dtype == torch.bfloat16
    assert found["w"].float().tolist() == [1.0, 0.333984375]  # 1/3 with eight bits
    assert found["n"].tolist() == [7]
    assert json.loads((tmp_path / "config.json").read_text()) == {"dtype": "bfloat16", "hidden_size": 4}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def _stepped(inputs: int = 2, **settings: object) -> tuple[torch.nn.Module, torch.optim.AdamW]:
    torch.manual_seed(1)
    policy = torch.nn.Linear(inputs, 1)
    optimizer = torch.optim.AdamW(policy.parameters(), **settings)  # type: ignore[arg-type]
    policy(torch.ones(1, inputs)).sum().backward()
    optimizer.step()
    return policy, optimizer


def test_the_optimizer_keeps_its_moments_and_takes_its_settings_from_the_configuration(tmp_path: Path) -> None:
    policy, optimizer = _stepped(lr=0.1, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.3)
    _saved(tmp_path, policy, optimizer)
    wished = {"lr": 0.2, "betas": (0.7, 0.95), "eps": 1e-5, "weight_decay": 0.0}
    again, resumed = _stepped(**wished)
    checkpoint.load(tmp_path, again, {"optimizer": resumed})  # type: ignore[arg-type]
    [group] = resumed.param_groups
    assert {key: group[key] for key in wished} == wished
    moments = [[s["step"].item(), s["exp_avg"].tolist()] for s in resumed.state.values()]
    assert moments == [[s["step"].item(), s["exp_avg"].tolist()] for s in optimizer.state.values()]
    assert again.weight.tolist() == policy.weight.tolist()


def test_the_state_of_a_model_of_other_shapes_is_refused_with_the_mend(tmp_path: Path) -> None:
    _saved(tmp_path, *_stepped())
    policy, optimizer = _stepped(inputs=3)
    with pytest.raises(CannotGoOn, match=r"can't be loaded into the model of model.path \(.+\); resume with the model"):
        checkpoint.load(tmp_path, policy, {"optimizer": optimizer})  # type: ignore[arg-type]


def _saved(path: Path, policy: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model_state, optimizer_state = get_state_dict(policy, optimizer)
    state = {"model": model_state, "optimizer": optimizer_state}
    state_dict_saver.save(state, checkpoint_id=str(path / checkpoints.STATE))
    checkpoints.write_manifest(path, checkpoints.Manifest(1, 1, {}))
