"""Learners that keep less, for one rank and for two: what a step makes, and a resume after it; models in parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import LlamaConfig, LlamaForCausalLM

from chorus.learner.training.batch import TrainingSequence
from chorus.learner.training.distributed import DistributedTrainer
from chorus.learner.training.export import Export
from chorus.learner.training.policy import load_policy
from chorus.learner.training.sharding import whole
from chorus.protocol.config.run import RunConfig
from chorus.protocol.messages import Version
from chorus.protocol.run_folder.checkpoints import Manifest

PARTS = ("gemma3_text", "qwen3_moe")  # scales and two rotary frequencies that stand in no file; fused experts
LEAN: dict[str, dict[str, Any]] = {
    "adapters": {"model": {"lora": {"rank": 4}}},
    "moments of 8 bits": {"learner": {"optimizer": "adamw8bit"}},
    "weights in bfloat16": {
        "model": {"dtype": "bfloat16"},
        "learner": {"optimizer": "adamw8bit", "master": "bfloat16"},
    },
}


def save_lean_model(folder: Path) -> None:
    """Large enough for moments of 8 bits, on half of the rows, too."""
    torch.manual_seed(0)
    shape = {"hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=64, max_position_embeddings=64, **shape)).save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")


def lean_config(model: str, name: str) -> RunConfig:
    how = LEAN[name]
    return RunConfig.model_validate(
        {
            "model": {"path": model, "dtype": "float32", "context": 64} | how.get("model", {}),
            "problems": {"train": ["none"], "max_prompt_tokens": 16},
            "templates": {"names": ["qwen-math"]},
            "sampling": {"group_size": 4, "max_tokens": 16},
            "learner": {"token_budget": 40, "lr": 1e-3} | how.get("learner", {}),
        }
    )


def parts_of(model: Path, export_to: Path, device: torch.device) -> dict[str, torch.Tensor]:
    """All that the ranks hold of a model, put together: parameters and buffers, those too that stand in no file."""
    sections = {"model": {"path": str(model), "dtype": "float32"}, "problems": {"train": ["none"]}}
    config = RunConfig.model_validate(sections | {"templates": {"names": ["qwen-math"]}})
    policy = load_policy(config, device)
    Export(policy, export_to).write(lambda p: whole(p.detach()), first=dist.get_rank() == 0)
    return {name: whole(t.detach()) for name, t in (*policy.hf.named_parameters(), *policy.hf.named_buffers())}


def sent_bytes(crew: DistributedTrainer) -> torch.Tensor:
    return torch.cat(crew.snapshot(Version(fence=1, step=1), [[1, 2, 3]]).buckets)


def lean_outcome(
    config: RunConfig, batches: list[list[TrainingSequence]], folder: Path, device: torch.device
) -> list[torch.Tensor]:
    """What is sent after a step, after another one, and after that one again from the checkpoint between them."""
    crew = DistributedTrainer(config, device, None)
    crew.step(batches)
    first = sent_bytes(crew)
    saving = crew.save(folder, Manifest(step=1, fence=1, entries={}))
    crew.step(batches)
    saved = saving.wait()
    if dist.is_initialized():
        dist.barrier()  # the first rank writes last
    resumed = DistributedTrainer(config, device, saved)
    resumed.step(batches)
    return [first, sent_bytes(crew), sent_bytes(resumed)]
