"""Runs inside vLLM's workers: joins the replica's process group, receives buckets, loads them.

Called by vLLM's workers, in this order, for the agent alone (generator/vllm_process.py):

    init_transfer_engine     once a group: meet the learner under the group's name (blocks, deadline)
    start_weight_update      every sync; sampling is paused
    update_weights           all buckets are received; over gloo nothing is loaded before the last byte
                             is here, so a transfer that fails leaves the old weights whole
    finish_weight_update     layers are put in their kernels' format; then the agent resumes sampling

Of a run that trains an adapter, only the adapter comes; it is merged into the layers that it moves (adapter.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.layers.fused_moe.routed_experts import RoutedExperts
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info
from vllm.model_executor.model_loader.reload.meta import SKIP_LOAD_TENSORS, materialize_layer

from chorus.generator.adapter import Base, Delivery, merge, together
from chorus.generator.relay import Relay, relay_to
from chorus.protocol.messages import Onward, Tensor
from chorus.protocol.runtime.adapters import Adapter, Moved
from chorus.protocol.runtime.model_folder import model_folder
from chorus.protocol.weights import BucketPlan, broadcast, close_group, join_group, new_buckets, pieces, plan_buckets

_SHOWN = 3  # names of layers in a message


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
    scaling: float | None = None  # the tensors are an adapter's
    piece_bytes: int = 0
    onward: dict[str, Any] | None = None  # the group over which they are passed on


class ChorusReceiver(WeightTransferEngine[GroupInfo, TransferInfo]):
    """One per vLLM worker; rank 1 + worker rank in the replica's group."""

    init_info_cls = GroupInfo
    update_info_cls = TransferInfo

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._group: torch.distributed.ProcessGroup | None = None
        self._joined: GroupInfo | None = None
        self._relay: Relay | None = None
        self._on_gpu = False
        self._plan: BucketPlan | None = None
        self._buckets: list[torch.Tensor] = []
        self._written: set[str] = set()
        self._base: Base | None = None
        self._merged = False  # what came last was an adapter
        self.in_place: Adapter | None = None

    def init_transfer_engine(self, init_info: GroupInfo) -> None:
        close_group(self._group)
        self._group = None
        self._on_gpu = init_info.backend == "nccl"
        self._joined = i = init_info
        rank = 1 + self._worker
        self._group = join_group(i.backend, i.store_host, i.store_port, i.group, rank, i.world_size, i.timeout_s)

    @property
    def _worker(self) -> int:
        parallel = self.parallel_config
        return parallel.data_parallel_index * parallel.world_size + parallel.rank

    def start_weight_update(self) -> None:
        """Nothing yet: the model is opened for loading only once the bytes are here."""

    def update_weights(self, update_info: dict[str, Any]) -> None:
        # The base class synchronizes torch.accelerator afterwards, which has no CPU device.
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: TransferInfo) -> None:
        if self._group is None:
            raise RuntimeError("weights announced before a process group was joined; the agent must init first")
        plan = plan_buckets([Tensor(**t) for t in update_info.tensors], update_info.bucket_bytes)
        self._merged = update_info.scaling is not None
        if update_info.scaling is not None:
            self._merge(Delivery(update_info.scaling, self._received(plan, update_info)))
        elif self._on_gpu:
            self._open()
            self._receive_staged(plan, update_info.timeout_s)
        else:
            # Fresh memory costs about as much as the bytes that come into it.
            if plan != self._plan or (self._relay is not None and self._relay.busy):
                self._plan, self._buckets = plan, new_buckets(plan)
            self._take(self._buckets, update_info)
            self._open()
            self._load(plan)
            if missed := set(not_loaded(self.model)) - self._written:
                self._written |= missed
                self._open()
                self._load(plan)

    def _take(self, buckets: list[torch.Tensor], info: TransferInfo) -> None:
        """Into these, and on to whoever gets them from here."""
        assert self._group is not None
        relay = self._relay_of(info)
        for piece in pieces(buckets, info.piece_bytes):
            broadcast(self._group, piece, info.timeout_s)
            if relay is not None:
                relay.pass_on(piece)

    def _relay_of(self, info: TransferInfo) -> Relay | None:
        """The first worker's way on, where the offer names one."""
        assert self._joined is not None
        onward = Onward(**info.onward) if info.onward and self._worker == 0 else None
        i = self._joined
        self._relay = relay_to(onward, self._relay, i.backend, i.store_host, i.store_port, info.timeout_s)
        return self._relay

    def _load(self, plan: BucketPlan) -> None:
        model: Any = self.model
        for tensors in plan.views(self._buckets):
            model.load_weights(tensors)

    def _open(self) -> None:
        """Layers wait for their weights, on the meta device; those that a class writes into by itself need memory."""
        initialize_layerwise_reload(self.model)
        for layer in map(self.model.get_submodule, self._written):
            materialize_layer(layer, get_layerwise_info(layer))
            for parameter in layer.parameters(recurse=False):
                parameter.data.fill_(float("nan"))

    def _close_written(self) -> None:
        """Layers into which everything was written count as loaded."""
        for layer in map(self.model.get_submodule, self._written):
            if not any(bool(parameter.isnan().any()) for parameter in layer.parameters(recurse=False)):
                get_layerwise_info(layer).load_numel = 1

    def _receive_staged(self, plan: BucketPlan, timeout_s: float) -> None:
        assert self._group is not None
        model: Any = self.model
        for k, size in enumerate(plan.bucket_sizes):
            bucket = torch.empty(size, dtype=torch.uint8, device=self.device)
            broadcast(self._group, bucket, timeout_s)
            part = BucketPlan([_moved(s) for s in plan.slots if s.bucket == k], [size])
            for tensors in part.views([bucket]):
                model.load_weights(tensors)

    def _received(self, plan: BucketPlan, info: TransferInfo) -> list[tuple[str, torch.Tensor]]:
        """All of an adapter, on the host, before anything is touched."""
        device = self.device if self._on_gpu else torch.device("cpu")
        buckets = [torch.empty(size, dtype=torch.uint8, device=device) for size in plan.bucket_sizes]
        self._take(buckets, info)
        return [pair for views in plan.views(bucket.cpu() for bucket in buckets) for pair in views]

    def _merge(self, delivery: Delivery) -> None:
        """Layer by layer. A layer that the engine does not take whole keeps its weights, and the sync fails by name."""
        model: Any = self.model
        self.in_place = None
        if self._base is None:
            self._base = Base(model_folder(self.model_config.model))
        packed = getattr(model, "packed_modules_mapping", {})
        moved: dict[str, Moved] = {}
        for layer, names in together(delivery.parts, self._base.names, packed).items():
            try:
                module = model.get_submodule(layer)
            except AttributeError:
                raise RuntimeError(f"the engine has no layer {layer} to merge an adapter into") from None
            initialize_layerwise_reload(module)
            info = get_layerwise_info(module)
            try:
                model.load_weights(self._whole(delivery, names, moved))
            finally:
                if refused := info.can_load():  # it waits for more
                    info.load_numel = 0  # so that its own weights are put back
                finalize_layerwise_reload(module, self.model_config)
            if refused:
                raise RuntimeError(
                    f"the engine does not load {layer} from {', '.join(names)}, so no adapter gets there"
                )
        self.in_place = delivery.seen(moved)

    def _whole(
        self, delivery: Delivery, names: list[str], moved: dict[str, Moved]
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """A layer's tensors, those that have an adapter merged."""
        assert self._base is not None
        parts, dtype = delivery.parts, self.model_config.dtype
        for name in names:
            tensor = self._base.read(name)
            if name in parts:
                tensor, moved[name] = merge(tensor, *parts[name], delivery.scaling, dtype, self.device)
            yield name, tensor

    def finish_weight_update(self) -> None:
        if self._merged:
            return  # adapters are merged layer by layer, each to its end
        self._close_written()
        missed = not_loaded(self.model)
        self._written |= set(missed)  # the next time they get memory
        finalize_layerwise_reload(self.model, self.model_config)
        if self.device.type == "cpu":
            self._repack(set(missed))
        if missed:
            raise RuntimeError(
                f"the engine has taken no weights for {', '.join(missed[:_SHOWN])} ({len(missed)} layers in all): it "
                "does not know them by the names of the model's files"
            )

    def _repack(self, missed: set[str]) -> None:
        """What the CPU's kernels read packed, and a reload leaves as it was: a head tied to the embedding keeps its
        copy of the old weights, and experts lie as files have them."""
        for name, module in self.model.named_modules():
            if isinstance(module, VocabParallelEmbedding):
                module.quant_method.process_weights_after_loading(module)
            elif isinstance(module, RoutedExperts) and name not in missed:
                kernel = getattr(module.quant_method, "moe_kernel", None)
                if kernel is not None:
                    kernel.fused_experts.process_weights_after_loading(module)

    def shutdown(self) -> None:
        close_group(self._group)
        self._group = None


def not_loaded(model: torch.nn.Module) -> list[str]:
    """Layers that hold weights of which none came: an engine passes over names that it does not know without a word.

    A head that is tied to the embedding has come with it.
    """
    came: set[int] = set()
    waiting: dict[str, set[int]] = {}
    for name, layer in model.named_modules():
        info = get_layerwise_info(layer)
        kept = info.kernel_tensors[0] if info.kernel_tensors else dict(layer.named_parameters(recurse=False))
        held = {tensor.data_ptr() for part, tensor in kept.items() if part not in SKIP_LOAD_TENSORS}
        if info.can_load() and info.load_numel == 0:
            waiting[name] = held
        else:
            came |= held
    return [name for name, held in waiting.items() if held - came]


def _moved(slot: Any) -> Any:
    return type(slot)(slot.tensor, 0, slot.offset)
