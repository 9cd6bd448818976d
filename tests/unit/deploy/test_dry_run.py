"""What a configuration implies is told from the recipe alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from deploy.dry_run import describe
from deploy.placement import place
from protocol.config import RunConfig

Configure = Callable[..., RunConfig]


def test_it_starts_with_the_resolved_configuration(configure: Configure) -> None:
    config = configure()
    text = describe(config, place(config, [0, 1], []))
    resolved, end = json.JSONDecoder().raw_decode(text)
    assert resolved == config.model_dump(mode="json")
    assert "placement   learner on core 1, generators on core 0" in text[end:]


def test_it_counts_steps_tokens_and_bytes(configure: Configure) -> None:
    config = configure(
        run={"steps": 10},
        staleness={"target": 1},
        learner={"groups_per_step": 4, "updates_per_step": 2},
        sampling={"group_size": 8, "max_tokens": 100},
        problems={"train": ["any"], "max_prompt_tokens": 28},
    )
    text = describe(config, place(config, [0, 1], []))
    assert "10, of 4 groups x 8 = 32 samples; 20 optimizer updates" in text
    assert "at most 32,000 generated; at most 128 a sequence" in text  # 10 x 32 x 100; 28 + 100
    assert "at most 8 groups outstanding" in text
    assert "at most 50.9 KiB" in text  # 8 groups x (8 samples x 100 tokens x 8 bytes + 28 x 4 bytes) / 1024


def test_it_works_before_there_is_a_model(configure: Configure) -> None:
    config = configure(model={"path": "starter"})
    assert "the model 'starter' is not here yet" in describe(config, place(config, [0, 1], []))


def test_it_counts_the_parameters_of_a_model_that_is_there(configure: Configure, tmp_path: Path) -> None:
    tensors = {"a": np.zeros((1000, 500), np.float32), "b": np.zeros(500_000, np.float32)}
    save_file(tensors, tmp_path / "model.safetensors")
    config = configure(model={"path": str(tmp_path), "dtype": "float32"})
    text = describe(config, place(config, [0, 1], []))
    # 1 M parameters: 16 MB for weights, gradient and two moments in float32; 4 MB of weights.
    assert "1.0 M parameters: learner 15.3 MiB a rank" in text
    assert "weights 3.8 MiB a generator" in text
