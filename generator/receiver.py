"""Runs inside vLLM's workers: joins the replica's process group, receives buckets, loads them.

Called by vLLM's control endpoints, in this order, by the agent alone:

    init_transfer_engine     once a group: meet the learner under the group's name (blocks, deadline)
    start_weight_update      every sync; sampling is paused
    update_weights           all buckets are received; over gloo nothing is loaded before the last byte
                             is here, so a transfer that fails leaves the old weights whole
    finish_weight_update     layers are put in their kernels' format; then the agent resumes sampling
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from chorus.protocol.messages import Tensor
from chorus.protocol.weights import BucketPlan, broadcast, close_group, join_group, new_buckets, plan_buckets


@dataclass
class GroupInfo(WeightTransferInitInfo):
    """Which group to join: the learner's store, the group's name and size."""

    backend: str
    group: str
    store_host: str
    store_port: int
    world_size: int
    timeout_s: float


@dataclass
class TransferInfo(WeightTransferUpdateInfo):
    """What will be sent: the tensors in order, laid into buckets of `bucket_bytes`."""

    tensors: list[dict[str, Any]]
    bucket_bytes: int
    timeout_s: float


class ChorusReceiver(WeightTransferEngine[GroupInfo, TransferInfo]):
    """One per vLLM worker; rank 1 + worker rank in the replica's group."""

    init_info_cls = GroupInfo
    update_info_cls = TransferInfo

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._group: torch.distributed.ProcessGroup | None = None
        self._on_gpu = False
        self._plan: BucketPlan | None = None
        self._buckets: list[torch.Tensor] = []

    def init_transfer_engine(self, init_info: GroupInfo) -> None:
        close_group(self._group)
        self._group = None
        self._on_gpu = init_info.backend == "nccl"
        parallel = self.parallel_config
        worker = parallel.data_parallel_index * parallel.world_size + parallel.rank
        i = init_info
        self._group = join_group(i.backend, i.store_host, i.store_port, i.group, 1 + worker, i.world_size, i.timeout_s)

    def start_weight_update(self) -> None:
        """Nothing yet: the model is opened for loading only once the bytes are here."""

    def update_weights(self, update_info: dict[str, Any]) -> None:
        # The base class synchronizes torch.accelerator afterwards, which has no CPU device.
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: TransferInfo) -> None:
        if self._group is None:
            raise RuntimeError("weights announced before a process group was joined; the agent must init first")
        plan = plan_buckets([Tensor(**t) for t in update_info.tensors], update_info.bucket_bytes)
        if self._on_gpu:
            initialize_layerwise_reload(self.model)
            self._receive_staged(plan, update_info.timeout_s)
        else:
            if plan != self._plan:  # fresh memory costs about as much as the bytes that come into it
                self._plan, self._buckets = plan, new_buckets(plan)
            for bucket in self._buckets:
                broadcast(self._group, bucket, update_info.timeout_s)
            initialize_layerwise_reload(self.model)
            model: Any = self.model
            for tensors in plan.views(self._buckets):
                model.load_weights(tensors)

    def _receive_staged(self, plan: BucketPlan, timeout_s: float) -> None:
        assert self._group is not None
        model: Any = self.model
        for k, size in enumerate(plan.bucket_sizes):
            bucket = torch.empty(size, dtype=torch.uint8, device=self.device)
            broadcast(self._group, bucket, timeout_s)
            part = BucketPlan([_moved(s) for s in plan.slots if s.bucket == k], [size])
            for tensors in part.views([bucket]):
                model.load_weights(tensors)

    def finish_weight_update(self) -> None:
        finalize_layerwise_reload(self.model, self.model_config)
        if self.device.type == "cpu":
            self._repack_heads()

    def _repack_heads(self) -> None:
        """On CPU a head tied to the embedding would keep its packed copy of the old weights."""
        for module in self.model.modules():
            if isinstance(module, VocabParallelEmbedding):
                module.quant_method.process_weights_after_loading(module)

    def shutdown(self) -> None:
        close_group(self._group)
        self._group = None


def _moved(slot: Any) -> Any:
    return type(slot)(slot.tensor, 0, slot.offset)
