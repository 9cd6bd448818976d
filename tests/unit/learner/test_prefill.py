"""A prefill opens the answer and is prompt all the same: nothing of it is trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rollouts import ready, sample

from chorus.learner.rollouts.admission import Admission
from chorus.learner.training.batch import cut
from chorus.learner.training.experience import make_experience
from chorus.problems.rendering import load_tokenizer
from chorus.protocol.config.run import RunConfig
from chorus.protocol.messages import unpack_ids
from chorus.protocol.templates.load import load_templates

PREFILLED = [name for name, template in load_templates().items() if template.prefill]


@pytest.mark.parametrize("name", PREFILLED)
def test_a_prompt_ends_with_the_prefill_and_only_the_completion_is_trained(
    tiny_model: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "problems.jsonl").write_text(json.dumps({"problem": "3 + 4", "answer": "7"}) + "\n")
    config = RunConfig.model_validate(
        {
            "model": {"path": str(tiny_model), "context": 2000},
            "problems": {"train": [str(tmp_path / "problems.jsonl")], "max_prompt_tokens": 1500},
            "templates": {"names": [name]},
            "sampling": {"group_size": 2, "max_tokens": 16},
        }
    )
    task = Admission(config, "run").task(0, 0)
    tokenizer, prompt = load_tokenizer(str(tiny_model)), unpack_ids(task.prompt_ids)
    prefill = tokenizer.encode(load_templates()[name].prefill, add_special_tokens=False)
    assert prompt[-len(prefill) :].tolist() == prefill

    completions = [[5, 6, 7], [8, 9]]
    made = ready([sample(a, ids) for a, ids in zip((1.0, 0.0), completions, strict=True)])
    group = made.group.model_copy(update={"task": task})
    [micro] = cut(make_experience([replace(made, group=group)], config).sequences, 10_000)
    ids = micro.input_ids.flatten().numpy()
    trained = micro.index.numpy() + 1  # a position's loss is that of the token behind it
    assert ids[trained].tolist() == micro.target.tolist() == [5, 6, 7, 8, 9]
    starts = [0, len(prompt) + 3]  # the second row follows three completion tokens
    expected = [s + len(prompt) + k for s, c in zip(starts, completions, strict=True) for k in range(len(c))]
    assert trained.tolist() == expected
    assert np.isin(np.arange(len(prompt)), trained).sum() == 0
