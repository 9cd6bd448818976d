"""Corrections for stale tokens and the KL estimators against the published fixture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fixture import LENGTHS, LOG_W, OLD, D, exact_grpo, flat, per_token

from chorus.learner.objectives.aggregation import token_scales
from chorus.learner.objectives.corrections import importance, log_weight, loglinear_proximal, rejected
from chorus.learner.objectives.kl import kl
from chorus.learner.objectives.losses import Bounds, Tokens, loss_function
from chorus.learner.objectives.objective import TOKEN_STATS, Inputs, Outcome, combine, correct
from chorus.learner.objectives.segments import segment_mean, segment_sum
from chorus.protocol.config.objective import ObjectiveConfig

SIZES = torch.tensor(LENGTHS)


def run(**fields: Any) -> Outcome:
    """The fixture's behaviour policy is its old one; the proximal one is D - log w away from the current."""
    behaviour = flat(OLD)
    aggregation = fields.get("aggregation", "token-mean")
    c = ObjectiveConfig.model_validate({"dual_clip": None, "proximal": "recompute", "clip_high": 0.2, **fields})
    x = Inputs(
        logp=behaviour + flat(D),
        entropy=torch.full((16,), 0.5, dtype=torch.float64),
        behaviour=behaviour,
        advantage=per_token(exact_grpo()),
        age=torch.ones(16, dtype=torch.int64),
        scale=per_token(token_scales(LENGTHS, aggregation).tolist()),
        lengths=SIZES,
        proximal=behaviour + flat(LOG_W),
        reference=behaviour - 0.2 if c.needs_reference else None,
    )
    return combine(x, c)


def figure(outcome: Outcome, name: str) -> torch.Tensor:
    return outcome.stats[TOKEN_STATS.index(name)]


@pytest.mark.parametrize(
    ("fields", "expected", "changed", "clipped"),
    [
        ({"weight": "token"}, -0.152188, 0, 3),
        ({"weight": "token", "weight_cap": 5.0, "weight_mode": "mask"}, -0.092369, 1, 3),
        ({"weight": "token", "weight_cap": 2.0, "clip_high": 0.28}, -0.119686, 1, 1),
    ],
    ids=["decoupled", "mask cap 5", "TIS 2"],
)
def test_the_decoupled_loss_is_that_of_the_fixture(
    fields: dict[str, Any], expected: float, changed: int, clipped: int
) -> None:
    outcome = run(**fields)
    assert outcome.loss.item() == pytest.approx(expected, abs=1e-5)
    assert int((figure(outcome, "w_truncated") + figure(outcome, "w_dropped")).sum()) == changed
    assert int((figure(outcome, "clip_high") + figure(outcome, "clip_low")).sum()) == clipped


def test_the_statistics_of_w_are_those_of_the_fixture() -> None:
    outcome = run()
    w = figure(outcome, "w")
    assert [w.mean().item(), w.max().item(), w.min().item()] == pytest.approx([1.350175, 6.049647, 0.818731], abs=1e-5)
    ess = w.sum() ** 2 / (16 * figure(outcome, "w_squared").sum())
    assert ess.item() == pytest.approx(0.551034, abs=1e-5)
    torch.testing.assert_close(figure(outcome, "w_k1"), -flat(LOG_W))
    torch.testing.assert_close(figure(outcome, "w_k2"), flat(LOG_W) ** 2 / 2)
    assert figure(outcome, "w_k3").mean().item() == pytest.approx(0.209550, abs=1e-5)


def test_products_and_geometric_means_of_w_are_those_of_the_fixture() -> None:
    products = [1.161834, 0.951229, 5.473947, 1.051271, 1.105171, 1.0, 1.349859]
    means = [1.077884, 0.983471, 1.529590, 1.051271, 1.051271, 1.0, 1.349859]
    for level, expected in (("sequence", products), ("geometric", means)):
        made = importance(flat(LOG_W), SIZES, level)
        torch.testing.assert_close(made.weight, per_token(expected), atol=1e-5, rtol=0)


def test_sequence_rejection_with_upper_bound_2_rejects_only_the_third_sample() -> None:
    assert rejected(flat(LOG_W), SIZES, "sequence", None, 2.0).tolist() == [False, False, True] + [False] * 4
    assert rejected(flat(LOG_W), SIZES, "sequence", 0.96, 2.0).tolist() == [False, True, True] + [False] * 4


def test_the_geometric_and_k3_filters_reject_by_a_mean_not_by_length() -> None:
    assert rejected(flat(LOG_W), SIZES, "geometric", 0.98, 1.08).tolist() == [
        False, False, True, False, False, False, True,
    ]  # fmt: skip
    # k3 by hand: of sample 6 exp(.3) - .3 - 1 = .0499, of sample 2 (.0187 + 3.2496 + .0052) / 4 = .8184
    assert rejected(flat(LOG_W), SIZES, "k3", None, 0.01).tolist() == [False, False, True, False, False, False, True]


def test_rejected_sequences_add_nothing_and_keep_their_place_in_the_token_count() -> None:
    outcome = run(reject="sequence", reject_high=2.0)
    assert int(figure(outcome, "rejected").sum()) == LENGTHS[2]
    r = (flat(D) - flat(LOG_W)).exp()
    a = per_token(exact_grpo())
    losses = -torch.minimum(a * r, a * r.clamp(0.8, 1.2))
    losses[5:9] = 0
    assert outcome.loss.item() == pytest.approx(losses.sum().item() / 16, abs=1e-12)


def test_a_capped_sequence_weight_is_the_same_on_all_its_tokens() -> None:
    made = importance(flat(LOG_W), SIZES, "sequence", 3.0, "truncate")
    assert made.weight[5:9].tolist() == [3.0] * 4
    assert made.truncated.tolist() == [False] * 5 + [True] * 4 + [False] * 7
    masked = importance(flat(LOG_W), SIZES, "sequence", 3.0, "mask")  # TRL's default
    assert masked.weight[5:9].tolist() == [0.0] * 4


def test_gmpo_takes_the_geometric_mean_of_the_weights() -> None:
    c = {"name": "gmpo", "std_epsilon": 1e-6, "weight": "geometric", "aggregation": "seq-mean-token-mean"}
    outcome = run(**{**c, "clip_high": 0.4})
    means = segment_mean(flat(LOG_W), SIZES).exp()
    ratio = flat(D) - flat(LOG_W)
    expected = []
    for d, w, a in zip(ratio.split(LENGTHS), means, exact_grpo(), strict=True):
        sign = 1.0 if a > 0 else -1.0
        expected.append(-a * w * torch.exp((sign * torch.minimum(sign * d, sign * d.clamp(-0.4, 0.4))).mean()))
    assert outcome.loss.item() == pytest.approx(torch.stack(expected).mean().item(), abs=1e-12)


def test_normalised_weights_have_mean_1() -> None:
    c = ObjectiveConfig.model_validate(
        {"proximal": "recompute", "weight": "token", "weight_cap": 2.0, "weight_normalise": True}
    )
    weight = correct(flat(LOG_W), SIZES, c).weight
    assert weight is not None
    x = Inputs(
        flat(OLD) + flat(D), torch.zeros(16), flat(OLD), per_token(exact_grpo()), torch.zeros(16),
        torch.full((16,), 1 / 16, dtype=torch.float64), SIZES, flat(OLD) + flat(LOG_W),
    )  # fmt: skip
    plain = combine(x, c.model_copy(update={"weight_normalise": False}))
    mean = weight.mean().item()
    assert combine(x, c, mean).loss.item() == pytest.approx(plain.loss.item() / mean)


def test_the_bypass_is_the_ratio_to_the_behaviour_policy_and_no_weight() -> None:
    outcome = run(proximal="behaviour")
    expected = loss_function("ppo")(
        Tokens(flat(OLD) + flat(D), flat(OLD), per_token(exact_grpo()), SIZES), Bounds(0.2, 0.2)
    )
    assert outcome.loss.item() == pytest.approx(expected.loss.mean().item())
    assert outcome.loss.item() == pytest.approx(-0.123802, abs=1e-5)


def test_without_a_recomputed_proximal_the_current_policy_is_it() -> None:
    x = Inputs(
        (flat(OLD) + flat(D)).requires_grad_(), torch.zeros(16), flat(OLD), per_token(exact_grpo()), torch.zeros(16),
        torch.full((16,), 1 / 16, dtype=torch.float64), SIZES,
    )  # fmt: skip
    c = ObjectiveConfig.model_validate({"proximal": "recompute", "weight": "token"})
    outcome = combine(x, c)
    assert outcome.loss.item() == pytest.approx(-(flat(D).exp() * per_token(exact_grpo())).mean().item())
    torch.testing.assert_close(figure(outcome, "w"), flat(D).exp())


def test_the_loglinear_proximal_lies_between_behaviour_and_current_by_the_tokens_age() -> None:
    behaviour, logp = torch.tensor([-1.0, -1.0, -1.0]), torch.tensor([-0.4, -0.4, -0.4])
    made = loglinear_proximal(logp, behaviour, torch.tensor([0, 1, 2]))  # shares 0, 1/2, 2/3
    torch.testing.assert_close(made, torch.tensor([-1.0, -0.7, -0.6]))


def test_a_weight_that_is_no_number_is_1_and_is_counted() -> None:
    log_w, bad = log_weight(torch.tensor([-1.0, float("nan"), -1.0]), torch.tensor([-1.5, -1.0, float("-inf")]))
    assert log_w.tolist() == [0.5, 0.0, 0.0]
    assert bad.tolist() == [False, True, True]


@pytest.mark.parametrize("bad", [float("nan"), float("-inf"), float("inf")])
@pytest.mark.parametrize("proximal", ["behaviour", "recompute", "loglinear"])
def test_a_current_log_probability_that_is_no_number_is_counted_and_spoils_neither_figures_nor_gradient(
    bad: float, proximal: str
) -> None:
    logp = flat(OLD) + flat(D)
    logp[3] = bad
    logp.requires_grad_()
    x = Inputs(
        logp, torch.full((16,), 0.5).double(), flat(OLD), per_token(exact_grpo()), torch.ones(16, dtype=torch.int64),
        torch.full((16,), 1 / 16, dtype=torch.float64), SIZES, flat(OLD) + flat(LOG_W), flat(OLD) - 0.2,
    )  # fmt: skip
    outcome = combine(x, ObjectiveConfig.model_validate({"proximal": proximal, "kl_coefficient": 0.1}))
    assert torch.isfinite(outcome.stats).all()
    assert figure(outcome, "nonfinite").tolist() == [0.0] * 3 + [1.0] + [0.0] * 12
    assert (figure(outcome, "ratio")[3], figure(outcome, "mismatch_abs")[3]) == (1.0, 0.0)
    torch.testing.assert_close(figure(outcome, "mismatch_k1")[4:], -flat(D)[4:])
    (gradient,) = torch.autograd.grad(outcome.loss, logp)
    assert torch.isfinite(gradient).all()
    assert gradient[3] == 0


def test_kl_and_entropy_join_the_loss_with_their_coefficients() -> None:
    plain = run()
    full = run(kl_coefficient=0.1, kl_estimator="k2", entropy_coefficient=0.01)
    x = flat(D) + 0.2
    assert full.loss.item() == pytest.approx(plain.loss.item() + 0.1 * (x * x / 2).mean().item() - 0.01 * 0.5)
    assert figure(full, "reference_k1").mean().item() == pytest.approx(x.mean().item())
    in_reward = run(kl_coefficient=0.1, kl_in="reward")
    assert in_reward.loss.item() == plain.loss.item()  # the advantages hold it already


@pytest.mark.parametrize(
    ("estimator", "mean", "each"),
    [("k1", -0.133333, None), ("k2", 0.05, None), ("k3", 0.057541, [0.018731, 0.005171, 0.148721])],
)
def test_kl_estimators_are_those_of_the_worked_example(estimator: str, mean: float, each: list[float] | None) -> None:
    logp = torch.tensor([-1.0, -0.5, -2.0], dtype=torch.float64, requires_grad=True)
    value = kl(logp, torch.tensor([-1.2, -0.4, -1.5], dtype=torch.float64), estimator)
    assert value.mean().item() == pytest.approx(mean, abs=1e-5)
    if each:
        assert value.tolist() == pytest.approx(each, abs=1e-5)
    assert torch.autograd.gradcheck(lambda p: kl(p, torch.tensor([-1.2, -0.4, -1.5]).double(), estimator), (logp,))


def test_k3_is_bounded_where_the_reference_finds_a_token_impossible() -> None:
    assert kl(torch.tensor([-100.0]), torch.tensor([0.0]), "k3").item() == 10.0
    assert kl(torch.tensor([-1.0]), torch.tensor([float("-inf")]), "k3").item() == 0.0


def test_sums_over_sequences_are_those_of_their_slices() -> None:
    values = torch.randn(16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.stack([part.sum() for part in values.split(LENGTHS)])
    torch.testing.assert_close(segment_sum(values, SIZES), expected)


def test_icepop_leaves_out_tokens_on_both_sides_of_its_bounds() -> None:
    w = torch.tensor([0.49, 0.51, 1.0, 4.99, 5.01], dtype=torch.float64)
    made = importance(w.log(), torch.tensor([5]), "token", 5.0, "mask", 0.5)
    torch.testing.assert_close(made.weight, torch.tensor([0.0, 0.51, 1.0, 4.99, 0.0], dtype=torch.float64))
    assert made.dropped.tolist() == [True, False, False, False, True]


def test_a_clamped_log_ratio_bounds_the_estimator_and_its_gradient() -> None:
    logp = torch.tensor([-1.0, -14.0, -2.0], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([-3.0, -1.0, -15.0], dtype=torch.float64)
    estimate = kl(logp, reference, "k2", 10.0)
    torch.testing.assert_close(estimate.detach(), torch.tensor([2.0, 50.0, 50.0], dtype=torch.float64))
    estimate.sum().backward()
    assert logp.grad is not None
    assert logp.grad.tolist() == [2.0, 0.0, 0.0]
