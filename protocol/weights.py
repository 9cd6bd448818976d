"""Weights on the wire: one process group per generator replica, and flat buckets of bytes.

Rank 0 is the learner's rank 0, ranks 1..n are the replica's vLLM workers. The learner names the group; both sides then
meet in a store, build the group with the same name and exchange the same buckets in the same order:

    learner                                      each worker of the replica
    open_group(rank=0)  ◀─── store, by name ───▶ join_group(rank=1 + worker)      once a replica
    broadcast(bucket 0) ────────────────────────▶ broadcast(bucket 0)             every sync
    broadcast(bucket 1) ────────────────────────▶ ...

Over gloo the store is on the run's Redis, behind its password; for NCCL, which was never seen with a store written in
Python, the learner hosts a TCPStore, which asks nobody who he is.

A call that outlives its deadline raises on both sides, and the group is then dead for good: drop it and
build another under a new name. A replica's group holds no other replica, so it harms nobody else.
Cost: bytes x replicas over the learner's link, hidden behind training; or bytes once, where replicas pass on to each
other what has come (`learner.fan_out = "relay"`): rank 0 of such a group is a worker of the replica before.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import redis
import torch
from torch.distributed import PrefixStore, ProcessGroup, TCPStore  # pyright: ignore[reportPrivateImportUsage]

from chorus.protocol.messages import Tensor
from chorus.protocol.runtime.exits import CannotGoOn, first_line
from chorus.protocol.runtime.redis import RENDEZVOUS, connect
from chorus.protocol.runtime.redis_store import RedisStore

_ALIGN = 16  # every tensor starts at a multiple of the widest dtype's size


def host_store(host: str, port: int, deadline_s: float) -> TCPStore:
    """The learner's rendezvous store; port 0 takes a free one. Raises CannotGoOn.

    It listens on the address of `host` alone, where that is one of this machine's; TCPStore by itself would take
    all interfaces, loopback or not. A `host` that is somebody else's (a service's name, a gateway) leads here from
    outside, so that all interfaces are needed. `.host` and `.port` are for this machine's own connections; `.host` is
    an address that others can reach too, if they can reach us at all.
    """
    host = _bare(host)
    try:
        family, address = _resolve(host)
    except OSError as error:
        raise CannotGoOn(
            f"learner.host {host}: no such host ({error.strerror}); give a name or an address of this machine"
        ) from None
    try:
        try:
            listener = socket.create_server((address, port), family=family)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            address, listener = own_address_towards(address), socket.create_server(("", port), family=family)
        bound = listener.getsockname()[1]
        return TCPStore(
            address,
            bound,
            is_master=True,
            wait_for_workers=False,
            timeout=timedelta(seconds=deadline_s),
            master_listen_fd=listener.detach(),
        )
    except (OSError, OverflowError, RuntimeError) as error:
        raise CannotGoOn(
            f"learner.host {host}, learner.store_port {port}: can't listen there ({first_line(error)}); "
            "choose another port, or 0 for any free one"
        ) from None


def _bare(host: str) -> str:
    """Without the brackets that an IPv6 address has in a URL."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def _resolve(host: str) -> tuple[socket.AddressFamily, str]:
    """The first IPv4 address of a host, or its first IPv6 address where it has no other: both sides must choose alike.

    Raises OSError.
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    family, _, _, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
    return family, str(address[0])


class MeetingStore(RedisStore):
    """On the run's Redis. `host`: over the interface that leads there go the bytes; `port`: 0 tells this kind."""

    def __init__(self, client: redis.Redis, run_id: str, host: str, deadline_s: float) -> None:
        super().__init__(client, f"chorus:{run_id}:weights", deadline_s)
        self.host, self.port = _bare(host), 0


def join_store(host: str, port: int, deadline_s: float) -> TCPStore | MeetingStore:
    """A worker's connection to the learner's store. Raises RuntimeError when nobody listens there, CannotGoOn where
    Redis does not answer."""
    if port == 0:
        return _meeting_store(os.environ[RENDEZVOUS], host, deadline_s)
    return TCPStore(_bare(host), port, is_master=False, timeout=timedelta(seconds=deadline_s))


@cache
def _meeting_store(rendezvous: str, host: str, deadline_s: float) -> MeetingStore:
    """One for all groups that this process ever joins: each failed sync makes another group, and a store of its own
    would be one more connection to Redis for as long as the engine lives."""
    run_id, _, url = rendezvous.partition(" ")
    return MeetingStore(connect(url), run_id, host, deadline_s)


def announce_group(store: TCPStore | MeetingStore, name: str) -> None:
    """The learner's word, before it offers a group, that it will be there; `retract_group` takes it back."""
    store.set(_word(name), "")


def retract_group(store: TCPStore | MeetingStore, name: str) -> None:
    """On Redis, with all that its ranks have told each other there: no name is used twice."""
    if isinstance(store, MeetingStore):
        store.delete_under(name)
    else:
        store.delete_key(_word(name))


def _word(name: str) -> str:
    return f"{name}/announced"


def join_group(backend: str, host: str, port: int, name: str, rank: int, world_size: int, deadline_s: float) -> Any:
    """A worker's way into an announced group. Raises RuntimeError, at once where the group was given up.

    An engine that stood still finds a queue of invitations when it goes on, all but the last one long given up. Were it
    to wait out a deadline for each of them, the last one would be given up as well before its turn came, and so on.
    """
    store = join_store(host, port, deadline_s)
    if not store.check([_word(name)]):
        raise RuntimeError(f"process group {name} was given up by the learner before this worker came")
    return open_group(backend, store, name, rank, world_size, deadline_s)


def open_group(
    backend: str, store: TCPStore | MeetingStore, name: str, rank: int, world_size: int, deadline_s: float
) -> Any:
    """Meet all ranks under `name`; raises RuntimeError if they don't come within `deadline_s`."""
    prefixed = PrefixStore(name, store)
    prefixed.set_timeout(timedelta(seconds=deadline_s))
    if backend == "gloo":
        return _gloo(prefixed, rank, world_size, timedelta(seconds=deadline_s), store.host)
    options = torch.distributed.ProcessGroupNCCL.Options()
    options._timeout = timedelta(seconds=deadline_s)
    return torch.distributed.ProcessGroupNCCL(prefixed, rank, world_size, options)


def _gloo(store: PrefixStore, rank: int, world_size: int, deadline: timedelta, host: str) -> ProcessGroup:
    """The bytes go where the store is: over loopback no port is open to other hosts, else over the interface that
    leads there. Gloo by itself takes the address of the host's name, which on many machines is a loopback one."""
    gloo: Any = torch.distributed.ProcessGroupGloo
    options = gloo._Options()
    options._timeout = deadline
    options._devices = [gloo.create_device(hostname=own_address_towards(host))]
    return gloo(store, rank, world_size, options)


def own_address_towards(host: str) -> str:
    """This machine's address on the interface that leads to `host`; loopback where nothing leads there."""
    try:
        family, address = _resolve(host)
    except OSError:
        return "127.0.0.1"
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))  # of a datagram socket: chooses a route, sends nothing
        except OSError:
            return "127.0.0.1" if family == socket.AF_INET else "::1"
        return probe.getsockname()[0]


def close_group(group: ProcessGroup | None) -> None:
    """Abort what may be in flight (NCCL); a gloo group is closed by dropping the last reference."""
    abort = getattr(group, "abort", None)
    if abort is not None and "NCCL" in type(group).__name__:
        abort()


def broadcast(group: ProcessGroup, buffer: torch.Tensor, deadline_s: float) -> None:
    """Rank 0's `buffer` to all; returns when the bytes are there (gloo) or enqueued and waited for (NCCL)."""
    group.broadcast(buffer, 0).wait(timedelta(seconds=deadline_s))
    if buffer.is_cuda:
        torch.cuda.current_stream().synchronize()


def pieces(buckets: Iterable[torch.Tensor], piece_bytes: int) -> Iterator[torch.Tensor]:
    """The buckets as they travel, as views: whole, or cut, so that who passes them on need not have a whole one."""
    for bucket in buckets:
        yield from bucket.split(piece_bytes) if piece_bytes else (bucket,)


@dataclass(frozen=True)
class Slot:
    """Where one tensor lies: byte `offset` in bucket `bucket`."""

    tensor: Tensor
    bucket: int
    offset: int

    @property
    def value_bytes(self) -> int:
        return _dtype(self.tensor.dtype).itemsize

    @property
    def n_bytes(self) -> int:
        return _numel(self.tensor.shape) * self.value_bytes


@dataclass(frozen=True)
class BucketPlan:
    """Which tensor lies where. Both sides compute it from the same tensor list, so none is sent."""

    slots: list[Slot]
    bucket_sizes: list[int]

    @property
    def total_bytes(self) -> int:
        return sum(self.bucket_sizes)

    def views(self, buckets: Iterable[torch.Tensor]) -> Iterator[list[tuple[str, torch.Tensor]]]:
        """For each uint8 bucket, its tensors by name, as views of the bucket's memory."""
        by_bucket: list[list[Slot]] = [[] for _ in self.bucket_sizes]
        for slot in self.slots:
            by_bucket[slot.bucket].append(slot)
        for slots, bucket in zip(by_bucket, buckets, strict=True):
            yield [
                (
                    s.tensor.name,
                    bucket[s.offset : s.offset + s.n_bytes].view(_dtype(s.tensor.dtype)).view(s.tensor.shape),
                )
                for s in slots
            ]


def plan_buckets(tensors: list[Tensor], bucket_bytes: int) -> BucketPlan:
    """Lay tensors one after another into buckets of at most `bucket_bytes`; a larger one gets its own."""
    slots: list[Slot] = []
    sizes: list[int] = []
    for tensor in tensors:
        n_bytes = -(-_numel(tensor.shape) * _dtype(tensor.dtype).itemsize // _ALIGN) * _ALIGN
        if not sizes or sizes[-1] + n_bytes > bucket_bytes:
            sizes.append(0)
        slots.append(Slot(tensor, len(sizes) - 1, sizes[-1]))
        sizes[-1] += n_bytes
    return BucketPlan(slots, sizes)


def describe(named: Iterable[tuple[str, torch.Tensor]], dtype: str) -> list[Tensor]:
    """Names and full shapes of parameters (FSDP shards included: `.shape` is global), at wire dtype."""
    return [Tensor(name=name, dtype=dtype, shape=list(p.shape)) for name, p in named]


def new_buckets(plan: BucketPlan, pinned: bool = False) -> list[torch.Tensor]:
    """Host memory for a whole plan: one uint8 tensor a bucket."""
    return [torch.empty(size, dtype=torch.uint8, pin_memory=pinned) for size in plan.bucket_sizes]


def _numel(shape: list[int]) -> int:
    n = 1
    for size in shape:
        n *= size
    return n


def _dtype(name: str) -> torch.dtype:
    dtype: Any = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{name!r} is no torch dtype")
    return dtype
