"""AdamW as the recipe wants it kept: torch's own, or one whose state and weights take less memory.

    learner.optimizer = "adamw8bit"    moments as codes of 8 bits with a scale for each block of a row
    learner.master = "bfloat16"        weights in bfloat16, rounded stochastically: on average nothing is lost
    learner.offload = "optimizer"      moments in pinned host memory; the next piece's copy runs beside an update

All arithmetic is in float32, a piece of some rows at a time, so that nothing whole exists twice. torchao's optimizers
are not taken: in bfloat16 they keep small second moments in bfloat16, where a change of a thousandth is rounded away,
they draw from a generator that no checkpoint holds, and their tensors can be cut into shards on few borders only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from chorus.protocol.config.run import RunConfig
from chorus.protocol.config.supervised import Supervision
from chorus.protocol.config.update import UpdateKeys, block_of
from chorus.protocol.runtime.exits import CannotGoOn

_PIECE = 2**24  # values: 64 MiB in float32
_MOMENTS = (("exp_avg", True), ("exp_avg_sq", False))


def make_optimizer(
    config: RunConfig, parameters: Iterable[torch.nn.Parameter], rank: int, settings: UpdateKeys | Supervision
) -> torch.optim.Optimizer:
    """Over the parameters that train. `settings`: AdamW's; what it keeps, and where, is the learner's."""
    c, s = config.learner, settings
    trained = [p for p in parameters if p.requires_grad]
    if c.offload != "none" and trained[0].device.type == "cpu":
        raise CannotGoOn(
            f"learner.offload = {c.offload}: this learner has no GPU whose memory that would save; remove it"
        )
    how: dict[str, Any] = {"lr": s.lr, "betas": s.betas, "eps": s.adam_eps, "weight_decay": s.weight_decay}
    if (c.optimizer, c.master, c.moments_on_host) == ("adamw", "float32", False):
        # fused: one pass over weights, gradient and moments.
        return torch.optim.AdamW(trained, **how, fused=True)
    return LeanAdamW(trained, c.optimizer == "adamw8bit", c.moments_on_host, (config.run.seed, rank), **how)


def update(optimizer: torch.optim.Optimizer, rate: float, place: tuple[int, int]) -> None:
    """One update at a learning rate. `place`: among the run's updates, the seed of what is drawn."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    if isinstance(optimizer, LeanAdamW):
        optimizer.place = place
    optimizer.step()


def updates_of(optimizer: torch.optim.Optimizer) -> int:
    """How many it has made, resumed or not."""
    return next((int(state["step"]) for state in optimizer.state.values()), 0)


@dataclass(frozen=True)
class _Piece:
    """Some rows of one parameter's local shard, with their state where the shard lies."""

    weights: torch.Tensor
    gradient: torch.Tensor
    kept: dict[str, torch.Tensor]  # the state as it is kept
    state: dict[str, torch.Tensor]  # the same, or its copy beside the weights
    step: int
    generator: torch.Generator | None


class LeanAdamW(torch.optim.Optimizer):
    """The same updates from the same state, `seed` and `place`: what is drawn depends on nothing else."""

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        eight_bit: bool,
        offload: bool,
        seed: tuple[int, int],
        **defaults: Any,
    ) -> None:
        super().__init__(parameters, defaults)
        self.place: tuple[int, int] = (0, 0)
        self._eight_bit = eight_bit
        self._offload = offload
        self._seed = seed
        self._streams: dict[torch.device, Any] = {}

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for piece in self._fetched(self._pieces(group)):
                _adamw(piece, group)
                self._put_back(piece)
        for stream in self._streams.values():
            stream.synchronize()

    def load_state_dict(self, state_dict: Any) -> None:
        """As it was saved: torch's own would cast every state to its parameter's dtype, and move it to its device."""
        super().load_state_dict({"state": {}, "param_groups": state_dict["param_groups"]})
        for saved, group in zip(state_dict["param_groups"], self.param_groups, strict=True):
            for name, p in zip(saved["params"], group["params"], strict=True):
                if name in state_dict["state"]:
                    self.state[p] = dict(state_dict["state"][name])

    def _pieces(self, group: dict[str, Any]) -> Iterator[_Piece]:
        for k, p in enumerate(group["params"]):
            if p.grad is None:
                continue
            state = self.state[p]
            if not state:
                self._begin(p, state)
            state["step"] += 1
            weights, gradient = _local(p), _local(p.grad)
            kept = {name: _local(value) for name, value in state.items() if name != "step"}
            rows = weights.shape[0] if weights.dim() else 1
            at_once = max(1, _PIECE // max(1, weights.numel() // max(1, rows)))
            generator = self._generator(k, weights.device) if p.dtype == torch.bfloat16 else None
            for begin in range(0, rows, at_once):
                some = slice(begin, begin + at_once) if weights.dim() else ...
                mine = {name: value[some] for name, value in kept.items()}
                yield _Piece(weights[some], gradient[some], mine, mine, int(state["step"]), generator)

    def _begin(self, p: torch.nn.Parameter, state: dict[str, Any]) -> None:
        state["step"] = torch.tensor(0.0)
        block = block_of(p.shape) if self._eight_bit else 0
        for name, signed in _MOMENTS:
            if not block:
                state[name] = self._zeros(p, tuple(_local(p).shape), torch.float32)
                continue
            codes = self._zeros(p, tuple(_local(p).shape), torch.uint8)
            _local(codes).fill_(int((_map(signed, torch.device("cpu")) == 0).nonzero()))
            blocks = p.numel() // p.shape[0] // block
            state |= {
                f"{name}_codes": codes,
                f"{name}_scales": self._zeros(p, (_local(p).shape[0], blocks), torch.float32, (p.shape[0], blocks)),
            }

    def _zeros(
        self, p: torch.Tensor, local: tuple[int, ...], dtype: torch.dtype, whole: tuple[int, ...] | None = None
    ) -> torch.Tensor:
        """State of `p`, in rows that are sharded as its own are."""
        mine = torch.zeros(local, dtype=dtype, device=_local(p).device)
        state = mine
        if isinstance(p, DTensor):
            shape = torch.Size(whole or p.shape)
            stride = torch.empty(shape, device="meta").stride()
            state = DTensor.from_local(mine, p.device_mesh, p.placements, run_check=False, shape=shape, stride=stride)
        if not self._offload:
            return state
        host = mine.cpu().pin_memory() if mine.is_cuda else mine
        if isinstance(state, DTensor):
            state._local_tensor = host  # from_local would move it to the mesh's devices
            return state
        return host

    def _generator(self, k: int, device: torch.device) -> torch.Generator:
        text = "/".join(map(str, (*self._seed, *self.place, k)))
        seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")
        return torch.Generator(device).manual_seed(seed)

    # -- moments on the host ----------------------------------------------------------------------------

    def _fetched(self, pieces: Iterable[_Piece]) -> Iterator[_Piece]:
        """Each piece with its state beside its weights; the next one's comes while this one's is worked on."""
        ahead: tuple[_Piece, Any] | None = None
        for piece in pieces:
            coming = self._fetch(piece)
            if ahead is not None:
                yield _arrived(*ahead)
            ahead = coming
        if ahead is not None:
            yield _arrived(*ahead)

    def _fetch(self, piece: _Piece) -> tuple[_Piece, Any]:
        device = piece.weights.device
        if all(value.device == device for value in piece.kept.values()):
            return piece, None
        stream = self._streams.setdefault(device, torch.cuda.Stream(device))
        with torch.cuda.stream(stream):
            here = {name: value.to(device, non_blocking=True) for name, value in piece.kept.items()}
            return _Piece(*(piece.weights, piece.gradient, piece.kept, here, piece.step, piece.generator)), stream

    def _put_back(self, piece: _Piece) -> None:
        device = piece.weights.device
        if piece.state is piece.kept:
            return
        stream = self._streams[device]
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for name, value in piece.state.items():
                piece.kept[name].copy_(value, non_blocking=True)
                value.record_stream(stream)


def _arrived(piece: _Piece, stream: Any) -> _Piece:
    if stream is not None:
        current = torch.cuda.current_stream(piece.weights.device)
        current.wait_stream(stream)
        for value in piece.state.values():
            value.record_stream(current)
    return piece


def _adamw(piece: _Piece, group: dict[str, Any]) -> None:
    low, high = group["betas"]
    gradient = piece.gradient.float()
    first, second = (_read(piece.state, name, signed) for name, signed in _MOMENTS)
    first.lerp_(gradient, 1 - low)
    second.mul_(high).addcmul_(gradient, gradient, value=1 - high)
    weights = piece.weights.float()
    weights.mul_(1 - group["lr"] * group["weight_decay"])
    divisor = (second / (1 - high**piece.step)).sqrt_().add_(group["eps"])
    weights.addcdiv_(first, divisor, value=-group["lr"] / (1 - low**piece.step))
    if piece.generator is not None:
        piece.weights.copy_(round_stochastically(weights, piece.generator))
    for (name, signed), value in zip(_MOMENTS, (first, second), strict=True):
        _write(piece.state, name, signed, value)


def round_stochastically(values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """float32 to bfloat16: up or down with the chances that make its mean the value."""
    bits = values.view(torch.int32)
    noise = torch.randint(0, 1 << 16, values.shape, generator=generator, device=values.device, dtype=torch.int32)
    return ((bits + noise) & -(1 << 16)).view(torch.float32).to(torch.bfloat16)


def _read(state: dict[str, torch.Tensor], name: str, signed: bool) -> torch.Tensor:
    """A moment in float32; the state itself where it is kept so. In 8 bits the second one is kept as its root, which
    spans half as many orders of magnitude."""
    if name in state:
        return state[name]
    codes, scales = state[f"{name}_codes"], state[f"{name}_scales"]
    values = _map(signed, codes.device)[codes.int()].view(*scales.shape, -1) * scales.unsqueeze(-1)
    return (values if signed else values.square_()).view(codes.shape)


def _write(state: dict[str, torch.Tensor], name: str, signed: bool, values: torch.Tensor) -> None:
    if name in state:
        return
    codes, scales = state[f"{name}_codes"], state[f"{name}_scales"]
    blocks = (values if signed else values.sqrt()).reshape(*scales.shape, -1)
    scales.copy_(blocks.abs().amax(-1))
    scaled = blocks / scales.clamp(min=1e-30).unsqueeze(-1)
    known = _map(signed, codes.device)
    codes.copy_(torch.bucketize(scaled, (known[1:] + known[:-1]) / 2, out_int32=True).view(codes.shape))


@cache
def _map(signed: bool, device: torch.device) -> torch.Tensor:
    """[256]: what each code stands for, in shares of its block's largest value, ascending.

    The dynamic tree of arXiv 2110.02861: seven decades below 1, each with twice the steps of the one below; 0; and 1.
    """
    decades = []
    for k in range(7):
        steps = 2**k if signed else 2 ** (k + 1)
        middles = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
        decades.append(10.0 ** (k - 6) * (0.1 + 0.9 * middles))
    tree = torch.cat(decades)
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    return torch.cat([-tree, tree, ends] if signed else [tree, ends]).sort().values.to(device, torch.float32)


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
