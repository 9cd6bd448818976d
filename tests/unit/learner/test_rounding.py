"""What the weight check allows follows what bfloat16 rounds at the weight check's own positions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tinymodel import save_tiny_model

from chorus.learner.training.distributed import DistributedTrainer
from chorus.protocol.config.run import RunConfig
from chorus.protocol.messages import Version, unpack_floats

PREFIXES = [[5, 6, 7, 8], [9, 3, 4]]


def config(model: Path | str, dtype: str, tolerance: float = 0.0, token_budget: int = 4096) -> RunConfig:
    return RunConfig.model_validate(
        {
            "model": {"path": str(model), "dtype": dtype},
            "problems": {"train": ["arithmetic:chain?max=3&split=train"]},
            "templates": {"names": ["qwen-math"]},
            "generator": {"logprob_tolerance": tolerance},
            "learner": {"token_budget": token_budget},
            "sampling": {"max_tokens": 2},
        }
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("rounded"))


def test_a_snapshot_says_how_far_bfloat16_is_off(model: Path) -> None:
    crews = {
        dtype: DistributedTrainer(config(model, dtype), torch.device("cpu"), None) for dtype in ("float32", "bfloat16")
    }
    exact, rounded = (crew.snapshot(Version(fence=1, step=0), PREFIXES) for crew in crews.values())
    assert exact.rounding == 0.0
    assert 1e-5 < rounded.rounding < 0.1
    for one, other in zip(exact.checks, rounded.checks, strict=True):
        assert unpack_floats(other.logprobs) == pytest.approx(unpack_floats(one.logprobs), abs=0.1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("token_budget", [4, 8, 12])  # one at a time, two, all three
def test_prefixes_of_any_length_are_looked_at_together_as_each_by_itself(
    model: Path, dtype: str, token_budget: int
) -> None:
    crew = DistributedTrainer(config(model, dtype, token_budget=token_budget), torch.device("cpu"), None)
    version = Version(fence=1, step=0)
    prefixes = [*PREFIXES, [7]]
    together = crew.snapshot(version, prefixes)
    alone = [crew.snapshot(version, [prefix]) for prefix in prefixes]
    for point, single in zip(together.checks, [s.checks[0] for s in alone], strict=True):
        assert (point.prefix, point.token_ids) == (single.prefix, single.token_ids)
        assert unpack_floats(point.logprobs) == pytest.approx(unpack_floats(single.logprobs), abs=1e-5)
    assert together.rounding == pytest.approx(sum(s.rounding for s in alone) / len(alone), abs=1e-5)


@pytest.mark.parametrize(
    ("dtype", "own", "rounding", "allowed"),
    [
        ("float32", 0.0, 0.0, 1e-3),
        ("bfloat16", 0.0, 0.005, 2e-2),
        ("bfloat16", 0.0, 0.04, 0.12),
        ("bfloat16", 0.03, 0.04, 0.03),
        ("bfloat16", 0.0, float("inf"), 0.3),
        ("bfloat16", 0.0, float("nan"), 2e-2),
        ("float32", 5e-3, 0.0, 5e-3),
    ],
)
def test_a_recipe_s_own_tolerance_comes_first(dtype: str, own: float, rounding: float, allowed: float) -> None:
    assert config("starter", dtype, own).logprob_tolerance(rounding) == pytest.approx(allowed)
