"""The loop on GPUs (`make gpu-test`): one device shared, through the host; two or more, over NCCL.

Each is a whole `chorus run` of five steps: it ended with 0, every group was trained once, every sync passed the weight
check, and weights went the way that the name says.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from architectures import save_architecture
from liverun import LiveRun
from tinymodel import TEMPLATE

from chorus.protocol.config.run import MOST_TOLERATED

pytestmark = pytest.mark.gpu
DEVICES = torch.cuda.device_count() if torch.cuda.is_available() else 0
SHARED = ("placement.learner_gpus=[0]", "placement.generator_gpus=[[0]]")
# A policy as it was drawn is never right: so that groups differ, long answers cost.
UNTAUGHT = (f'templates.names=["{TEMPLATE}"]', "reward.overlong.max_tokens=64", "reward.overlong.buffer_tokens=63")


def needs(devices: int) -> pytest.MarkDecorator:
    return pytest.mark.skipif(devices > DEVICES, reason=f"needs {devices} CUDA devices, there are {DEVICES}")


def check(run: LiveRun, tolerance: float, over: str) -> None:
    assert run.finish(900) == 0, run.tail()
    summary = run.summary()
    assert summary["weights"]["logprob_gap_mean"] <= tolerance
    assert summary["ledger"]["trained"] == 40
    assert summary["ledger"]["outstanding"] == 0
    assert f"weights go to generators over {over}" in (run.folder / "logs" / "learner.log").read_text()


@needs(1)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-3), ("bfloat16", 2e-2)])
def test_learner_and_generator_share_one_gpu(running: Callable[..., LiveRun], dtype: str, tolerance: float) -> None:
    check(running("run.steps=5", f"model.dtype={dtype}", *SHARED), tolerance, "gloo")


@needs(1)
@pytest.mark.parametrize("name", ["qwen3_moe", "gemma2"])
def test_experts_and_capped_logits_train_in_bfloat16(
    name: str, running: Callable[..., LiveRun], tmp_path: Path
) -> None:
    """Mixture of experts; soft caps, which few attention kernels have. The weight check is the run's own."""
    model = save_architecture(name, tmp_path / "model")
    run = running("run.steps=5", "model.dtype=bfloat16", f"model.path={model}", *UNTAUGHT, *SHARED)
    check(run, MOST_TOLERATED, "gloo")


@needs(1)
def test_adapters_train_in_bfloat16(running: Callable[..., LiveRun]) -> None:
    lora = ("model.lora.rank=8", "model.lora.alpha=16", "learner.lr=1e-3")
    check(running("run.steps=5", "model.dtype=bfloat16", *lora, *SHARED), 2e-2, "gloo")


@needs(2)
def test_weights_go_over_nccl_between_two_gpus(running: Callable[..., LiveRun]) -> None:
    placement = ("placement.learner_gpus=[0]", "placement.generator_gpus=[[1]]")
    check(running("run.steps=5", "model.dtype=bfloat16", *placement), 2e-2, "nccl")


@needs(2)
def test_two_learner_ranks_train_over_nccl_and_send_through_the_host_to_a_generator_on_one_of_their_gpus(
    running: Callable[..., LiveRun],
) -> None:
    placement = ("placement.learner_gpus=[0,1]", "placement.generator_gpus=[[1]]")
    check(running("run.steps=5", "model.dtype=bfloat16", *placement), 2e-2, "gloo")


@needs(2)
def test_a_tensor_parallel_replica_takes_weights_through_the_host(running: Callable[..., LiveRun]) -> None:
    placement = ("placement.learner_gpus=[0]", "placement.generator_gpus=[[0,1]]")
    check(running("run.steps=5", "model.dtype=bfloat16", *placement), 2e-2, "gloo")


@needs(4)
def test_two_learner_ranks_send_to_two_replicas_over_nccl(running: Callable[..., LiveRun]) -> None:
    placement = ("placement.learner_gpus=[0,1]", "placement.generator_gpus=[[2],[3]]")
    check(running("run.steps=5", "model.dtype=bfloat16", *placement), 2e-2, "nccl")


@needs(4)
def test_two_learner_ranks_send_to_a_tensor_parallel_replica_over_nccl(running: Callable[..., LiveRun]) -> None:
    placement = ("placement.learner_gpus=[0,1]", "placement.generator_gpus=[[2,3]]")
    check(running("run.steps=5", "model.dtype=bfloat16", *placement), 2e-2, "nccl")
