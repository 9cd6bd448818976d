"""A head tied to the embedding is one tensor: on the wire, in a checkpoint, in what is exported."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from chorus.learner.training.distributed import DistributedTrainer
from chorus.protocol.config.run import RunConfig
from chorus.protocol.messages import Version
from chorus.protocol.run_folder.checkpoints import Manifest

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture
def crew(tmp_path: Path) -> DistributedTrainer:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=64, tie_word_embeddings=True, **shape)).save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    config = RunConfig.model_validate(
        {
            "model": {"path": str(tmp_path / "model"), "dtype": "float32", "context": 64},
            "problems": {"train": ["any"], "max_prompt_tokens": 16},
            "templates": {"names": ["any"]},
            "sampling": {"group_size": 2, "max_tokens": 16},
        }
    )
    return DistributedTrainer(config, torch.device("cpu"), None)


def sent(crew: DistributedTrainer) -> dict[str, torch.Tensor]:
    snapshot = crew.snapshot(Version(fence=1, step=0), [[1, 2]])
    return {name: tensor for views in snapshot.plan.views(snapshot.buckets) for name, tensor in views}


def test_it_is_sent_once_as_the_embedding(crew: DistributedTrainer) -> None:
    names = [slot.tensor.name for slot in crew.snapshot(Version(fence=1, step=0), [[1, 2]]).plan.slots]
    assert names.count(EMBEDDING) == 1
    assert HEAD not in names
    assert torch.equal(sent(crew)[EMBEDDING], crew.trainer.policy.hf.lm_head.weight)


def test_a_snapshot_is_a_copy_that_training_leaves_alone(crew: DistributedTrainer) -> None:
    before = sent(crew)
    kept = before[EMBEDDING].clone()
    with torch.no_grad():
        crew.trainer.policy.hf.lm_head.weight.add_(1.0)
    assert torch.equal(before[EMBEDDING], kept)
    assert torch.equal(sent(crew)[EMBEDDING], kept + 1.0)


def test_an_exported_checkpoint_holds_it_once_and_loads_tied(crew: DistributedTrainer, tmp_path: Path) -> None:
    path = crew.save(tmp_path / "checkpoints", Manifest(1, 1, {})).wait()
    stored = load_file(path / "huggingface" / "model.safetensors")
    assert EMBEDDING in stored
    assert HEAD not in stored
    loaded = AutoModelForCausalLM.from_pretrained(path / "huggingface")
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert torch.equal(loaded.lm_head.weight, crew.trainer.policy.hf.lm_head.weight)
