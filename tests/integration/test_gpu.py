"""The loop on GPUs (`make gpu-test`): one device shared, through the host; two or more, over NCCL."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from liverun import LiveRun

pytestmark = pytest.mark.gpu
DEVICES = torch.cuda.device_count() if torch.cuda.is_available() else 0


def needs(devices: int) -> pytest.MarkDecorator:
    return pytest.mark.skipif(devices > DEVICES, reason=f"needs {devices} CUDA devices, there are {DEVICES}")


def check(run: LiveRun, tolerance: float) -> None:
    assert run.finish(900) == 0, run.tail()
    summary = run.summary()
    assert summary["weights"]["logprob_gap_mean"] <= tolerance
    assert summary["ledger"]["trained"] == 40
    assert summary["ledger"]["outstanding"] == 0


@needs(1)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-3), ("bfloat16", 2e-2)])
def test_learner_and_generator_share_one_gpu(running: Callable[..., LiveRun], dtype: str, tolerance: float) -> None:
    placement = ("placement.learner_gpus=[0]", "placement.generator_gpus=[[0]]")
    check(running("run.steps=5", f"model.dtype={dtype}", *placement), tolerance)


@needs(2)
def test_weights_go_over_nccl_between_two_gpus(running: Callable[..., LiveRun]) -> None:
    placement = ("placement.learner_gpus=[0]", "placement.generator_gpus=[[1]]")
    check(running("run.steps=5", "model.dtype=bfloat16", *placement), 2e-2)


@needs(2)
def test_two_learner_ranks_train_over_nccl_beside_a_generator_on_one_of_their_gpus(
    running: Callable[..., LiveRun],
) -> None:
    placement = ("placement.learner_gpus=[0,1]", "placement.generator_gpus=[[1]]")
    check(running("run.steps=5", "model.dtype=bfloat16", *placement), 2e-2)


@needs(2)
def test_a_tensor_parallel_replica_takes_weights_through_the_host(running: Callable[..., LiveRun]) -> None:
    placement = ("placement.learner_gpus=[0]", "placement.generator_gpus=[[0,1]]")
    check(running("run.steps=5", "model.dtype=bfloat16", *placement), 2e-2)


@needs(4)
def test_two_learner_ranks_send_to_two_replicas_over_nccl(running: Callable[..., LiveRun]) -> None:
    placement = ("placement.learner_gpus=[0,1]", "placement.generator_gpus=[[2],[3]]")
    check(running("run.steps=5", "model.dtype=bfloat16", *placement), 2e-2)


@needs(4)
def test_two_learner_ranks_send_to_a_tensor_parallel_replica(running: Callable[..., LiveRun]) -> None:
    placement = ("placement.learner_gpus=[0,1]", "placement.generator_gpus=[[2,3]]")
    check(running("run.steps=5", "model.dtype=bfloat16", *placement), 2e-2)
