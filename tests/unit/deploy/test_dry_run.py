"""What a configuration implies is told from the recipe alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from chorus.deploy.dry_run import describe, does_not_fit
from chorus.deploy.hours import Speed, told_time
from chorus.deploy.memory import activation_bytes
from chorus.deploy.placement import place
from chorus.deploy.shapes import Model, shape_of
from chorus.deploy.sizes import planned
from chorus.protocol.config.run import RunConfig

Configure = Callable[..., RunConfig]


def test_it_starts_with_the_resolved_configuration(configure: Configure) -> None:
    config = configure()
    text = describe(config, place(config, [0, 1], []))
    resolved, end = json.JSONDecoder().raw_decode(text)
    assert resolved == config.model_dump(mode="json")
    assert "placement   learner on core 1, generators on core 0" in text[end:]


def test_it_counts_steps_tokens_and_bytes(configure: Configure) -> None:
    config = configure(
        run={"steps": 10},
        staleness={"target": 1},
        learner={"groups_per_step": 4, "updates_per_step": 2, "checkpoint_every": 5},
        sampling={"group_size": 8, "max_tokens": 100},
        problems={"train": ["any"], "max_prompt_tokens": 28},
    )
    text = describe(config, place(config, [0, 1], []))
    assert "10, of 4 groups x 8 = 32 samples; 20 optimizer updates" in text
    assert "at most 32,000 generated; at most 128 a sequence" in text  # 10 x 32 x 100; 28 + 100
    assert "at most 8 groups outstanding" in text
    # 8 groups outstanding and 5 x 4 until the next checkpoint, x (8 samples x 100 tokens x 8 bytes + 28 x 4 bytes)
    assert "at most 178.1 KiB" in text


def test_it_tells_how_the_learning_rate_goes(configure: Configure) -> None:
    falls = {"lr": 2e-6, "lr_schedule": "cosine", "lr_floor": 1e-7, "warmup_steps": 5}
    for learner, said in (
        ({}, "1e-06, constant"),
        (falls, "2e-06, reached after 5 steps, then cosine to 1e-07 at step 60"),
    ):
        config = configure(learner=learner, run={"steps": 60})
        assert f"\nrate        {said}\n" in describe(config, place(config, [0, 1], []))


def test_it_works_before_there_is_a_model(configure: Configure) -> None:
    config = configure(model={"path": "starter"})
    assert "the model 'starter' is not here yet" in describe(config, place(config, [0, 1], []))


def test_it_counts_the_parameters_of_a_model_that_is_there(configure: Configure, tmp_path: Path) -> None:
    tensors = {"a": np.zeros((1000, 500), np.float32), "b": np.zeros(500_000, np.float32)}
    save_file(tensors, tmp_path / "model.safetensors")
    config = configure(model={"path": str(tmp_path), "dtype": "float32"})
    text = describe(config, place(config, [0, 1], []))
    # 1 M parameters: 16 MB for weights, gradient and two moments in float32; 4 MB of weights.
    assert "1.0 M parameters: learner 15.3 MiB a rank and an unknown amount of activations" in text
    assert "weights 3.8 MiB a generator" in text


def test_the_weights_of_every_checkpoint_are_foreseen_on_the_disk(configure: Configure) -> None:
    sections = {"model": {"path": "Qwen/Qwen2.5-Math-1.5B"}, "run": {"steps": 3960}}
    learner = {"checkpoint_every": 20, "keep_checkpoints": 3}
    usual = planned(configure(**sections, learner=learner))
    all_of_them = planned(configure(**sections, learner=learner | {"keep_exports": "all"}))
    # 198 checkpoints, of which 4 are whole (one is written before one goes): 194 x 1,543,714,304 parameters x 2 bytes.
    assert (usual.exports, all_of_them.exports) == (0, 194 * 1_543_714_304 * 2)
    assert all_of_them.checkpoints == usual.checkpoints == 4 * 1_543_714_304 * 16
    validated = configure(
        **sections,
        learner=learner | {"keep_exports": "all"},
        evaluation={"every": 20},
        problems={"train": ["any"], "heldout": ["any"]},
    )
    # With the selected one five are whole: 115 GiB; 193 exports of 2.9 GiB; 3960 x 32 x 8 x 1024 tokens x 10 bytes.
    told = describe(validated, place(validated, [0, 1], []))
    assert "115.0 GiB of checkpoints at a time, 5 of them: with the one being written and the selected one; " in told
    assert "555.0 GiB of exports of all the others, 9.7 GiB of rollouts" in told


def test_it_tells_what_a_stage_has_of_its_own_and_counts_with_the_largest_groups(configure: Configure) -> None:
    own = {"group_size": 16, "temperature": 0.6, "lr": 5e-6, "entropy_coefficient": 0.0, "overlong_filter": True}
    stages = [{"name": "one", "steps": 3}, {"name": "two", "drop_above": 0.9, "reset_optimizer": True, **own}]
    config = configure(curriculum={"stages": stages}, learner={"groups_per_step": 4})
    text = describe(config, place(config, [0, 1], []))
    told = "after each pass without what is solved above 0.9; groups of 16; temperature 0.6; lr 5e-06; entropy "
    told += "coefficient 0; cut-off samples out of the loss; a fresh optimizer; until the end\n"
    assert f"curriculum  two: no hint; {told}" in text
    assert "of 4 groups x 16 = 64 samples" in text


def test_it_tells_a_curriculum_stage_by_stage(configure: Configure) -> None:
    stages = [
        {"name": "half", "hint_ratio": 0.5, "steps": 40, "entropy_fall": {"share": 0.25}},
        {"name": "blend", "domains": {"general": 2, "math": 1}, "max_tokens": 8, "levels": [3, 4], "plateau": {}},
        {"name": "online", "hint_ratio": "online"},
    ]
    config = configure(curriculum={"stages": stages})
    text = describe(config, place(config, [0, 1], []))
    assert "curriculum  half: hint 0.5; until 40 steps or a fall of entropy by 25%\n" in text
    blend = "no hint; levels 3, 4; general 67%, math 33%, exactly; at most 8 tokens; until a plateau of accuracy"
    assert f"curriculum  blend: {blend}\n" in text
    assert "curriculum  online: hint online; until the end\n" in text
    assert "curriculum  " not in describe(configure(), place(config, [0, 1], []))


def test_it_tells_the_time_for_a_given_rate(configure: Configure) -> None:
    config = configure(
        run={"steps": 3960},
        learner={"groups_per_step": 128, "updates_per_step": 4},
        sampling={"group_size": 8, "max_tokens": 3072},
    )
    # 3960 x 1024 x 3072 tokens / 20,000 / 3600; and for nobody's rate, several.
    assert "at most 173.0 h at 20,000 tokens/s" in describe(config, place(config, [0, 1], []), Speed(whole=20_000))
    assert "at most 3,460.3 h at 1,000 tokens/s, 346.0 h at 10,000" in describe(config, place(config, [0, 1], []))


def test_a_hub_models_size_is_taken_from_its_name_and_shared_among_the_ranks(configure: Configure) -> None:
    config = configure(model={"path": "Qwen/Qwen2.5-Math-1.5B", "dtype": "bfloat16"})
    text = describe(config, place(config, list(range(16)), list(range(8))))
    # 1,543.7e6 x 16 bytes / 2 ranks; 51.5 GiB of activations and 1.3 of gathered weights; in GiB.
    assert "1,543.7 M parameters by its published shape: learner 11.5 GiB a rank and about 52.8 GiB of" in text
    assert "placement   learner on GPU 0,1, generators on GPU 2 | 3 | 4 | 5 | 6 | 7" in text
    assert (
        "verdict     fits 8 x 80 GiB: learner 64.3 of 72.0 GiB, generator 3.0 of 61.2 GiB (a tenth left free)" in text
    )


def test_without_gpus_it_says_how_many_a_large_model_needs(configure: Configure) -> None:
    config = configure(model={"path": "Qwen/Qwen2.5-7B", "dtype": "bfloat16"})
    # 113.5 GiB of state: two ranks of 56.7, and 14.2 of the optimizer's temporaries each; see test_sizes.py.
    told = describe(config, place(config, [0, 1], []))
    assert "verdict     can't fit here, where there is no GPU: needs 3 x 80 GiB (2 for the learner, 1 for a gen" in told
    small = configure(model={"path": "starter", "dtype": "float32"})
    assert "verdict " not in describe(small, place(small, [0, 1], []))


def test_a_size_that_only_a_name_tells_gives_no_verdict(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    config = configure(model={"path": "org/model-7B-instruct", "dtype": "bfloat16"})
    told = describe(config, place(config, [0, 1], list(range(4))))
    assert "7,000.0 M parameters by its name: learner 104.3 GiB a rank and an unknown amount" in told
    assert "verdict     unknown: no config.json tells the model's shape" in told


def test_it_tells_how_templates_are_drawn_and_when_that_changes(configure: Configure) -> None:
    templates = {
        "names": ["qwen-math", "abel"],
        "weights": {"abel": 3},
        "schedule": [{"from_step": 9, "names": ["abel"]}],
        "adaptive": {},
    }
    text = describe(c := configure(templates=templates), place(c, [0, 1], []))
    assert (
        "templates   abel 75%, qwen-math 25%; from step 9: abel; adapted by up to 4x to the reward's variance" in text
    )


def test_it_explains_the_objective_with_its_sources(configure: Configure) -> None:
    config = configure(objective={"name": "gspo", "clip_high": 5e-4})
    text = describe(config, place(config, [0, 1], []))
    assert "objective   gspo (arXiv 2507.18071)" in text
    assert "clip_low     0.0003               arXiv 2507.18071" in text
    assert "clip_high    0.0005               set in the recipe" in text


def test_resets_of_the_reference_and_gated_parts_of_the_reward_are_told(configure: Configure) -> None:
    def told(config: RunConfig) -> str:
        return describe(config, place(config, [0, 1], []))

    objective = {"name": "prorl_v2"}
    text = told(configure(objective=objective, reference={"every": 9, "kl_spike": 3, "reset_optimizer": False}))
    said = "reset every 9 steps, or at a KL of 3 times its median over 20 steps, not within 1 steps"
    assert f"reference   {said}; the optimizer goes on" in text
    assert "reference   " not in told(configure(objective=objective))
    text = told(configure(reward={"short": {"tolerance_tokens": 7}}))
    assert "reward      short: weight 1.0, only_right True, band True, tolerance_tokens 7, gate True" in text


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_estimate_of_activations_is_what_autograd_keeps(
    configure: Configure, tmp_path: Path, checkpointing: bool
) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from chorus.learner.training.policy import load_policy

    shape = LlamaConfig(
        vocab_size=64, hidden_size=96, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128,
    )  # fmt: skip
    LlamaForCausalLM(shape).save_pretrained(tmp_path)
    config = configure(
        model={"path": str(tmp_path), "dtype": "float32"},
        learner={"token_budget": 256, "gradient_checkpointing": checkpointing},
        problems={"train": ["any"], "max_prompt_tokens": 64},
        sampling={"max_tokens": 64},
    )
    policy = load_policy(config, torch.device("cpu"))
    weights = {p.untyped_storage().data_ptr() for p in policy.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor  # held, so that its address stays its own
        return tensor

    ids = torch.randint(0, 64, (4, 64))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        policy(ids, torch.arange(255), ids.flatten()[1:])
    measured = sum(t.untyped_storage().nbytes() for t in kept.values())
    head = 256 * 64 * 16
    layer = 0 if not checkpointing else 256 * (32 * 96 + 16 * 256 + 8 * 48)  # made again one at a time, in backward
    known = shape_of(shape.to_dict())
    assert known is not None
    estimate = activation_bytes(config, known, 0)
    assert estimate - head - layer == pytest.approx(measured, rel=0.25)


def test_a_learner_that_does_not_fit_into_its_card_is_told_so(configure: Configure) -> None:
    config = configure(model={"path": "Qwen/Qwen2.5-Math-1.5B", "dtype": "bfloat16"})
    shared = describe(config, place(config, list(range(16)), [0]))
    fits = "verdict     fits 1 x 80 GiB with --set learner.token_budget="
    assert fits in shared
    assert "as it is it would take learner 77.4 of 43.2 GiB, generator 3.0 of 28.8 GiB" in shared
    assert fits not in describe(config, place(config, list(range(16)), [0]), card_gib=192)


def test_more_cards_are_asked_for_where_no_setting_helps(configure: Configure) -> None:
    config = configure(model={"path": "Qwen/Qwen2.5-72B", "dtype": "bfloat16"})
    # 98.5 GiB of state on each of 11 ranks and 24.6 of the optimizer's; 67.7 GiB of weights on each of two.
    told = describe(config, place(config, list(range(16)), list(range(8))), card_gib=141)
    assert (
        "verdict     can't fit here (8 x 141 GiB), needs 13 x 141 GiB (11 for the learner, 2 for a generator)" in told
    )


def test_a_run_that_starts_on_cards_too_small_for_it_is_told_so(configure: Configure) -> None:
    config = configure(model={"path": "Qwen/Qwen2.5-Math-1.5B"})
    one = place(config, list(range(16)), [0])
    told = does_not_fit(config, one, 79.6)
    assert told is not None
    assert told.startswith(
        "this run is not foreseen to fit 1 x 79.6 GiB (learner 77.4 of 43.0 GiB, generator 3.0 of 28.7"
    )
    assert ": it fits with --set learner.token_budget=" in told
    assert "needs 3 x 24 GiB" in str(does_not_fit(config, one, 24))
    assert does_not_fit(config, one, 192) is None
    assert does_not_fit(config, one, None) is None
    assert does_not_fit(configure(model={"path": "starter"}), one, 24) is None


def test_cards_that_stay_idle_are_named(configure: Configure) -> None:
    config = configure(generator={"replicas": 1})
    assert "; GPU 3,4,5,6,7 stays idle" in describe(config, place(config, [0, 1], list(range(8))))
    usual = configure()
    assert "idle" not in describe(usual, place(usual, [0, 1], list(range(8))))


def test_a_machine_with_gpus_gets_as_many_graders_as_it_can_feed(configure: Configure) -> None:
    def graders(cores: int, gpus: int, **reward: object) -> str:
        config = configure(reward=reward)
        text = describe(config, place(config, list(range(cores)), list(range(gpus))))
        return next(line.split()[1] for line in text.splitlines() if line.startswith("graders"))

    assert [graders(192, 8), graders(64, 8), graders(4, 1), graders(64, 0)] == ["16", "8", "1", "1"]
    assert graders(192, 8, workers=3) == "3"


def test_with_a_mean_length_it_tells_what_is_expected(configure: Configure) -> None:
    config = configure(
        model={"path": "Qwen/Qwen2.5-Math-1.5B"},
        run={"steps": 3960},
        learner={"groups_per_step": 128, "updates_per_step": 4},
        sampling={"group_size": 8, "max_tokens": 3072},
        objective={"name": "prompt_augmentation", "proximal": "recompute"},
        staleness={"target": 0, "max": 0},
    )
    machine = place(config, [0, 1], list(range(8)))
    text = describe(config, machine, Speed(mean_tokens=800))
    # 3960 x 1024 x (800 + 200) tokens / (2 x 22,264 / (1 + 1/3)) / 3600 = 33.7 h; x 800 / (6 x 10,000) / 3600 = 15.0 h.
    assert "time        expected 48.7 h, with completions of 800 tokens on average, one after the other;" in text
    assert "learner 33.7 h: 2 x 16,698 tokens/s, prompts of 200 included (as measured on an H100" in text
    assert "generators 15.0 h: 6 x 10,000 tokens/s (assumed, not measured" in text
    small = told_time(config, Model(500e6, "as given", None), machine, Speed(mean_tokens=800))
    assert "6 x 10,400 tokens/s (what fills a core" in small[-1], "a small model is not what holds a generator up"
    told = describe(config, machine, Speed(mean_tokens=800, learner=30_000, generator=20_000))
    assert "expected 26.3 h" in told  # 18.8 + 7.5
    assert "(as given)" in told
    beside = config.model_copy(update={"staleness": config.staleness.model_copy(update={"target": 1, "max": 4})})
    assert "expected 33.7 h, with completions of 800 tokens on average, side by side" in describe(
        beside, machine, Speed(mean_tokens=800)
    )
    # Of the whole run's rate, whatever the machine: 3960 x 1024 x 800 / 20,000 / 3600.
    assert "expected 45.1 h at 20,000 tokens/s, with completions of 800" in describe(
        config, place(config, [0, 1], []), Speed(mean_tokens=800, whole=20_000)
    )


@pytest.mark.parametrize(("target", "most", "told"), [(1, 1, 2), (3, 3, 4), (1, 2, None), (0, 0, None)])
def test_a_bound_on_staleness_below_what_groups_on_time_can_have_is_told(
    configure: Configure, target: int, most: int, told: int | None
) -> None:
    config = configure(staleness={"target": target, "max": most})
    text = describe(config, place(config, [0, 1], []))
    assert f"aimed at {target}, bounded by {most}" in text
    assert ("some of those would be dropped" in text) is (told is not None)
    if told is not None:
        assert f"can be {told} steps old" in text
        assert f"set staleness.max to {told} or more" in text


def test_the_bound_of_redis_counts_the_columns_of_the_users_own_graders(configure: Configure) -> None:
    def bound(*columns: str) -> str:
        config = configure(
            staleness={"target": 1},
            learner={"groups_per_step": 4, "updates_per_step": 1, "checkpoint_every": 5},
            sampling={"group_size": 8, "max_tokens": 100},
            problems={"train": ["any"], "max_prompt_tokens": 28},
            reward={"graders": [{"name": "own", "function": "own.py:f", "columns": list(columns)}]},
        )
        [line] = [x for x in describe(config, place(config, [0, 1], [])).splitlines() if x.startswith("redis")]
        return line

    assert "at most 178.1 KiB" in bound()
    # 28 groups are kept (see above), 8 tasks wait for theirs, each with a row of at most 64 KiB: 2,304 KiB more.
    assert "at most 2.4 MiB" in bound("limit")
