"""AdamW in less memory: the same updates, nothing lost in bfloat16, exact on resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tinymodel import save_tiny_model

from chorus.learner.training import optimizer
from chorus.learner.training.batch import TrainingSequence
from chorus.learner.training.checkpoint import Manifest
from chorus.learner.training.distributed import DistributedTrainer
from chorus.learner.training.optimizer import LeanAdamW, make_optimizer, round_stochastically
from chorus.protocol.config.run import RunConfig
from chorus.protocol.config.update import UpdateKeys, block_of
from chorus.protocol.runtime.exits import CannotGoOn

HOW: dict[str, Any] = {"lr": 1e-2, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1}
LEAN = [{"optimizer": "adamw8bit"}, {"master": "bfloat16"}, {"optimizer": "adamw8bit", "master": "bfloat16"}]


def weights(dtype: torch.dtype = torch.float32) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    shapes = [(64, 128), (96,), (), (5, 7)]
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]


def stepped(made: torch.optim.Optimizer, parameters: list[torch.nn.Parameter], steps: int) -> list[torch.Tensor]:
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        for p in parameters:
            p.grad = torch.randn(p.shape, generator=generator).to(p.dtype) * 10.0 ** (step % 3 - 1)
        optimizer.update(made, 1e-2, (step, 0))
    return [p.detach().float() for p in parameters]


def test_in_float32_it_is_torch_s_own_in_pieces_or_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = weights()
    expected = stepped(torch.optim.AdamW(theirs, **HOW), theirs, 6)
    for piece in (2**24, 300):
        monkeypatch.setattr(optimizer, "_PIECE", piece)
        ours = weights()
        for a, b in zip(stepped(LeanAdamW(ours, False, False, (0, 0), **HOW), ours, 6), expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


def test_moments_of_eight_bits_move_weights_as_whole_ones_do_and_take_a_quarter() -> None:
    start, exact, coded = weights()[0].detach(), weights(), weights()
    made = LeanAdamW(coded, True, False, (0, 0), **HOW)
    moved = stepped(made, coded, 20)[0] - start
    expected = stepped(torch.optim.AdamW(exact, **HOW), exact, 20)[0] - start
    assert float((moved - expected).norm() / expected.norm()) < 0.1
    keys = UpdateKeys(optimizer="adamw8bit")
    for p in coded:
        took = sum(v.numel() * v.element_size() for name, v in made.state[p].items() if name != "step")
        assert keys.moment_bytes(p.shape) == took, p.shape
    assert keys.moment_bytes((64, 128)) == 2 * (64 * 128 + 64 * 4)
    assert UpdateKeys().moment_bytes((64, 128)) == 8 * 64 * 128


def test_a_code_is_within_half_a_step_of_what_it_stands_for() -> None:
    """256 of them: in the upper decade, signed, 64 steps of 0.9 / 64; in the next one half as many, and so on."""
    for signed, steps in ((True, 64), (False, 128)):
        known = optimizer._map(signed, torch.device("cpu"))
        assert len(known) == len(known.unique()) == 256
        assert (float(known[-1]), 0.0 in known.tolist(), float(known.min()) < 0) == (1.0, True, signed)
        for low, here in ((0.1, steps), (0.01, steps // 2)):
            inside = known[(known > low) & (known < 10 * low)]
            assert len(inside) == here
            assert float(inside.diff().max()) == pytest.approx(9 * low / here, rel=1e-4)


@pytest.mark.parametrize(
    ("shape", "block"),
    [((4096, 4096), 256), ((32, 3, 5, 64), 64), ((64, 96), 32), ((16, 16), 0), ((8192,), 0), ((900, 100), 0)],
)
def test_blocks_of_a_scale_lie_within_a_row(shape: tuple[int, ...], block: int) -> None:
    assert block_of(shape) == block


def test_bfloat16_weights_move_on_average_where_each_update_is_far_below_their_spacing() -> None:
    """By 1e-4, a hundred times, below 1, where they lie 2**-8 apart: to the nearest, none would ever move."""
    p = torch.nn.Parameter(torch.ones(200, 100, dtype=torch.bfloat16))
    made = LeanAdamW([p], False, False, (0, 0), **(HOW | {"weight_decay": 0.0}))
    for step in range(100):
        p.grad = torch.ones_like(p)
        optimizer.update(made, 1e-4, (step, 0))
    assert float(p.float().mean()) == pytest.approx(1 - 100 * 1e-4, abs=4e-4)  # nine deviations of the mean
    assert float(torch.tensor(1 - 1e-4).to(torch.bfloat16)) == 1.0


def test_what_is_rounded_depends_on_the_run_and_the_update_alone() -> None:
    def after(seed: int, step: int) -> torch.Tensor:
        torch.manual_seed(step)  # the global generator has no say
        p = torch.nn.Parameter(torch.ones(100, 100, dtype=torch.bfloat16))
        made = LeanAdamW([p], False, False, (seed, 0), **HOW)
        p.grad = torch.ones_like(p)
        optimizer.update(made, 1e-3, (step, 0))
        return p.detach()

    assert torch.equal(after(0, 1), after(0, 1))
    assert not torch.equal(after(0, 1), after(0, 2))
    assert not torch.equal(after(0, 1), after(1, 1))


def test_what_bfloat16_holds_is_left_as_it_is_whatever_is_drawn() -> None:
    held = torch.tensor([0.0, -0.0, 1.0, -3.5, 2.0**-130, float("inf"), 1e38]).to(torch.bfloat16)
    assert torch.equal(round_stochastically(held.float(), torch.Generator().manual_seed(3)), held)


def crew_of(model: Path, start_from: Path | None = None, **learner: Any) -> DistributedTrainer:
    config = RunConfig.model_validate(
        {
            "model": {"path": str(model), "dtype": "bfloat16"},
            "problems": {"train": ["any"]},
            "templates": {"names": ["qwen-math"]},
            "learner": {"lr": 1e-2, "updates_per_step": 2} | learner,
        }
    )
    return DistributedTrainer(config, torch.device("cpu"), start_from)


def minibatches() -> list[list[TrainingSequence]]:
    prompt, completion = np.array([5, 6, 7], dtype=np.int32), np.array([8, 9], dtype=np.int32)
    return [[TrainingSequence(prompt, completion, np.full(2, -3.0, dtype=np.float32), 1.0)]] * 2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "model", hidden_size=64)


@pytest.mark.parametrize("learner", LEAN)
def test_a_resume_is_exact_to_the_bit(model: Path, learner: dict[str, str], tmp_path: Path) -> None:
    crew = crew_of(model, **learner)
    crew.step(minibatches())
    saved = crew.save(tmp_path, Manifest(1, 0, {})).wait()
    crew.step(minibatches())
    resumed = crew_of(model, saved, **learner)
    resumed.step(minibatches())
    kinds = {value.dtype for state in resumed.trainer.optimizer.state.values() for value in state.values()}
    assert (torch.uint8 in kinds) == ("optimizer" in learner)
    assert torch.bfloat16 not in kinds, "small moments stay float32, whatever the weights are kept in"
    for a, b in zip(crew.trainer.policy.parameters(), resumed.trainer.policy.parameters(), strict=True):
        assert a.dtype == getattr(torch, learner.get("master", "float32"))
        assert torch.equal(a, b)


def test_moments_of_another_kind_are_refused_with_the_mend(model: Path, tmp_path: Path) -> None:
    crew = crew_of(model)
    crew.step(minibatches())
    saved = crew.save(tmp_path, Manifest(1, 0, {})).wait()
    with pytest.raises(CannotGoOn, match=r"its optimizer is another than learner.optimizer .+; resume with the one"):
        crew_of(model, saved, optimizer="adamw8bit")


def test_what_saves_nothing_is_refused(model: Path) -> None:
    config = crew_of(model).config
    for what in ("optimizer", "activations", "both"):
        offloaded = config.model_copy(update={"learner": config.learner.model_copy(update={"offload": what})})
        with pytest.raises(CannotGoOn, match=rf"learner.offload = {what}: this learner has no GPU"):
            make_optimizer(offloaded, weights(), 0, offloaded.learner)
    whole = config.model_dump() | {"model": {"path": "any", "dtype": "float32"}}
    with pytest.raises(ValidationError, match=r"learner.master is bfloat16 and model.dtype float32"):
        RunConfig.model_validate(whole | {"learner": {"master": "bfloat16"}})
