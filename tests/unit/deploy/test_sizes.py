"""What a run takes of its cards, against counts made by hand: parameters from model cards, bytes from first principles.

learner, a rank   16 bytes a parameter / ranks (float32 weights, gradient, two moments)
activations       a token keeps, in each layer, 30 bytes x hidden + 8 x intermediate + 4 x key-value width; with
                  checkpointed layers only its float32 input, and one whole layer; 12 x hidden and 0.5 GiB of logits
one rank          a bfloat16 copy of the weights; several: 4 bytes of what is no layer, 10 of one layer
generator         2 bytes a parameter / tensor parallel, and 4,096 tokens of keys and values
room              0.9 of the card; a generator's 0.6 of that (generator.gpu_memory of the recipe)
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chorus.deploy.memory import GIB, Verdict, learner_bytes, verdict
from chorus.deploy.placement import place
from chorus.deploy.shapes import Model, model_of, shape_of
from chorus.deploy.sizes import planned
from chorus.protocol.config.load import load_config

FLAGSHIP = Path(__file__).parents[3] / "recipes" / "qwen2.5-math-1.5b.toml"


# As the models' cards on the hub give them.
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", 494_032_768),
        ("Qwen/Qwen2.5-Math-1.5B", 1_543_714_304),
        ("Qwen/Qwen2.5-1.5B", 1_543_714_304),
        ("Qwen/Qwen2.5-3B", 3_085_938_688),
        ("Qwen/Qwen2.5-Math-7B-Instruct", 7_615_616_512),
        ("Qwen/Qwen2.5-14B", 14_770_033_664),
        ("Qwen/Qwen2.5-32B", 32_763_876_352),
        ("Qwen/Qwen2.5-72B", 72_706_203_648),
        ("Qwen/Qwen3-0.6B-Base", 596_049_920),
        ("Qwen/Qwen3-1.7B", 1_720_574_976),
        ("Qwen/Qwen3-4B", 4_022_468_096),
        ("Qwen/Qwen3-8B", 8_190_735_360),
        ("Qwen/Qwen3-14B", 14_768_307_200),
        ("Qwen/Qwen3-32B", 32_762_123_264),
        ("meta-llama/Llama-3.2-1B-Instruct", 1_235_814_400),
        ("meta-llama/Llama-3.2-3B", 3_212_749_824),
        ("meta-llama/Llama-3.1-8B-Instruct", 8_030_261_248),
        ("meta-llama/Llama-3.3-70B-Instruct", 70_553_706_496),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", 1_777_088_000),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", 7_615_616_512),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", 8_030_261_248),
        ("smollm2", 134_515_008),
    ],
)
def test_a_published_name_has_the_parameters_of_its_card(name: str, parameters: int) -> None:
    model = model_of(name)
    assert model is not None
    assert model.count == parameters
    assert model.known == " by its published shape"


def test_a_longer_number_in_a_name_is_no_published_size() -> None:
    assert model_of("any") is None
    assert model_of("Qwen2.5-7Bx") is None


QWEN_7B = {
    "model_type": "qwen2", "num_hidden_layers": 28, "hidden_size": 3584, "intermediate_size": 18_944,
    "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152_064, "tie_word_embeddings": False,
}  # fmt: skip


def test_a_folder_that_has_its_config_alone_is_the_same_model_as_its_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN_7B))
    by_folder, by_name = model_of(str(tmp_path)), model_of("Qwen/Qwen2.5-7B")
    assert by_folder is not None
    assert by_name is not None
    assert (by_folder.count, by_folder.shape) == (by_name.count, by_name.shape)


@pytest.mark.parametrize("change", [{"num_hidden_layers": None}, {"num_experts": 8}, {"hidden_size": "wide"}])
def test_a_config_of_another_kind_has_no_shape(change: dict[str, object]) -> None:
    assert shape_of(QWEN_7B | change) is None


def test_the_hubs_config_is_asked_for_once_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    asked: list[tuple[str, float]] = []

    def get(address: str, *, timeout: float, **_: object) -> httpx.Response:
        asked.append((address, timeout))
        return httpx.Response(200, json=QWEN_7B, request=httpx.Request("GET", address))

    monkeypatch.setattr(httpx, "get", get)
    found = model_of("me/mine-7B")
    assert found is not None
    assert (found.count, found.known) == (7_615_616_512, " by the hub's config.json")
    [(address, timeout)] = asked
    assert address.endswith("/me/mine-7B/resolve/main/config.json")
    assert timeout <= 3

    def gone(*_: object, **__: object) -> httpx.Response:
        raise httpx.ConnectError("no network")

    monkeypatch.setattr(httpx, "get", gone)
    assert model_of("me/mine-7B") == Model(7e9, " by its name", None)


# -- twelve machines ------------------------------------------------------------------------------------------------

BUDGET, CHECKPOINTED = "learner.token_budget={}", "learner.gradient_checkpointing=true"
# Model, cards, GiB; what `--set` makes it fit, or how many are needed; then GiB of the learner's rank that fits: state,
# activations or (o) the optimizer's temporaries where they are more, copies or gathered weights; and a generator's GPU.
TWELVE = [
    # 1.5B: 1,543,714,304 parameters, of which 46.8 M in a layer and 233.4 M in none; 23.0 GiB of state on one rank.
    ("Math-1.5B", 1, 24, ("placement.learner_ranks=2", CHECKPOINTED), 3, 11.50 + 5.22 + 1.31, 2.98),
    ("Math-1.5B", 4, 24, ("placement.learner_ranks=2", CHECKPOINTED), None, 11.50 + 5.22 + 1.31, 2.98),
    ("Math-1.5B", 8, 24, (CHECKPOINTED,), None, 11.50 + 5.22 + 1.31, 2.98),
    ("Math-1.5B", 1, 80, ("generator.gpu_memory=0.4", BUDGET.format(4096)), None, 23.00 + 13.26 + 2.88, 2.98),
    ("Math-1.5B", 2, 80, (BUDGET.format(8192),), None, 23.00 + 26.02 + 2.88, 2.98),
    ("Math-1.5B", 8, 80, (), None, 11.50 + 51.53 + 1.31, 2.98),
    ("Math-1.5B", 1, 141, (BUDGET.format(4096),), None, 23.00 + 13.26 + 2.88, 2.98),
    # 7B: 7,615,616,512, 113.5 GiB of state; 5.88 + 6.23 GiB are less than the optimizer's 14.18 on each of two ranks.
    ("Math-7B", 2, 80, ("placement.learner_ranks=2", CHECKPOINTED, BUDGET.format(8192)), 3, 56.74 + 14.18, 14.40),
    ("Math-7B", 8, 80, (CHECKPOINTED, BUDGET.format(8192)), None, 56.74 + 14.18, 14.40),
    # 32B: 32,763,876,352, 488.2 GiB; 61.0 GiB of weights are more than 43.2, half of them and keys and values are not.
    ("32B", 8, 80, (None, CHECKPOINTED, BUDGET.format(4096)), 11, 54.25 + 7.18 + 10.34, 30.51 + 0.50),
    ("32B", 8, 141, ("placement.learner_ranks=6", CHECKPOINTED), None, 81.37 + 27.22 + 10.34, 61.03 + 1.00),
    # 72B: 72,706,203,648, 1,083.4 GiB.
    ("72B", 8, 141, (None, CHECKPOINTED, BUDGET.format(4096)), 14, 90.28 + 12.73 + 17.46, 67.71 + 0.63),
]


@pytest.mark.parametrize(("name", "cards", "gib", "changes", "needed", "learner", "generator"), TWELVE)
def test_twelve_machines_get_the_verdict_that_a_pencil_gives(
    name: str,
    cards: int,
    gib: float,
    changes: tuple[str | None, ...],
    needed: int | None,
    learner: float,
    generator: float,
) -> None:
    found = judged(name, cards, gib)
    assert found.cards == needed
    spelt = [change for change in found.changes if not change.startswith("placement.learner_gpus")]
    assert [c for c in spelt if not c.startswith("placement.generator_gpus")] == [c for c in changes if c]
    assert found.needs.learner.bytes / GIB == pytest.approx(learner, abs=0.03)
    assert found.needs.generator.bytes / GIB == pytest.approx(generator, abs=0.01)
    assert found.needs.fit
    assert (found.as_is is None) == (not changes)


def judged(name: str, cards: int, gib: float, *overrides: str) -> Verdict:
    config = load_config(FLAGSHIP, [f"model.path=Qwen/Qwen2.5-{name}", *overrides], {})
    model = model_of(config.model.path)
    assert model is not None
    return verdict(config, model, place(config, [0, 1], list(range(cards))), gib)


def test_the_changes_that_it_names_are_a_run_that_fits() -> None:
    assert judged("Math-7B", 8, 80, CHECKPOINTED, BUDGET.format(8192)).changes == ()
    assert judged("Math-7B", 8, 80, CHECKPOINTED, BUDGET.format(8192)).as_is is None
    spelt = judged("32B", 8, 141, "generator.gpu_memory=0.4").changes
    assert spelt[0] == "placement.learner_gpus=[0,1,2,3,4,5]"  # 62 GiB of weights into 50.8: two GPUs hold them
    assert spelt[1] == "placement.generator_gpus=[[6,7]]"
    assert judged("32B", 8, 141, "generator.gpu_memory=0.4", *spelt).as_is is None


def test_a_generator_without_room_for_its_weights_is_told_apart_from_the_learner() -> None:
    found = judged("32B", 8, 80, "placement.learner_ranks=7")
    assert found.as_is is not None
    assert found.as_is.generator.bytes / GIB == pytest.approx(61.03 + 1.00, abs=0.01)
    assert found.as_is.generator.room / GIB == pytest.approx(0.9 * 0.6 * 80)
    assert found.cards == 11


def test_a_reference_policy_takes_its_four_bytes_a_parameter() -> None:
    without, with_one = judged("Math-1.5B", 8, 80), judged("Math-1.5B", 8, 80, "objective.kl_coefficient=0.001")
    # 2.88 GiB on each of two ranks, and in bfloat16 what is gathered of it: 0.43 + 2 x 0.09 GiB.
    more = with_one.needs.learner.bytes - without.needs.learner.bytes
    assert more / GIB == pytest.approx(2.88 + 0.43 + 0.17, abs=0.02)


def test_a_sequence_longer_than_the_budget_is_a_micro_batch_by_itself() -> None:
    budget = judged("Math-1.5B", 8, 80, BUDGET.format(100)).needs.learner.bytes
    assert budget == judged("Math-1.5B", 8, 80, BUDGET.format(4096)).needs.learner.bytes


def test_the_second_optimizer_of_relift_is_counted_in_memory_and_on_the_disk() -> None:
    plain = load_config(FLAGSHIP, ["learner.keep_exports=newest"], environment={})
    with_relift = load_config(FLAGSHIP, ["learner.keep_exports=newest", "relift.enabled=true"], environment={})
    model, parameters = plain.model.path, 1_543_714_304
    for ranks in (1, 4):
        ours, without = (learner_bytes(config, model, ranks) for config in (with_relift, plain))
        assert ours is not None
        assert without is not None
        assert ours - without == 8 * parameters / ranks
    checkpoints = planned(with_relift).checkpoints / planned(plain).checkpoints
    assert checkpoints == 24 / 16, "two more moments beside weights, moments and export"
