"""Runs inside vLLM's workers: joins the replica's process group, receives buckets, puts their weights in place.

Told by the engine's process (generator/vllm_process.py), for the agent alone, in this order:

    begin("join")       once a group: meet the learner under the group's name, in a thread, with a deadline
    begin("receive")    every sync: all buckets, or what differs of them (held.py), come into memory beside the model,
                        in a thread; sampling goes on
    go_on()             between steps, until it says "": portions of what came are made ready (generator/spare.py)
    put_in_place()      what is ready becomes the model's

A transfer that fails has touched nothing, and its group is spent. A thread that hangs ends with its deadline; until
then nothing else is begun. Over NCCL the bytes go onto the device itself, so they are received when they are put in
place: that way has not been run.

Of a run that trains an adapter, only the adapter comes; it is merged into the layers that it moves (adapter.py).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from vllm.config import set_current_vllm_config
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
    layerwise_groups,
)
from vllm.model_executor.layers.fused_moe.routed_experts import RoutedExperts
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info
from vllm.model_executor.model_loader.reload.meta import SKIP_LOAD_TENSORS, materialize_layer

from chorus.generator.adapter import Base, Delivery, merge, together
from chorus.generator.held import Held
from chorus.generator.relay import Relay, relay_to
from chorus.generator.spare import Spare
from chorus.protocol.messages import Delta, Onward, Tensor
from chorus.protocol.runtime.adapters import Adapter, Moved
from chorus.protocol.runtime.exits import first_line
from chorus.protocol.runtime.model_folder import model_folder
from chorus.protocol.weights import BucketPlan, broadcast, close_group, join_group, plan_buckets

log = logging.getLogger("chorus.receiver")
_SHOWN = 3  # names of layers in a message
_DONE = object()
_AT_ONCE_S = 0.005  # after which a portion waits for the next step: the last one belongs to the pause


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

    version: str
    tensors: list[dict[str, Any]]
    bucket_bytes: int
    timeout_s: float
    scaling: float | None = None  # the tensors are an adapter's
    piece_bytes: int = 0
    onward: dict[str, Any] | None = None  # the group over which they are passed on
    delta: dict[str, Any] | None = None  # what comes in the buckets' place


class ChorusReceiver(WeightTransferEngine[GroupInfo, TransferInfo]):
    """One per vLLM worker; rank 1 + worker rank in the replica's group."""

    init_info_cls = GroupInfo
    update_info_cls = TransferInfo

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._group: torch.distributed.ProcessGroup | None = None
        self._joined: GroupInfo | None = None
        self._over_nccl = False
        self._thread: threading.Thread | None = None
        self._failed = ""
        self._relay: Relay | None = None
        self._asked: TransferInfo | None = None  # what is here
        self._prepared = False  # and ready
        self._plan: BucketPlan | None = None
        self._held = Held(pinned=self.device.type == "cuda")
        self._portions: Iterator[None] = iter(())
        self._spare = Spare.of(self.model, self.model_config.dtype) if self.device.type == "cpu" else None
        self._written: set[str] = set()
        self._base: Base | None = None
        self._merged: Adapter | None = None  # what stands aside
        self.in_place: Adapter | None = None

    def begin(self, do: str, info: dict[str, Any]) -> None:
        """Start the thread that waits for the learner; returns at once."""
        if self._thread is not None and self._thread.is_alive():
            raise RuntimeError("the transfer before has not ended yet: its deadline is not over")
        self._failed, self._asked, self._prepared, self._portions = "", None, False, iter(())
        work, asked = (self._join, GroupInfo(**info)) if do == "join" else (self._receive, TransferInfo(**info))
        self._thread = threading.Thread(target=self._carry_out, args=(work, asked), name="weights", daemon=True)
        self._thread.start()

    def _carry_out(self, work: Any, asked: Any) -> None:
        try:
            work(asked)
        except Exception as error:  # told by `go_on`
            self._failed = f"{type(error).__name__}: {error}"

    def go_on(self) -> str | None:
        """None: not ready yet; "": ready; else why it never will be."""
        assert self._thread is not None
        if self._thread.is_alive():
            return None
        until = time.monotonic() + _AT_ONCE_S
        with set_current_vllm_config(self.vllm_config):
            while not self._failed and next(self._portions, _DONE) is not _DONE:
                if time.monotonic() >= until:
                    return None
        self._prepared = not self._failed
        return self._failed[:1000]

    def _join(self, asked: GroupInfo) -> None:
        close_group(self._group)
        self._group = None
        self._over_nccl = asked.backend == "nccl"
        self._joined = i = asked
        rank = 1 + self._worker
        self._group = join_group(i.backend, i.store_host, i.store_port, i.group, rank, i.world_size, i.timeout_s)

    @property
    def _worker(self) -> int:
        parallel = self.parallel_config
        return parallel.data_parallel_index * parallel.world_size + parallel.rank

    def _receive(self, asked: TransferInfo) -> None:
        if self._group is None:
            raise RuntimeError("weights announced before a process group was joined; the agent must join first")
        self._plan = plan = plan_buckets([Tensor(**t) for t in asked.tensors], asked.bucket_bytes)
        if not self._over_nccl:
            self._held.room(plan, in_use=self._relay is not None and self._relay.busy)
            self._take(asked)
            if self._spare is not None:
                self._portions = self._ready(self._spare, plan, asked.scaling)
        self._asked = asked

    def _take(self, info: TransferInfo) -> None:
        """Into the buckets, and on to whoever gets them from here."""
        assert self._group is not None
        relay = self._relay_of(info)
        receive = partial(broadcast, self._group, deadline_s=info.timeout_s)
        delta = Delta(**info.delta) if info.delta else None
        for piece in self._held.take(info.version, info.piece_bytes, delta, receive):
            if relay is not None:
                relay.pass_on(piece)

    def _relay_of(self, info: TransferInfo) -> Relay | None:
        """The first worker's way on, where the offer names one."""
        assert self._joined is not None
        onward = Onward(**info.onward) if info.onward and self._worker == 0 else None
        i = self._joined
        self._relay = relay_to(onward, self._relay, i.backend, i.store_host, i.store_port, info.timeout_s)
        return self._relay

    def _ready(self, spare: Spare, plan: BucketPlan, scaling: float | None) -> Iterator[None]:
        """Layer by layer, so that a step waits for one of them at most."""
        tensors = dict(pair for views in plan.views(self._held.buckets) for pair in views)
        spare.drop()
        self._merged = None
        try:
            if scaling is None:
                yield from self._ready_whole(spare, tensors)
            else:
                yield from self._ready_merged(spare, Delivery(scaling, [*tensors.items()]))
        except Exception as error:  # nothing was changed: the model is loaded in the pause, which tells what is wrong
            log.warning("from now on weights are loaded while sampling stands still: %s", first_line(error))
            self._spare = None

    def _ready_whole(self, spare: Spare, tensors: dict[str, torch.Tensor]) -> Iterator[None]:
        for names in layerwise_groups(list(tensors)):
            spare.prepare([(name, tensors[name]) for name in names])
            yield
        spare.tie()
        if missed := spare.missed():
            raise RuntimeError(f"nothing was made ready for {missed[0]}")

    def _ready_merged(self, spare: Spare, delivery: Delivery) -> Iterator[None]:
        moved: dict[str, Moved] = {}
        for layer, names in self._layers_of(delivery).items():
            if self.model.get_submodule(layer) not in spare.prepare([*self._whole(delivery, names, moved)]):
                raise RuntimeError(f"nothing was made ready for {layer}")
            yield
        self._merged = delivery.seen(moved)

    def put_in_place(self) -> None:
        prepared, self._prepared = self._prepared, False
        asked, plan = self._asked, self._plan
        if not prepared or asked is None or plan is None:
            raise RuntimeError("there are no whole weights to put in place; receive some first")
        with set_current_vllm_config(self.vllm_config):
            if self._spare is not None:
                self.in_place = None
                self._spare.put_in_place()
                self.in_place = self._merged
            elif asked.scaling is not None:
                views = (pair for tensors in self._views(plan, asked) for pair in tensors)
                self._merge(Delivery(asked.scaling, [(name, tensor.cpu()) for name, tensor in views]))
            else:
                self._load(plan, asked)

    def _views(self, plan: BucketPlan, asked: TransferInfo) -> Iterator[list[tuple[str, torch.Tensor]]]:
        return self._staged(plan, asked.timeout_s) if self._over_nccl else plan.views(self._held.buckets)

    def _staged(self, plan: BucketPlan, timeout_s: float) -> Iterator[list[tuple[str, torch.Tensor]]]:
        assert self._group is not None
        for k, size in enumerate(plan.bucket_sizes):
            bucket = torch.empty(size, dtype=torch.uint8, device=self.device)
            broadcast(self._group, bucket, timeout_s)
            yield from BucketPlan([_moved(s) for s in plan.slots if s.bucket == k], [size]).views([bucket])

    def _load(self, plan: BucketPlan, asked: TransferInfo) -> None:
        """The model is opened for loading, and layers are put in their kernels' format."""
        model: Any = self.model
        self._open()
        for tensors in self._views(plan, asked):
            model.load_weights(tensors)
        if not self._over_nccl and (missed := set(not_loaded(model)) - self._written):
            self._written |= missed
            self._open()
            for tensors in plan.views(self._held.buckets):
                model.load_weights(tensors)
        self._close()

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

    def _merge(self, delivery: Delivery) -> None:
        """Layer by layer. A layer that the engine does not take whole keeps its weights, and the sync fails by name."""
        model: Any = self.model
        self.in_place = None
        moved: dict[str, Moved] = {}
        for layer, names in self._layers_of(delivery).items():
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

    def _layers_of(self, delivery: Delivery) -> dict[str, list[str]]:
        """The engine's layers that an adapter moves, each with its tensors in the model's files."""
        if self._base is None:
            self._base = Base(model_folder(self.model_config.model))
        return together(delivery.parts, self._base.names, getattr(self.model, "packed_modules_mapping", {}))

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

    def _close(self) -> None:
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

    # vLLM's own way in is not taken: it would stop sampling while bytes come.

    def init_transfer_engine(self, init_info: GroupInfo) -> None:
        raise NotImplementedError("use `begin`")

    def start_weight_update(self) -> None:
        raise NotImplementedError("use `begin`")

    def receive_weights(self, update_info: TransferInfo) -> None:
        raise NotImplementedError("use `begin`")

    def finish_weight_update(self) -> None:
        raise NotImplementedError("use `put_in_place`")


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
