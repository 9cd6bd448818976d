"""A supervised update: its loss and its gradient, on one rank and on two, and its optimizer through checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from storedrun import grade, group, run_folder
from tinymodel import TEMPLATE

from chorus.cli.inspect.replay import replay
from chorus.learner.training.distributed import DistributedTrainer
from chorus.learner.training.experience import make_experience, minibatches
from chorus.learner.training.supervised import supervised_loss
from chorus.protocol.config.run import RunConfig
from chorus.protocol.config.supervised import FinetuneSection
from chorus.protocol.run_folder.checkpoints import Manifest
from chorus.protocol.run_folder.demonstrations import Demonstration, write_batch
from chorus.protocol.run_folder.folder import RunFolder

BATCH = [
    Demonstration("a", TEMPLATE, [4, 5, 6, 7, 8], [9, 10, 11]),
    Demonstration("b", TEMPLATE, [4, 5], [12, 13, 14, 15, 16]),
    Demonstration("c", TEMPLATE, [20], [21]),
]


def config_of(model: Path, **sections: dict[str, Any]) -> RunConfig:
    recipe: dict[str, Any] = {
        "model": {"path": str(model), "dtype": "float32", "context": 64},
        "problems": {"train": ["any"], "max_prompt_tokens": 8},
        "templates": {"names": [TEMPLATE]},
        "sampling": {"group_size": 2, "max_tokens": 8},
        "learner": {"groups_per_step": 1, "lr": 0.01, "token_budget": 8},
        "relift": {"enabled": True, "batch": 3, "lr": 0.01},
    }
    return RunConfig.model_validate({name: recipe.get(name, {}) | sections.get(name, {}) for name in recipe | sections})


def crew_of(config: RunConfig, start_from: Path | None = None) -> DistributedTrainer:
    torch.manual_seed(0)
    return DistributedTrainer(config, torch.device("cpu"), start_from)


def weights_of(crew: DistributedTrainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in crew.trainer.policy.parameters()]).clone()


def test_the_loss_is_the_token_mean_less_the_mean_entropy() -> None:
    logp, entropy = torch.tensor([-0.2, -0.4, -0.6, -1.0]), torch.full((4,), 1.2)
    parts = [supervised_loss(logp[a:b], entropy[a:b], 4, 0.001)[0] for a, b in ((0, 3), (3, 4))]
    assert float(sum(parts)) == pytest.approx(0.5488)
    assert float(supervised_loss(torch.tensor([-1.0, -2.0, -3.0]), entropy[:3], 3, 0.0)[0]) == pytest.approx(2.0)


@pytest.mark.parametrize("budget", [8, 99])
def test_an_update_is_that_of_the_whole_batch_in_float64_however_it_is_cut(tiny_model: Path, budget: int) -> None:
    config = config_of(tiny_model, learner={"token_budget": budget}, sampling={"temperature": 0.5})
    crew = crew_of(config)
    reference = crew_of(config).trainer.policy.double()
    logps, entropies = [], []
    for d in BATCH:  # at temperature 1, though the run samples at 0.5
        logits = reference.hf(input_ids=torch.tensor([d.prompt + d.target])).logits[0, len(d.prompt) - 1 : -1]
        spread = torch.log_softmax(logits, -1)
        logps.append(spread.gather(-1, torch.tensor(d.target)[:, None])[:, 0])
        entropies.append(-(spread.exp() * spread).sum(-1))
    nll, entropy = -torch.cat(logps).mean(), torch.cat(entropies).mean()
    (nll - 0.001 * entropy).backward()
    stats = crew.supervise(BATCH)
    assert (stats.tokens, stats.demonstrations) == (9, 3)
    assert stats.nll == pytest.approx(float(nll), rel=1e-5)
    assert stats.entropy == pytest.approx(float(entropy), rel=1e-5)
    assert stats.loss == pytest.approx(float(nll - 0.001 * entropy), rel=1e-5)
    pairs = zip(crew.trainer.policy.parameters(), reference.parameters(), strict=True)
    clip = min(1.0, 1.0 / stats.grad_norm)
    for ours, theirs in pairs:
        assert ours.grad is not None
        assert theirs.grad is not None
        torch.testing.assert_close(ours.grad.double(), theirs.grad * clip, rtol=1e-3, atol=1e-6)


def test_prompt_tokens_are_read_and_never_predicted(tiny_model: Path) -> None:
    crew = crew_of(config_of(tiny_model))
    predicted: list[int] = []
    head = crew.trainer.policy.hf.get_output_embeddings()
    head.register_forward_hook(lambda module, inputs, logits: predicted.append(inputs[0].shape[0]))
    crew.supervise([Demonstration("a", TEMPLATE, [4, 5, 6], [9, 10])])
    assert predicted == [2], "only where a target's token comes next"
    read = crew.trainer.policy.hf.get_input_embeddings().weight.grad.abs().sum(-1).nonzero()[:, 0]
    assert read.tolist() == [4, 5, 6, 9], "not the last one, which nothing follows"


def test_the_second_optimizer_has_its_own_moments_and_its_own_rate(tiny_model: Path) -> None:
    warm = {"lr": 0.01, "warmup_updates": 4}
    crew = crew_of(config_of(tiny_model, relift=warm))
    rates = [crew.supervise(BATCH).lr for _ in range(5)]
    assert rates == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01])
    assert crew.trainer.optimizer.state == {}, "the run's own has never stepped"
    assert crew.supervised.updates == 5


def test_a_cosine_falls_to_zero_over_the_updates() -> None:
    s = FinetuneSection(lr=1.0, warmup=0.3)
    assert [round(s.rate(done, 6), 4) for done in range(7)] == [0.5, 1.0, 1.0, 0.8536, 0.5, 0.1464, 0.0]
    assert FinetuneSection(lr=1.0, schedule="constant", warmup=0.0).rate(5, 6) == 1.0


def test_weights_and_both_optimizers_go_through_a_checkpoint_bit_for_bit(tiny_model: Path, tmp_path: Path) -> None:
    config = config_of(tiny_model)
    groups = [group(0, TEMPLATE, [([4, 5], grade(1.0)), ([6, 7, 8], grade(0.0))])]
    parts = minibatches(make_experience(groups, config), 1)
    crew = crew_of(config)
    crew.step(parts)
    before_any = crew.save(tmp_path, Manifest(1, 1, {})).wait()
    crew.supervise(BATCH)
    saved = crew.save(tmp_path, Manifest(2, 1, {})).wait()

    def go_on(crew: DistributedTrainer) -> torch.Tensor:
        crew.supervise(BATCH[:2])
        crew.step(parts)
        crew.supervise(BATCH[1:])
        return weights_of(crew)

    unbroken = go_on(crew)
    assert torch.equal(go_on(crew_of(config, saved)), unbroken)
    crew.load(before_any)
    assert crew.supervised.updates == 0, "a checkpoint without the optimizer: it begins anew"
    crew.load(saved)
    assert torch.equal(go_on(crew), unbroken)


def test_replay_trains_the_recorded_batch_at_its_place(tiny_model: Path, tmp_path: Path) -> None:
    config = config_of(tiny_model, objective={"proximal": "loglinear", "weight": "token", "weight_cap": 2.0})
    steps = [[group(n, TEMPLATE, [([4, 5 + n], grade(1.0)), ([6, 7, 8], grade(0.0))])] for n in range(4)]
    folder = run_folder(tmp_path / "run", config, steps)
    write_batch(RunFolder(folder), 2, BATCH)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    crew = crew_of(config)
    with (folder / "metrics.jsonl").open("w") as file:
        for n, groups in enumerate(steps, 1):
            version = n - 1 + (n > 2)
            result = crew.step(minibatches(make_experience(groups, config, version), 1))
            file.write(json.dumps({"step": n, "loss": result.loss, "grad_norm": max(result.grad_norms)}) + "\n")
            if n == 2:
                crew.supervise(BATCH)
    torch.set_num_threads(threads)
    again = replay(folder, 4)
    assert [r.loss for r in again] == [r.recorded_loss for r in again]
