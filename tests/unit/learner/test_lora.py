"""Adapters: they alone train and travel, what a generator put in place is proved, a checkpoint holds them twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from receiving import ReceivingEngine
from tinymodel import save_tiny_model
from torch.distributed.checkpoint import FileSystemReader
from transformers import AutoModelForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from chorus.generator.adapter import Base, Delivery, together
from chorus.generator.weight_sync import WeightSync
from chorus.learner.training.batch import TrainingSequence
from chorus.learner.training.distributed import DistributedTrainer, Snapshot
from chorus.learner.training.lora import add_adapters
from chorus.protocol.config.lora import LoraSection
from chorus.protocol.config.run import RunConfig
from chorus.protocol.messages import SyncOffer, Version
from chorus.protocol.metrics.processes import GeneratorMetrics
from chorus.protocol.run_folder.checkpoints import Manifest
from chorus.protocol.runtime.adapters import DOWN, UP, fault
from chorus.protocol.runtime.exits import CannotGoOn

CPU = torch.device("cpu")
ALL = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
PREFIXES = [[5, 6, 7, 8], [9, 5, 6]]


def crew_of(
    model: Path, start_from: Path | None = None, targets: Any = "all-linear", lr: float = 1e-6, **objective: Any
) -> DistributedTrainer:
    config = RunConfig.model_validate(
        {
            "model": {"path": str(model), "dtype": "float32", "lora": {"rank": 4, "alpha": 8, "targets": targets}},
            "problems": {"train": ["any"]},
            "templates": {"names": ["qwen-math"]},
            "objective": objective,
            "learner": {"lr": lr, "weight_decay": 0.0},
        }
    )
    return DistributedTrainer(config, CPU, start_from)


def minibatches() -> list[list[TrainingSequence]]:
    rng = np.random.default_rng(3)
    rows = [rng.integers(5, 60, 9).astype(np.int32) for _ in range(4)]
    behaviour = np.full(5, -4.0, dtype=np.float32)
    return [
        [TrainingSequence(row[:4], row[4:], behaviour, float(a)) for row, a in zip(rows, (1, -1, 2, -1), strict=True)]
    ]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "model", hidden_size=64)


def test_only_adapters_train_and_only_they_travel(model: Path) -> None:
    crew = crew_of(model, lr=1e-2)
    before = {name: p.clone() for name, p in crew.trainer.policy.named_parameters()}
    crew.step(minibatches())
    moved = {name for name, p in crew.trainer.policy.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if ".lora_B." in name}, "A moves once B is no longer 0"
    assert len(moved) == len(ALL)
    snapshot = crew.snapshot(Version(fence=1, step=1), PREFIXES)
    names = [slot.tensor.name for slot in snapshot.plan.slots]
    assert names[:2] == ["model.layers.0.self_attn.q_proj.lora_A", "model.layers.0.self_attn.q_proj.lora_B"]
    assert len(names) == 2 * len(ALL)
    assert {slot.tensor.dtype for slot in snapshot.plan.slots} == {"float32"}


# -- the way to a generator ------------------------------------------------------------------------


class Direct(ReceivingEngine):
    """What a learner sends comes without a process group; `tamper` changes what is merged of it."""

    def __init__(self, model: Path, tamper: Callable[[Delivery], Delivery] = lambda delivery: delivery) -> None:
        super().__init__([[5]], model=str(model))
        self.sent: dict[str, torch.Tensor] = {}
        self._tamper = tamper

    async def join_group(self, offer: SyncOffer) -> None:
        pass

    def _receive(self, offer: SyncOffer) -> dict[str, torch.Tensor]:
        return self.sent

    def _merged(self, base: Base, delivery: Delivery) -> dict[str, torch.Tensor]:
        whole = super()._merged(base, self._tamper(delivery))
        [seen] = self._in_place
        self._in_place = [seen.model_copy(update={"checksum": delivery.seen({}).checksum})]  # of what came, as it came
        return whole


def tensors_of(snapshot: Snapshot) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for views in snapshot.plan.views(snapshot.buckets) for name, tensor in views}


def offer_of(snapshot: Snapshot) -> SyncOffer:
    return SyncOffer(
        version=str(snapshot.version), group="g", backend="gloo", store_host="127.0.0.1", store_port=1, world_size=2,
        timeout_s=5.0, bucket_bytes=2**20, tensors=[slot.tensor for slot in snapshot.plan.slots], temperature=1.0,
        tolerance=1e-3, checks=snapshot.checks, adapter=snapshot.adapter,
    )  # fmt: skip


@pytest.fixture(scope="module")
def steps(model: Path) -> list[Snapshot]:
    """The adapter as it begins, and after each of two steps at a rate of 1e-6."""
    crew = crew_of(model)
    found = []
    for step in range(3):
        found.append(crew.snapshot(Version(fence=1, step=step), PREFIXES))
        crew.step(minibatches())
    return found


async def test_what_a_generator_merges_is_what_the_learner_computes(model: Path) -> None:
    crew = crew_of(model, lr=1e-2)
    for _ in range(3):
        crew.step(minibatches())
    snapshot = crew.snapshot(Version(fence=1, step=3), PREFIXES)
    engine = Direct(model)
    engine.sent = tensors_of(snapshot)
    report = await WeightSync(engine, "g", False, GeneratorMetrics()).take(offer_of(snapshot))
    assert report.ok, report.detail
    assert report.gap_max < 1e-5
    assert snapshot.adapter
    assert fault(snapshot.adapter, report.adapters) == ""
    plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    moved = [snapshot.adapter.moved[f"model.layers.0.self_attn.{name}_proj.weight"].by for name in "qv"]
    assert min(moved) > 1e-2
    for name, parameter in plain.named_parameters():
        if name in snapshot.adapter.moved:
            assert snapshot.adapter.moved[name].of == pytest.approx(float(parameter.norm()), rel=1e-5)
            moved_by = float((engine.received[name] - parameter).norm())
            assert snapshot.adapter.moved[name].by == pytest.approx(moved_by, rel=1e-3)


async def test_each_adapter_is_merged_into_the_weights_that_no_adapter_has_touched(
    model: Path, steps: list[Snapshot]
) -> None:
    engine = Direct(model)
    sync = WeightSync(engine, "g", False, GeneratorMetrics())
    for snapshot in (
        *steps,
        Snapshot(Version(fence=1, step=3), *_rest(steps[0])),
    ):  # at last the first one once more
        engine.sent = tensors_of(snapshot)
        assert (await sync.take(offer_of(snapshot))).ok
    base = Base(model)
    for name, tensor in engine.received.items():
        assert torch.equal(tensor, base.read(name)), name


def _rest(snapshot: Snapshot) -> tuple[Any, ...]:
    return snapshot.plan, snapshot.buckets, snapshot.checks, snapshot.rounding, snapshot.adapter


def _without(layers: Callable[[str], bool]) -> Callable[[Delivery], Delivery]:
    return lambda d: Delivery(d.scaling, [(name, t) for name, t in d.sent if not layers(name)])


def _scaled(parts: dict[str, float]) -> Callable[[Delivery], Delivery]:
    def tamper(d: Delivery) -> Delivery:
        return Delivery(d.scaling, [(name, t * parts.get(name[-len(UP) :], 1.0)) for name, t in d.sent])

    return tamper


def _half_of_the_rank(d: Delivery) -> Delivery:
    return Delivery(d.scaling, [(name, t[:, ::2] if name.endswith(UP) else t[::2]) for name, t in d.sent])


LOST = {
    "all of it": (_scaled({UP: 0.0}), "moved model.layers.0.self_attn.q_proj.weight by 0, where"),
    "half of its layers": (_without(lambda name: "self_attn" in name), "moved not model.layers.0.self_attn.k_proj"),
    "one matrix in each layer": (_scaled({DOWN: 0.0}), "by 0, where the learner's moves it by"),
    "half of its rank": (_half_of_the_rank, "where the learner's moves it by"),
    "its scale": (lambda d: Delivery(1.0, d.sent), "where the learner's moves it by"),
}


@pytest.mark.parametrize("lost", LOST)
async def test_an_adapter_of_which_a_generator_loses_something_is_refused_at_the_smallest_rate(
    model: Path, steps: list[Snapshot], lost: str
) -> None:
    """Log-probabilities alone would not show it."""
    tamper, said = LOST[lost]
    engine = Direct(model, tamper)
    engine.sent = tensors_of(steps[1])
    sync = WeightSync(engine, "g", False, GeneratorMetrics())
    report = await sync.take(offer_of(steps[1]))
    assert not report.ok
    assert said in report.detail
    assert report.gap_mean < 1e-4
    assert sync.quarantined


@pytest.mark.parametrize("sent", ["the last one again", "nothing"])
async def test_an_adapter_that_is_not_the_one_of_its_version_is_refused_at_the_smallest_rate(
    model: Path, steps: list[Snapshot], sent: str
) -> None:
    engine = Direct(model)
    sync = WeightSync(engine, "g", False, GeneratorMetrics())
    engine.sent = tensors_of(steps[1])
    assert (await sync.take(offer_of(steps[1]))).ok
    engine.sent = tensors_of(steps[1 if "again" in sent else 0])
    report = await sync.take(offer_of(steps[2]))
    assert not report.ok
    assert "is another than the one sent: checksum" in report.detail
    assert report.gap_mean < 1e-4
    assert not await sync.may_commit({(1, 2)}, 0.01)


def test_an_engine_that_says_nothing_of_an_adapter_is_refused(steps: list[Snapshot]) -> None:
    assert steps[0].adapter
    assert fault(steps[0].adapter, []) == "the engine has not said which weights the adapter moved"


def test_a_layer_that_an_engine_fuses_is_loaded_with_all_that_belongs_to_it() -> None:
    layer = "model.layers.3.self_attn"
    base = [
        f"{layer}.{part}.{kind}" for part in ("q_proj", "k_proj", "v_proj", "o_proj") for kind in ("bias", "weight")
    ]
    packed = {"qkv_proj": ["q_proj", "k_proj", "v_proj"]}
    found = together([f"{layer}.v_proj.weight", f"{layer}.o_proj.weight"], base, packed)
    assert found == {f"{layer}.qkv_proj": base[:6], f"{layer}.o_proj": base[6:]}


# -- the reference, checkpoints, refusals ----------------------------------------------------------


def test_the_reference_is_the_model_without_its_adapter(model: Path) -> None:
    crew = crew_of(model, lr=1e-2, name="grpo", kl_coefficient=0.1)
    batch = [s for part in minibatches() for s in part]
    before = crew.reference(batch)
    first, second = crew.step(minibatches()), crew.step(minibatches())
    assert first.mean("reference_k3") == pytest.approx(0.0, abs=1e-9)
    assert second.mean("reference_k3") > 1e-5, "the policy moves away from it"
    whole: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    for sequence, a, b in zip(batch, before, crew.reference(batch), strict=True):
        np.testing.assert_array_equal(a, b)
        ids = torch.from_numpy(np.concatenate([sequence.prompt, sequence.completion])).long()[None]
        with torch.no_grad():
            logp = torch.log_softmax(whole(ids).logits[0, 3:-1], -1)
        np.testing.assert_allclose(
            a, logp[torch.arange(5), torch.from_numpy(sequence.completion).long()].numpy(), atol=1e-5
        )


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([[5, 6, 7, 8, 9]])).logits


def test_a_checkpoint_is_exact_and_holds_the_adapter_as_peft_has_it_and_the_merged_model(
    model: Path, tmp_path: Path
) -> None:
    from peft import PeftModel

    crew = crew_of(model, lr=1e-2)
    crew._check_next = True
    for _ in range(2):
        crew.step(minibatches())
    saved = crew.save(tmp_path, Manifest(2, 0, {})).wait()
    ours = logits(crew.trainer.policy.hf)
    plain: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    assert float((logits(plain) - ours).abs().max()) > 1e-2
    exported: Any = AutoModelForCausalLM.from_pretrained(saved / "huggingface", dtype=torch.float32)
    torch.testing.assert_close(logits(exported), ours, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        logits(PeftModel.from_pretrained(plain, str(saved / "adapter"))), ours, atol=1e-6, rtol=0
    )
    stored = FileSystemReader(saved / "state").read_metadata().state_dict_metadata
    weights = [name for name in stored if name.startswith("model.")]
    assert len(weights) == 2 * len(ALL)
    assert all(".lora_" in name for name in weights), "no weights that never change"
    crew.step(minibatches())
    resumed = crew_of(model, saved, lr=1e-2)
    resumed.step(minibatches())
    for a, b in zip(crew._sent, resumed._sent, strict=True):
        assert torch.equal(a.parameter, b.parameter)


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (["q_proj", "query"], r"model.lora.targets: query: no layer has this name; the linear layers are down_proj, "),
        (["lm_head"], r"model.lora.targets: lm_head: lm_head is no linear layer of the decoder"),
        (["mlp"], r"model.lora.targets: mlp: model.layers.0.mlp is no linear layer of the decoder"),
    ],
)
def test_a_target_that_is_none_is_refused_with_those_that_are(model: Path, targets: Iterable[str], said: str) -> None:
    with pytest.raises(CannotGoOn, match=said):
        crew_of(model, targets=[*targets])


def test_all_layers_of_a_model_of_fused_experts_are_refused(tmp_path: Path) -> None:
    shape = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "num_experts": 4}
    sizes = {"hidden_size": 32, "intermediate_size": 32, "moe_intermediate_size": 16, "head_dim": 16, "vocab_size": 60}
    experts = Qwen3MoeForCausalLM(Qwen3MoeConfig(**shape, **sizes))
    with pytest.raises(CannotGoOn, match=r"the experts of this model are fused tensors, .+ name the targets"):
        add_adapters(experts, LoraSection(rank=2), torch.float32)
    experts.save_pretrained(tmp_path)
    experts.config.name_or_path = str(tmp_path)
    add_adapters(experts, LoraSection(rank=2, targets=["q_proj"]), torch.float32)
    assert sum(p.requires_grad for p in experts.parameters()) == 2
