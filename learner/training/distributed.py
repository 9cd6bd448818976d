"""More than one learner rank: rank 0 decides, all ranks carry out the same calls in the same order.

    rank 0      reset_reference   reference   step   supervise   snapshot   save   load   stop
    others      follow(): receive the call, make it, wait for the next

A call is one msgpack message broadcast over gloo (never pickled). Rank 0 returns the result; the others
only take part in its collectives. All ranks gather weights before rank 0 sends any.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from statistics import fmean
from typing import Any

import msgpack
import numpy as np
import torch
import torch.distributed as dist

from chorus.learner.training import checkpoint
from chorus.learner.training.architecture import check_forward, check_names
from chorus.learner.training.batch import TrainingSequence
from chorus.learner.training.lora import base_norms, expected
from chorus.learner.training.memory import give_back_what_is_freed
from chorus.learner.training.policy import (
    Policy,
    WithoutAdapter,
    as_files_have_it,
    freeze,
    load_policy,
    sent_parameters,
)
from chorus.learner.training.sharding import put_parts_back, whole
from chorus.learner.training.supervised import Supervised, SupervisedStats
from chorus.learner.training.token_stats import StepStats
from chorus.learner.training.trainer import Trainer
from chorus.protocol.config.run import RunConfig
from chorus.protocol.config.settings import StepSettings
from chorus.protocol.messages import (
    Version,
    WeightCheck,
    pack_floats,
    pack_ids,
    unpack_floats,
    unpack_ids,
)
from chorus.protocol.run_folder.demonstrations import Demonstration
from chorus.protocol.runtime.adapters import Adapter
from chorus.protocol.runtime.redis import connect
from chorus.protocol.runtime.redis_store import RedisStore
from chorus.protocol.weights import (
    BucketPlan,
    describe,
    new_buckets,
    plan_buckets,
)

_IDLE_DEADLINE = timedelta(hours=6)  # followers wait for rank 0, which has deadlines of its own
_MEETING_S = 300.0  # until all ranks have come to a meeting on Redis
_CHECKED_TOKENS = 5


@dataclass(frozen=True)
class Snapshot:
    """One version's weights, in host memory: uint8 buckets laid out by `plan`.

    `rounding`: nats by which bfloat16 rounds the weight check's log-probabilities on average; 0 in float32. `adapter`:
    the weights are adapters, and this is what they must do.
    """

    version: Version
    plan: BucketPlan
    buckets: list[torch.Tensor]
    checks: list[WeightCheck]
    rounding: float = 0.0
    adapter: Adapter | None = None


def join(redis_url: str) -> tuple[int, int, torch.device]:
    """(rank, world size, device) as torchrun set them; a lone process is rank 0 of 1. Ranks of several nodes meet on
    Redis (deploy/nodes.py), those of one on torchrun's own store."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world > 1:
        give_back_what_is_freed()
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        group = os.environ.get("TORCHELASTIC_RUN_ID", "")
        if group.startswith("chorus:"):
            store = RedisStore(connect(redis_url), group, _MEETING_S)
            dist.init_process_group(
                backend, store=store, rank=int(os.environ["RANK"]), world_size=world, timeout=_IDLE_DEADLINE
            )
        else:
            dist.init_process_group(backend, timeout=_IDLE_DEADLINE)
    return int(os.environ.get("RANK", "0")), world, device


class DistributedTrainer:
    """All ranks' model, optimizer and collectives behind calls that rank 0 makes.

    check_exports: look at the first export, and at the first one after a way back (training/export.py).
    """

    def __init__(
        self, config: RunConfig, device: torch.device, start_from: Path | None, check_exports: bool = False
    ) -> None:
        self.config = config
        self.device = device
        policy = load_policy(config, device)
        check_forward(policy, config.model.dtype == "bfloat16", device)
        put_parts_back(policy)
        self.trainer = Trainer(policy, config, device, self._first_reference(policy))
        self.supervised = Supervised(self.trainer, config.supervision, config.run.steps)
        self._reference_is_first = True
        self.manifest = None if start_from is None else self._load(start_from)
        self.trainer.done = self.manifest.step if self.manifest else 0
        self._check_exports = self._check_next = check_exports
        write = timedelta(seconds=checkpoint.WRITE_DEADLINE_S)
        self._beside: Any = dist.new_group(backend="gloo", timeout=write) if dist.is_initialized() else None
        self._saving: checkpoint.Saving | None = None
        dtype = "float32" if policy.lora else config.model.dtype  # adapters are merged in float32
        self._sent = sent_parameters(policy)
        tensors = [pair for sent in self._sent for pair in sent.tensors.items()]
        if not policy.lora:
            check_names(policy.hf, tensors)
        self._plan = plan_buckets(describe(tensors, dtype), config.learner.bucket_bytes)
        self._norms = base_norms(policy.hf) if policy.lora else {}

    # -- rank 0 ---------------------------------------------------------------------------------------

    def reference(self, sequences: list[TrainingSequence]) -> list[np.ndarray]:
        """The reference policy's log-probabilities of each sequence's completion tokens, [tokens] each."""
        self._tell("reference", [_flatten(s) for s in sequences])
        return self.trainer.reference_log_probabilities(sequences)

    def step(self, minibatches: list[list[TrainingSequence]], settings: StepSettings | None = None) -> StepStats:
        """One training step on all ranks."""
        settings = settings or StepSettings.of(self.config)
        self._tell("step", [[[_flatten(s) for s in batch] for batch in minibatches], asdict(settings)])
        return self.trainer.step(minibatches, settings)

    def reset_reference(self, reset_optimizer: bool) -> None:
        """The current policy becomes the reference policy on all ranks."""
        self._tell("reset_reference", reset_optimizer)
        self._reset_reference(reset_optimizer)

    def supervise(self, batch: Sequence[Demonstration]) -> SupervisedStats:
        """One supervised update on all ranks."""
        self._tell("supervise", [[d.problem_id, d.template, d.prompt, d.target, d.verdict] for d in batch])
        return self.supervised.step(batch)

    def snapshot(self, version: Version, prefixes: list[list[int]]) -> Snapshot:
        """Copy the weights to host memory, with what the learner predicts after each prefix."""
        self._tell("snapshot", prefixes)
        buckets = self._gather(to_host=True)
        adapter = None
        if lora := self.config.model.lora:
            sent = [pair for views in self._plan.views(buckets) for pair in views]
            adapter = expected(lora.scaling, self._norms, sent)
        return Snapshot(version, self._plan, buckets, *self._weight_checks(prefixes), adapter)

    def save(self, folder: Path, manifest: checkpoint.Manifest) -> checkpoint.Saving:
        """Begin a checkpoint of all as it is now; the one before must have been waited for."""
        self._tell("save", [str(folder), manifest.step])
        check, self._check_next = self._check_next, False
        return self._save(folder, manifest, check)

    def load(self, path: Path) -> None:
        """Policy and optimizer as this checkpoint holds them."""
        self._tell("load", str(path))
        self._check_next = self._check_exports
        self._load(path)

    def stop(self) -> None:
        self._tell("stop", None)

    def _tell(self, call: str, argument: Any) -> None:
        if dist.is_initialized():
            data = torch.frombuffer(bytearray(msgpack.packb([call, argument]) or b""), dtype=torch.uint8)
            dist.broadcast(torch.tensor([len(data)]), 0)
            dist.broadcast(data, 0)

    # -- the other ranks --------------------------------------------------------------------------------

    def follow(self) -> None:
        """Take part in rank 0's calls until it stops."""
        while True:
            length = torch.zeros(1, dtype=torch.int64)
            dist.broadcast(length, 0)
            data = torch.empty(int(length), dtype=torch.uint8)
            dist.broadcast(data, 0)
            call, argument = msgpack.unpackb(data.numpy().tobytes())
            if call == "step":
                batches, settings = argument
                self.trainer.step([[_restore(s) for s in batch] for batch in batches], StepSettings(**settings))
            elif call == "reset_reference":
                self._reset_reference(argument)
            elif call == "supervise":
                self.supervised.step([Demonstration(*fields) for fields in argument])
            elif call == "reference":
                self.trainer.reference_log_probabilities([_restore(s) for s in argument])
            elif call == "snapshot":
                self._gather(to_host=False)
                self._weight_checks(argument)
            elif call == "save":
                folder, step = argument
                placeholder = checkpoint.Manifest(step, 0, {})  # rank 0 writes the manifest
                self._save(Path(folder), placeholder)
            elif call == "load":
                self._load(Path(argument))
            else:
                if self._saving is not None:
                    self._saving.wait()
                return

    # -- all ranks --------------------------------------------------------------------------------------

    @property
    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"optimizer": self.trainer.optimizer, "supervised": self.supervised.optimizer}

    def _first_reference(self, policy: Policy) -> Policy | WithoutAdapter | None:
        """The policy that the run began with, where the objective needs one."""
        if not self.config.objective.needs_reference:
            return None
        if policy.lora:
            return WithoutAdapter(policy)
        return freeze(load_policy(self.config, self.device))

    def _save(self, folder: Path, manifest: checkpoint.Manifest, check: bool = False) -> checkpoint.Saving:
        """With the reference where it is another one than the first, also where it is reset no more: who loads this
        takes the first one for a reference that is not there."""
        t = self.trainer
        if self._saving is not None:
            self._saving.wait()
        reference = None if self._reference_is_first else t.reference
        assert not isinstance(reference, WithoutAdapter)
        self._saving = checkpoint.save(folder, t.policy, self._optimizers, manifest, check, reference, self._beside)
        return self._saving

    def _load(self, path: Path) -> checkpoint.Manifest:
        """Policy, optimizers and reference as this checkpoint holds them; without a reference in it, the first one."""
        t = self.trainer
        stored = isinstance(t.reference, Policy) and checkpoint.has_reference(path)
        if not stored and not self._reference_is_first:
            t.reference = self._first_reference(t.policy)
        self._reference_is_first = not stored
        return checkpoint.load(
            path, t.policy, self._optimizers, t.reference if isinstance(t.reference, Policy) and stored else None
        )

    def _reset_reference(self, reset_optimizer: bool) -> None:
        self._reference_is_first = False
        self.trainer.reset_reference(reset_optimizer)

    @torch.no_grad()
    def _gather(self, to_host: bool) -> list[torch.Tensor]:
        """Gather every parameter, one after another; rank 0 copies each into its place in the buckets.

        A blocking copy from a GPU would send float32 and round it with the host's cores.
        """
        buckets = new_buckets(self._plan, pinned=self.device.type == "cuda") if to_host else []
        views = {name: view for bucket in self._plan.views(buckets) for name, view in bucket} if to_host else {}
        for sent in self._sent:
            full = whole(sent.parameter)
            for name, tensor in as_files_have_it(self.trainer.policy, sent, full).items() if to_host else ():
                views[name].copy_(tensor, non_blocking=True)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return buckets

    def _weight_checks(self, prefixes: list[list[int]]) -> tuple[list[WeightCheck], float]:
        """What is predicted after each prefix, and by how much bfloat16 rounds that on average."""
        width = max(map(len, prefixes), default=1)
        at_once = max(1, self.trainer.config.learner.token_budget // width)
        points: list[WeightCheck] = []
        rounding: list[float] = []
        for start in range(0, len(prefixes), at_once):
            part = prefixes[start : start + at_once]
            logprobs, ids, rounded = self.trainer.top_log_probabilities(part, _CHECKED_TOKENS)
            points += [
                WeightCheck(prefix=pack_ids(prefix), token_ids=pack_ids(top), logprobs=pack_floats(values))
                for prefix, top, values in zip(part, ids, logprobs, strict=True)
            ]
            rounding += rounded
        return points, fmean(rounding or [0.0])


def _flatten(s: TrainingSequence) -> list[Any]:
    advantage = pack_floats(s.advantage) if isinstance(s.advantage, np.ndarray) else s.advantage
    age = pack_ids(s.age) if isinstance(s.age, np.ndarray) else s.age
    return [pack_ids(s.prompt), pack_ids(s.completion), pack_floats(s.behaviour), advantage, age, s.temperature]


def _restore(fields: list[Any]) -> TrainingSequence:
    prompt, completion, behaviour, advantage, age, temperature = fields
    return TrainingSequence(
        np.array(unpack_ids(prompt)),
        np.array(unpack_ids(completion)),
        unpack_floats(behaviour),
        unpack_floats(advantage) if isinstance(advantage, bytes) else advantage,
        unpack_ids(age) if isinstance(age, bytes) else age,
        temperature,
    )
