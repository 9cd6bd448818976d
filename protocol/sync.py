"""What the learner and the generators tell each other about weights: offers, what they hold, and how it went.

Written down and read as all messages are (messages.py).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, Field, model_validator

from chorus.protocol.messages import STRICT, Array32, Message, VersionText
from chorus.protocol.runtime.adapters import Adapter


class Tensor(BaseModel):
    """Name, wire dtype and full shape of one parameter, in the order in which it is sent."""

    model_config = STRICT

    name: str
    dtype: str
    shape: list[int]


WEIGHT_CHECKS = 6  # of one sync; vLLM keeps as many places free for them


class WeightCheck(BaseModel):
    """The learner's own log-probabilities of its `token_ids` most likely next tokens after `prefix`."""

    model_config = STRICT

    prefix: Array32
    token_ids: Array32
    logprobs: Array32

    @model_validator(mode="after")
    def _lengths_agree(self) -> Self:
        if len(self.token_ids) != len(self.logprobs):
            raise ValueError(f"{len(self.token_ids) // 4} token ids but {len(self.logprobs) // 4} log-probabilities")
        return self


class Onward(BaseModel):
    """The group over which a generator's first worker passes the weights on as they come; it is rank 0 there."""

    model_config = STRICT

    group: str
    world_size: int = Field(ge=2)


class Delta(BaseModel):
    """Only what differs from `base` is sent: of each bucket a part of so many bytes (protocol/runtime/delta.py).
    `unit`: bytes of a value; `checksum`: CRC-32 of the whole new buckets."""

    model_config = STRICT

    base: VersionText
    unit: Literal[1, 2, 4, 8]
    lengths: list[Annotated[int, Field(ge=0)]]
    checksum: int


class SyncOffer(Message):
    """The learner invites one generator to receive one version over one process group."""

    SCHEMA: ClassVar[str] = "chorus.sync-offer/1"

    version: VersionText
    group: str  # name of the process group; a new name asks for a new group
    backend: Literal["gloo", "nccl"]
    store_host: str
    store_port: int
    world_size: int = Field(ge=2)  # rank 0, the learner's or that of who passes on, plus the replica's workers
    timeout_s: float = Field(gt=0)
    bucket_bytes: int = Field(ge=1)
    piece_bytes: int = Field(default=0, ge=0)  # buckets travel in pieces of this size; 0: whole
    onward: Onward | None = None
    delta: Delta | None = None  # instead of the buckets
    tensors: list[Tensor]
    temperature: float
    tolerance: float
    checks: list[WeightCheck]
    adapter: Adapter | None = None  # `tensors` are its own, and this is what they must do


class SyncReport(Message):
    """What a generator says of one offer: how it went, and how far its log-probabilities were off."""

    SCHEMA: ClassVar[str] = "chorus.sync-report/1"

    generator_id: str
    version: VersionText
    group: str  # the offer's: the same version may be offered again over another group
    ok: bool
    detail: str = ""
    pause_s: float = 0.0  # sampling stood still
    transfer_s: float = 0.0  # before it: bytes came and were made ready beside the sampling
    total_s: float = 0.0
    gap_mean: float = 0.0
    gap_max: float = 0.0
    adapters: list[Adapter] = Field(default_factory=list)  # what moved, as each worker of the engine saw it
