"""Requests and responses of the HTTP interface."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from chorus.protocol.graders import KINDS
from chorus.protocol.rewards import RewardSpec
from chorus.protocol.rewards.code_tests import CodeTests, Text
from chorus.reward_server.graders.task import Block, Verdict

KindName = Annotated[
    str,
    Field(
        max_length=200,
        description="math, choice, text, code or reasoning_gym, or a grader of this server's recipe (GET /v1/graders)",
        json_schema_extra={"examples": list(KINDS)},
    ),
]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class GradeRequest(_Request):
    """One completion (the model's text after the prompt, prefill excluded) and the gold answer or answers.

    Kind `code` has tests instead of a gold: script tests or function tests, in any mixture. Kind `reasoning_gym` has
    the name of an item as its first gold. A kind that is a user's own grader needs a gold only if that grader does.
    """

    completion: Text
    gold: Text | Annotated[list[Text], Field(min_length=1, max_length=64)] | None = Field(
        default=None,
        description="The answer or answers. Any of several may match; in mode `paper` the last alone counts.",
    )
    kind: KindName = "math"
    template: Text | None = None
    mode: Literal["train", "paper", "strict"] = "train"
    options: list[Text] | None = Field(default=None, max_length=26)
    tests: CodeTests | None = None
    scoring: Literal["strict", "fractional"] | None = Field(
        default=None,
        description="kind code: all tests or nothing, or the share that passed; null: as this server is set",
    )
    block: Block | None = Field(
        default=None, description="kind code: which block of the completion is the program; null: as this server is set"
    )
    row: dict[str, Any] | None = Field(
        default=None, description="columns of the problem, for users' own graders; 64 kB at most"
    )
    terms: list[Text] | None = Field(
        default=None, max_length=32, description="users' own graders to ask as well; null: those that this server pays"
    )
    sub_answers: list[Text] | None = Field(
        default=None, max_length=64, description="answers on the way, which a template of interleaved blocks asks for"
    )


class BatchRequest(_Request):
    items: list[GradeRequest]


class ShadowResponse(BaseModel):
    grader: str
    verdict: Verdict
    accuracy: float | None
    reason: str | None = None


class GradeResponse(BaseModel):
    """`timeout` and `error` are the verifier's failures: accuracy and reward are null, never 0."""

    verdict: Verdict
    accuracy: float | None
    format: float | None
    reward: float | None
    extracted: str | None
    verifier: str
    ms: float
    reason: str | None = None  # of a timeout, an error, or a program that failed a test
    refused: bool = Field(
        default=False, description="an item of a batch that can't be graded here: asking again would only repeat it"
    )

    scores: dict[str, float | None] | None = Field(
        default=None,
        description="of users' own graders, and of their parts as grader.part; null where one failed. Only where one "
        "was asked",
    )
    shadow: ShadowResponse | None = Field(default=None, description="a second grader's opinion; it pays nothing")
    sub_answers: list[int] | None = Field(
        default=None, description="the place of each of the request's among the completion's own, from 1; 0: not there"
    )


class BatchResponse(BaseModel):
    results: list[GradeResponse]


class ExtractionResponse(BaseModel):
    """Where the answer stood. Offsets count code points of the completion; ends are exclusive."""

    rung: str = Field(description="which rung of the ladder found the answer; none: no rung did")
    start: int | None = Field(description="where the answer begins; null when it does not stand there literally")
    end: int | None
    read_start: int = Field(default=0, description="where the text begins that the cuts left for the ladder")
    read_end: int | None = Field(default=None, description="null: the end of the completion (kind code cuts nothing)")
    cuts: list[str] = Field(description="what was cut away before the ladder, in words, in order")


class ExplainResponse(GradeResponse):
    """The grade and the way to it."""

    extraction: ExtractionResponse | None = Field(description="null when the grader failed")
    normalised: str | None
    comparisons: list[dict[str, Any]]
    markers: dict[str, int] | None  # how often each marker of the template occurs; exactly once pays
    parts: dict[str, float | None]  # of the reward
    composition: RewardSpec = Field(description="how this server makes the reward of its parts")


class ClusterRequest(_Request):
    completions: list[Text]
    kind: KindName = "math"
    mode: Literal["train", "paper", "strict"] = "train"


class ClusterResponse(BaseModel):
    clusters: list[int]
    extracted: list[str | None]
    method: Literal["equivalence", "text"]  # text: comparing them took longer than a grade may


class RenderRequest(_Request):
    template: Text
    problem: Text


class RenderResponse(BaseModel):
    prompt: str
    prefill: str


class TemplatesResponse(BaseModel):
    templates: list[dict[str, Any]]


class GraderResponse(BaseModel):
    name: str
    columns: list[str]
    interface: str
    weight: float | None = Field(description="as a term of this server's reward; null: it is none")


class GradersResponse(BaseModel):
    kinds: list[str]
    graders: list[GraderResponse] = Field(description="users' own, each of which may be a kind or a term")
    shadow: str | None
