"""A GPU without memory is said in one line with what needs less, since to start again would not help."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis
import torch

from learner import main as learner
from protocol.exits import CannotGoOn

RECIPE = """
[model]
path = "any"
[problems]
train = ["any"]
[templates]
names = ["qwen-math"]
[redis]
url = "redis://127.0.0.1:1/0"
"""
SAYS = (
    "CUDA out of memory. Tried to allocate 36.00 MiB. GPU 0 has a total capacity of 79.18 GiB of which 5.12 MiB is "
    "free. Process 867 has 18.31 GiB memory in use. If reserved but unallocated memory is large try something."
)


@pytest.mark.parametrize("shared", [False, True])
def test_it_is_one_line_with_the_mend(shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def learn(*_: object) -> int:
        raise torch.OutOfMemoryError(SAYS)

    monkeypatch.setattr(learner, "_learn", learn)
    monkeypatch.setattr(learner, "connect", lambda _: redis.Redis())
    (tmp_path / "recipe.toml").write_text(RECIPE)
    arguments = ["--config", str(tmp_path / "recipe.toml"), "--run-id", "r", "--run-dir", str(tmp_path)]
    placement = ["--set", "placement.learner_gpus=[0]", "--set", f"placement.generator_gpus=[[{int(not shared)}]]"]
    with pytest.raises(CannotGoOn) as caught:
        learner.main([*arguments, *placement])
    said = str(caught.value)
    assert said.startswith("CUDA out of memory. Tried to allocate 36.00 MiB. GPU 0 has a total capacity of 79.18 GiB")
    assert "is free. Lower learner.token_budget (now " in said
    assert "Process" not in said
    assert ("lower generator.gpu_memory" in said) == shared
    assert said.endswith("Then go on with --resume")
