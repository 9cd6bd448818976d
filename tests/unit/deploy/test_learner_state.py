"""What a learner keeps, counted from shapes: by hand here, parameter by parameter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from chorus.deploy.learner_state import reference_bytes, state_of
from chorus.deploy.memory import activation_bytes, host_bytes, leaner, verdict
from chorus.deploy.placement import place
from chorus.deploy.shapes import Model, Shape, model_of
from chorus.protocol.config.run import RunConfig

Configure = Callable[..., RunConfig]
SHAPE = Shape(layers=2, hidden=256, intermediate=512, heads=4, kv_heads=2, head_dim=64, vocabulary=1000, tied=False)
ATTENTION = 256 * 256 * 2 + 256 * 128 * 2
COUNT = 2 * (ATTENTION + 3 * 256 * 512 + 2 * 256) + 2 * 1000 * 256 + 256
NORMS = 2 * 2 * 256 + 256
MATRICES = COUNT - NORMS
MODEL = Model(COUNT, "", SHAPE)


@pytest.mark.parametrize(
    ("learner", "weights", "gradients", "moments"),
    [
        ({}, 4 * COUNT, 4 * COUNT, 8 * COUNT),
        ({"optimizer": "adamw8bit"}, 4 * COUNT, 4 * COUNT, 2 * MATRICES + 8 * MATRICES / 256 + 8 * NORMS),
        ({"master": "bfloat16"}, 2 * COUNT, 2 * COUNT, 8 * COUNT),
    ],
)
def test_weights_gradients_and_moments_are_those_of_what_trains(
    configure: Configure, learner: dict[str, Any], weights: int, gradients: int, moments: float
) -> None:
    config = configure(learner=learner, objective={"kl_coefficient": 0.1})
    state = state_of(config, MODEL)
    assert (state.weights, state.gradients, state.moments) == (weights, gradients, moments)
    assert state.on_cards == weights + gradients + moments
    assert state.checkpoint == weights + moments + weights
    assert reference_bytes(config, MODEL) == weights


def test_moments_on_the_host_are_not_on_the_card(configure: Configure) -> None:
    state = state_of(configure(learner={"offload": "optimizer"}), MODEL)
    assert (state.on_cards, state.on_hosts) == (8 * COUNT, 8 * COUNT)


@pytest.mark.parametrize(
    ("targets", "trained"),
    [
        (["q_proj", "v_proj"], 2 * 8 * (256 + 256 + 256 + 128)),
        ("all-linear", 2 * 8 * (2 * 512 + 2 * (256 + 128) + 3 * (256 + 512))),
    ],
)
def test_beside_adapters_the_model_is_kept_once_in_its_own_dtype(
    configure: Configure, targets: Any, trained: int
) -> None:
    lora = {"rank": 8, "targets": targets}
    config = configure(model={"path": "any", "lora": lora}, objective={"kl_coefficient": 0.1})
    state = state_of(config, MODEL)
    assert state.weights == 2 * COUNT + 4 * trained
    assert (state.gradients, state.moments) == (4 * trained, 8 * trained)
    assert state.checkpoint == 12 * trained + 2 * COUNT
    assert reference_bytes(config, MODEL) == 0


LONG: dict[str, Any] = {
    "model": {"path": "Qwen/Qwen2.5-7B", "context": 32_768},
    "problems": {"train": ["any"], "max_prompt_tokens": 1024},
    "sampling": {"max_tokens": 31_744},
}


def test_with_activations_on_the_host_two_layers_inputs_stay_and_the_host_has_them_in_powers_of_two(
    configure: Configure,
) -> None:
    """28 layers, 3,584 wide, of 32,768 tokens in float32: 448 MiB each, for which the host gives 512."""
    model = model_of("Qwen/Qwen2.5-7B")
    assert model
    assert model.shape
    beside, away = (
        configure(**LONG, learner={"gradient_checkpointing": True, "offload": what}) for what in ("none", "activations")
    )
    less = activation_bytes(beside, model.shape, model.count, 3) - activation_bytes(away, model.shape, model.count, 3)
    assert less == (28 - 2) * 448 * 2**20
    assert host_bytes(away, model, 3) - host_bytes(beside, model, 3) == 3 * 28 * 512 * 2**20


def test_what_layers_keep_that_are_not_checkpointed_can_not_be_moved(configure: Configure) -> None:
    for what in ("activations", "both"):
        with pytest.raises(ValidationError, match=rf"offload is {what}, .+: set gradient_checkpointing to true"):
            configure(learner={"offload": what})
        learner = configure(learner={"offload": what, "gradient_checkpointing": True}).learner
        assert (learner.activations_on_host, learner.moments_on_host) == (True, what == "both")


def test_of_a_model_whose_shape_is_not_known_all_count_as_large_matrices(configure: Configure) -> None:
    state = state_of(configure(learner={"optimizer": "adamw8bit"}), Model(1e6, "", None))
    assert state.moments == pytest.approx(2e6 + 8e6 / 256)


def test_a_run_that_does_not_fit_is_told_what_would_keep_less_on_the_same_cards(configure: Configure) -> None:
    """7.6 B parameters on two cards of 80 GiB, one to learn: 72 GiB of room. With the moments on the host 8 bytes a
    parameter are 56.7 GiB, and a copy in bfloat16 14.2 more; moments of 8 bits and weights in bfloat16 are 42.8."""
    config = configure(
        model={"path": "Qwen/Qwen2.5-7B"}, learner={"gradient_checkpointing": True, "token_budget": 2048}
    )
    model, placement = model_of("Qwen/Qwen2.5-7B"), place(config, [0, 1], [0, 1])
    assert model
    assert verdict(config, model, placement, 80).cards == 3
    found = leaner(config, model, placement, 80)
    assert found
    assert found.changes == ("learner.optimizer=adamw8bit", "learner.master=bfloat16")
    assert found.needs.learner.bytes / 2**30 == pytest.approx(42.8 + 1.8, abs=0.1)
    assert leaner(config, model, place(config, [0, 1], [0]), 24) is None


def test_a_checkpoint_is_copied_to_the_host_before_it_is_written(configure: Configure) -> None:
    """12 bytes a parameter of weights and moments, beside two copies of what generators get, in bfloat16."""
    model = model_of("Qwen/Qwen2.5-7B")
    assert model
    config = configure(**LONG)
    assert host_bytes(config, model, 4) / model.count == pytest.approx(12 + 2 * 2, rel=1e-6)
    assert host_bytes(config, model, 1) == host_bytes(config, model, 4), "more than what a lone rank reads at its start"
    delta = configure(**LONG, learner={"delta": True})
    assert host_bytes(delta, model, 4) / model.count == pytest.approx(12 + 4 * 2, rel=1e-6)
