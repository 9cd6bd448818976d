"""Our losses beside those of TRL's GRPO trainer on random batches, where the package is installed.

It is no dependency of the project: the extra `trl` names the version that was compared.
"""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from chorus.learner.objectives.advantages import grpo, rloo
from chorus.learner.objectives.aggregation import token_scales
from chorus.learner.objectives.objective import Inputs, combine
from chorus.protocol.config.objective import ObjectiveConfig

trl = pytest.importorskip("trl", reason="trl is not installed; the comparison with it is optional")
SEQUENCES, LONGEST = 6, 9


def theirs(batch: dict[str, Any], **options: Any) -> torch.Tensor:
    """GRPOTrainer's loss of one batch, its model replaced by ready-made log-probabilities."""
    from trl import GRPOTrainer

    accelerator = SimpleNamespace(
        num_processes=1, sync_gradients=True, gather=lambda x: x, gather_for_metrics=lambda x: x,
        reduce=lambda x, reduction: x,
    )  # fmt: skip
    settings: dict[str, Any] = {
        "loss_type": "grpo", "importance_sampling_level": "token", "epsilon_low": 0.2, "epsilon_high": 0.2, "beta": 0.0,
        "top_entropy_quantile": 1.0, "off_policy_mask_threshold": None, "aux_loss_enabled": False,
        "_entropy_bonus_enabled": False, "use_adaptive_entropy": False, "use_vllm": True,
        "vllm_importance_sampling_correction": True, "current_gradient_accumulation_steps": 1,
        "max_completion_length": LONGEST,
    }  # fmt: skip
    arguments = {"delta": options.pop("delta", None), "use_bias_correction_kl": False, "steps_per_generation": 1}
    stub = SimpleNamespace(**settings | options, args=SimpleNamespace(**arguments), accelerator=accelerator)
    stub.model = SimpleNamespace(training=True)
    stub._metrics = defaultdict(lambda: defaultdict(list))
    stub._get_per_token_logps_and_entropies = lambda *_, **__: (batch["logp"], torch.zeros_like(batch["logp"]), None)
    ids = torch.zeros(SEQUENCES, LONGEST, dtype=torch.int64)
    mask = batch["mask"]
    return GRPOTrainer._compute_loss(
        stub,  # type: ignore[arg-type]
        stub.model,
        {
            "prompt_ids": ids, "prompt_mask": torch.ones_like(ids), "completion_ids": ids, "completion_mask": mask,
            "advantages": batch["advantage"], "old_per_token_logps": batch["proximal"],
            "ref_per_token_logps": batch["reference"], "num_items_in_batch": mask.sum(),
            "importance_sampling_ratio": batch["w"],
        },
    )  # fmt: skip


def random_batch(seed: int, mode: str = "token_truncate", cap: float = 1e9) -> dict[str, Any]:
    """Padded to [sequences, longest], as TRL has it; `w` is what its generation step makes of the mismatch."""
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, LONGEST + 1, (SEQUENCES,), generator=g)
    mask = (torch.arange(LONGEST) < lengths.unsqueeze(1)).long()

    def noise(scale: float) -> torch.Tensor:
        return torch.randn(SEQUENCES, LONGEST, generator=g, dtype=torch.float64) * scale

    behaviour = -torch.rand(SEQUENCES, LONGEST, generator=g, dtype=torch.float64) * 3
    proximal = behaviour + noise(0.3)
    log_w = (proximal - behaviour) * mask
    w = (log_w.sum(-1, keepdim=True) if mode.startswith("sequence") else log_w).exp()
    w = w.clamp(max=cap) if mode.endswith("truncate") else torch.where(w > cap, 0.0, w)
    return {
        "lengths": lengths, "mask": mask, "behaviour": behaviour, "proximal": proximal, "w": w,
        "logp": (proximal + noise(0.3)).requires_grad_(), "reference": proximal + noise(0.2),
        "advantage": torch.randn(SEQUENCES, generator=g, dtype=torch.float64),
    }  # fmt: skip


def ours(batch: dict[str, Any], **fields: Any) -> torch.Tensor:
    fields = {
        "advantage": "grpo",
        "dual_clip": None,
        "clip_low": 0.2,
        "clip_high": 0.2,
        "proximal": "recompute",
    } | fields
    c = ObjectiveConfig.model_validate(fields)
    keep, lengths = batch["mask"].bool(), batch["lengths"]
    scale = torch.from_numpy(token_scales(lengths.tolist(), c.aggregation, LONGEST))
    x = Inputs(
        logp=batch["logp"][keep],
        entropy=torch.zeros(int(lengths.sum()), dtype=torch.float64),
        behaviour=batch["behaviour"][keep],
        advantage=batch["advantage"].repeat_interleave(lengths),
        age=torch.zeros(int(lengths.sum())),
        scale=scale.repeat_interleave(lengths),
        lengths=lengths,
        proximal=batch["proximal"][keep],
        reference=batch["reference"][keep],
    )
    return combine(x, c).loss


TOKEN = {"weight": "token", "weight_cap": 2.0}
PAIRS = {
    "grpo": ({"loss_type": "grpo"}, {"aggregation": "seq-mean-token-mean"}, None),
    "grpo with KL": (
        {"loss_type": "grpo", "beta": 0.04},
        {"aggregation": "seq-mean-token-mean", "kl_coefficient": 0.04}, None,
    ),
    "dr_grpo": ({"loss_type": "dr_grpo"}, {"aggregation": "dr-const"}, None),
    "dapo": ({"loss_type": "dapo", "epsilon_high": 0.28}, {"aggregation": "token-mean", "clip_high": 0.28}, None),
    "bnpo": ({"loss_type": "bnpo"}, {"aggregation": "token-mean"}, None),
    "two-sided clip": ({"loss_type": "dapo", "delta": 1.4}, {"aggregation": "token-mean", "dual_clip": 1.4}, None),
    "gspo": (
        {"loss_type": "grpo", "importance_sampling_level": "sequence"},
        {"loss": "gspo", "aggregation": "seq-mean-token-mean"}, None,
    ),
    "cispo": (
        {"loss_type": "cispo", "epsilon_high": 1.3},
        {"loss": "cispo_absolute", "clip_low": None, "clip_high": 1.3, "aggregation": "token-mean"}, None,
    ),
    "token truncation": ({"loss_type": "dapo"}, {"aggregation": "token-mean", **TOKEN}, ("token_truncate", 2.0)),
    "token mask": (
        {"loss_type": "dapo"}, {"aggregation": "token-mean", **TOKEN, "weight_mode": "mask"}, ("token_mask", 2.0),
    ),
    "sequence truncation": (
        {"loss_type": "dapo"}, {"aggregation": "token-mean", **TOKEN, "weight": "sequence"}, ("sequence_truncate", 2.0),
    ),
    "sequence mask": (
        {"loss_type": "dapo"},
        {"aggregation": "token-mean", "weight": "sequence", "weight_cap": 3.0, "weight_mode": "mask"},
        ("sequence_mask", 3.0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_value_and_gradient_are_those_of_trl(name: str) -> None:
    options, fields, weights = PAIRS[name]
    for seed in range(10):
        batch = random_batch(seed, *weights) if weights else random_batch(seed)
        options = options | {"vllm_importance_sampling_correction": weights is not None}
        a, b = ours(batch, **fields), theirs(batch, **options)
        torch.testing.assert_close(a, b, atol=1e-10, rtol=0)
        mine, others = (torch.autograd.grad(loss, batch["logp"])[0] for loss in (a, b))
        torch.testing.assert_close(mine, others, atol=1e-10, rtol=0)


def test_advantages_follow_the_formulas_of_trl_whose_epsilon_is_another() -> None:
    """Written out again here, since TRL computes them amid its generation step; it adds 1e-4, not 1e-6."""
    rewards = torch.tensor([1.0, 0.0, 2.0, 1.0], dtype=torch.float64)
    expected = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
    torch.testing.assert_close(torch.from_numpy(grpo(rewards.numpy(), 1e-4)), expected)
    others = torch.stack([torch.cat([rewards[:k], rewards[k + 1 :]]).mean() for k in range(4)])
    torch.testing.assert_close(torch.from_numpy(rloo(rewards.numpy())), rewards - others)
