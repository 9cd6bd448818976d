"""What travels between the processes, and how it is written down.

On Redis a message is one msgpack map whose first key is `schema`; arrays are little-endian bytes
(int32 token ids, float32 log-probabilities). Nothing is ever pickled. Whoever reads a message
validates it: `decode` raises `MessageError` with one clear line and never anything else.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal, Self

import msgpack
import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from chorus.protocol.graders import KINDS
from chorus.protocol.runtime.adapters import Adapter

MAX_MESSAGE_BYTES = 64 * 2**20


class MessageError(ValueError):
    """A message that can't be read: truncated, forged, of another schema, or out of bounds."""


def _four_byte_items(value: bytes) -> bytes:
    if len(value) % 4:
        raise ValueError(f"is {len(value)} bytes long; arrays hold items of 4 bytes")
    return value


def _readable(tests: str) -> str:
    try:
        json.loads(tests)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    return tests


JsonText = Annotated[str, AfterValidator(_readable)]
Kind = Annotated[str, Field(pattern=r"^[A-Za-z][\w-]{0,31}$")]  # of KINDS, or the name of a user's own grader
Array32 = Annotated[bytes, AfterValidator(_four_byte_items)]
VersionText = Annotated[str, Field(pattern=r"^\d{1,15}\.\d{1,15}$")]
_STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def pack_ids(ids: list[int] | np.ndarray) -> bytes:
    """Token ids as little-endian int32 bytes."""
    return np.asarray(ids, dtype="<i4").tobytes()


def pack_floats(values: list[float] | np.ndarray) -> bytes:
    """Values as little-endian float32 bytes."""
    return np.asarray(values, dtype="<f4").tobytes()


def unpack_ids(data: bytes) -> np.ndarray:
    """[tokens] int32, read-only view."""
    return np.frombuffer(data, dtype="<i4")


def unpack_floats(data: bytes) -> np.ndarray:
    """[tokens] float32, read-only view."""
    return np.frombuffer(data, dtype="<f4")


class Message(BaseModel):
    """Base of all wire messages. `SCHEMA` is `name/version`; a reader refuses any other."""

    model_config = _STRICT
    SCHEMA: ClassVar[str]

    def encode(self) -> bytes:
        return msgpack.packb({"schema": self.SCHEMA, **self.model_dump()}) or b""

    @classmethod
    def decode(cls, data: bytes) -> Self:
        if len(data) > MAX_MESSAGE_BYTES:
            raise MessageError(f"{cls.SCHEMA}: {len(data)} bytes, more than {MAX_MESSAGE_BYTES}")
        try:
            fields = msgpack.unpackb(data, strict_map_key=True)
        except Exception as error:  # msgpack raises half a dozen unrelated classes
            raise MessageError(f"{cls.SCHEMA}: not msgpack ({type(error).__name__}: {_short(error)})") from None
        if not isinstance(fields, dict):
            raise MessageError(f"{cls.SCHEMA}: a {type(fields).__name__} where a map was expected")
        schema = fields.pop("schema", None)
        if schema != cls.SCHEMA:
            raise MessageError(f"expected schema {cls.SCHEMA}, got {_short(repr(schema))}: another version of Chorus?")
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise MessageError(f"{cls.SCHEMA}: {_short(where) or 'message'}: {_short(first['msg'])}") from None


def _short(text: object) -> str:
    """What a stranger wrote must not flood the log."""
    return str(text)[:200]


def grading_of(kind: str, golds: list[str], tests: str | None, row: str | None) -> dict[str, Any]:
    """What a grader is told of a problem."""
    given: dict[str, Any] = {"kind": kind}
    if tests is not None:
        given["tests"] = json.loads(tests)
    elif golds:  # a user's own grader may do without
        given["gold"] = golds
    return given if row is None else given | {"row": json.loads(row)}


class Problem(BaseModel):
    """One problem with its accepted golds. A source hands these out; they never travel on Redis.

    `tests` of a problem of kind `code` take the golds' place: a list of objects as `/v1/grade` takes them, as JSON,
    since they may hold integers of any size. `row`: JSON of the columns that users' own graders asked for.
    """

    model_config = _STRICT

    id: str
    problem: str
    answers: list[str] = []
    tests: JsonText | None = None
    solution: str | None = None
    kind: Kind = "math"
    level: int | None = None
    domain: str | None = None
    source: str | None = None
    row: JsonText | None = None
    sub_answers: list[str] | None = None  # on the way to the answer, in order

    @model_validator(mode="after")
    def _has_an_answer(self) -> Self:
        if self.kind == "code":
            if not self.tests:
                raise ValueError(f"problem {self.id!r} is a program without tests; give it `tests`")
        elif (not self.answers and self.kind in KINDS) or any(not answer.strip() for answer in self.answers):
            raise ValueError(f"problem {self.id!r} has no answer; give every problem a non-empty `answer`")
        return self

    def grading(self) -> dict[str, Any]:
        """What a grader is told of it."""
        return grading_of(self.kind, self.answers, self.tests, self.row)


class Version(BaseModel):
    """A policy's version: learner start (`fence`, grows at every start), and how often its weights were trained: steps
    and supervised updates together.

    Written `fence.step`. The fence orders lineages: whoever holds an older fence is ignored.
    """

    model_config = _STRICT

    fence: int
    step: int

    def __str__(self) -> str:
        return f"{self.fence}.{self.step}"

    @classmethod
    def parse(cls, text: str) -> Self:
        fence, _, step = text.partition(".")
        return cls(fence=int(fence), step=int(step))

    def newer_than(self, other: Version | None) -> bool:
        return other is None or (self.fence, self.step) > (other.fence, other.step)


class Sampling(BaseModel):
    """How the samples of one group are drawn. `max_tokens` counts completion tokens; `top_p` below 1 is for evaluations
    alone, since training needs the log-probabilities of the distribution that was sampled. `stop`: the token ids that
    end a completion, beside those that the engine knows by itself."""

    model_config = _STRICT

    temperature: float = Field(ge=0)
    max_tokens: int = Field(ge=1)
    top_p: float = Field(default=1.0, gt=0, le=1)
    stop: list[int] = []

    @model_serializer(mode="wrap")
    def _without_what_it_has_not(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As a task without a row: the ledger keeps the digests of tasks."""
        fields = plain(self)
        if not self.stop:
            del fields["stop"]
        return fields


class Task(Message):
    """One group to generate: `group_size` samples of one problem under one template."""

    SCHEMA: ClassVar[str] = "chorus.task/1"

    run_id: str
    index: int  # position in the run's admission order, from 0
    epoch: int  # pass over the problems
    problem_id: str
    kind: str
    gold: list[str]
    tests: JsonText | None = None  # of kind `code`, in the golds' place
    template: str
    hint_ratio: float = 0.0
    prompt_ids: Array32 = Field(min_length=4)
    group_size: int = Field(ge=1, le=65536)
    sampling: Sampling
    min_version: int  # step that the generator's weights must have reached before it starts
    deadline_s: float = Field(gt=0)  # from lease to commit
    admitted_at: float  # unix seconds
    row: JsonText | None = None  # the columns that users' own graders asked for
    opened: str = ""  # the template's marker that the prompt has written already: it counts as the completion's
    options: list[str] = []  # of multiple choice, in order: the text of one is as good as its letter
    sub_answers: list[str] = []
    exact: bool = False  # by weights of `min_version` alone

    @model_serializer(mode="wrap")
    def _without_what_it_has_not(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A task without a row is written as tasks were before there were any: the ledger keeps their digests."""
        fields = plain(self)
        return {key: value for key, value in fields.items() if value or key not in _RARE_IN_TASKS}

    def grading(self) -> dict[str, Any]:
        """What a grader is told of it, beside a completion."""
        asked = grading_of(self.kind, self.gold, self.tests, self.row) | {"template": self.template}
        more = {"options": self.options, "sub_answers": self.sub_answers}
        return asked | {key: value for key, value in more.items() if value}


_RARE_IN_TASKS = frozenset({"row", "opened", "options", "sub_answers", "exact"})


class Shadow(BaseModel):
    """A second grader's opinion of a sample. It pays nothing."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    grader: str
    verdict: str
    accuracy: float | None = None
    reason: str | None = None


class Grade(BaseModel):
    """The verifier's facts about one sample. `accuracy` None: the verifier failed, the answer did not.

    scores: of users' own graders, and of their parts as `grader.part`; None where a grader failed. reason: of a
    failure, or of a verdict that its grader explains. sub_answers: for each of the task's, its place among the
    completion's own, from 1; 0: it is not among them.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    verdict: str
    accuracy: float | None = Field(ge=0.0, le=1.0)
    format: float | None = None
    extracted: str | None = None
    cluster: int | None = None
    ms: float = 0.0
    reason: str | None = None
    scores: dict[str, float | None] | None = None
    shadow: Shadow | None = None
    sub_answers: list[int] | None = None

    @property
    def disputed(self) -> bool | None:
        """Whether the second opinion differs on right or wrong; None without one, or where either has no verdict."""
        if self.shadow is None or self.accuracy is None or self.shadow.accuracy is None:
            return None
        return (self.verdict == "correct") != (self.shadow.verdict == "correct")

    @model_serializer(mode="wrap")
    def _without_what_it_has_not(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Most grades have none of these, and a run stores them by the million."""
        fields = plain(self)
        return {key: value for key, value in fields.items() if value is not None or key not in _RARE}


_RARE = frozenset({"reason", "scores", "shadow", "sub_answers"})


class Sample(BaseModel):
    """One completion: token ids, the engine's own log-probabilities, and the version of every token."""

    model_config = _STRICT

    token_ids: Array32  # int32 [tokens]
    logprobs: Array32  # float32 [tokens], at the sampling temperature
    versions: list[tuple[int, int, int]]  # runs of (fence, step, n_tokens), oldest first
    finish_reason: str
    grade: Grade

    @model_validator(mode="after")
    def _lengths_agree(self) -> Self:
        n = len(self.token_ids) // 4
        if len(self.logprobs) // 4 != n:
            raise ValueError(f"{n} token ids but {len(self.logprobs) // 4} log-probabilities")
        if sum(run[2] for run in self.versions) != n or any(run[2] < 1 for run in self.versions):
            raise ValueError(f"{n} token ids but versions for {sum(run[2] for run in self.versions)}")
        return self

    @property
    def n_tokens(self) -> int:
        return len(self.token_ids) // 4

    def oldest_step(self, default: int) -> int:
        return min((step for _, step, _ in self.versions), default=default)


class Timing(BaseModel):
    """A group's life in unix seconds."""

    model_config = _STRICT

    started: float
    generated: float
    graded: float


class RolloutGroup(Message):
    """A finished group: the task as it was, and its graded samples."""

    SCHEMA: ClassVar[str] = "chorus.rollout-group/1"

    task: Task
    generator_id: str
    attempt: int
    samples: list[Sample]
    timing: Timing

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if len(self.samples) != self.task.group_size:
            raise ValueError(f"{len(self.samples)} samples in a group of {self.task.group_size}")
        return self


MemberState = Literal["joining", "syncing", "ready", "quarantined", "draining"]
GONE_AFTER_S = 15.0  # without a heartbeat


class Member(Message):
    """A generator's heartbeat. `engine` counts the starts of its vLLM: a new one needs a new group. `last_seen` is by
    Redis' clock, which all hosts can ask."""

    SCHEMA: ClassVar[str] = "chorus.member/1"

    generator_id: str
    state: MemberState
    engine: int
    world_size: int
    version: VersionText | None
    in_flight: int
    generated_tokens: int
    busy_seconds: float
    uptime_seconds: float
    last_seen: float

    def alive(self, now: float) -> bool:
        return now - self.last_seen < GONE_AFTER_S


class Hold(Message):
    """These generators stay on a version, and answer the questions that are asked of it; they take nothing to train on
    meanwhile, and the others no questions."""

    SCHEMA: ClassVar[str] = "chorus.hold/1"

    version: VersionText
    generators: list[str]


class Tensor(BaseModel):
    """Name, wire dtype and full shape of one parameter, in the order in which it is sent."""

    model_config = _STRICT

    name: str
    dtype: str
    shape: list[int]


WEIGHT_CHECKS = 6  # of one sync; vLLM keeps as many places free for them


class WeightCheck(BaseModel):
    """The learner's own log-probabilities of its `token_ids` most likely next tokens after `prefix`."""

    model_config = _STRICT

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

    model_config = _STRICT

    group: str
    world_size: int = Field(ge=2)


class Delta(BaseModel):
    """Only what differs from `base` is sent: of each bucket a part of so many bytes (protocol/runtime/delta.py).
    `unit`: bytes of a value; `checksum`: CRC-32 of the whole new buckets."""

    model_config = _STRICT

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


def staleness(group: RolloutGroup, step: int) -> int:
    """Versions between the weights of the group's oldest token and those it trains, whose step is given (never below
    0)."""
    return max(0, step - min(s.oldest_step(step) for s in group.samples))


def undone(group: RolloutGroup, fence: int) -> bool:
    """Whether some token was sampled by weights of an earlier fence."""
    return any(version[0] < fence for sample in group.samples for version in sample.versions)
