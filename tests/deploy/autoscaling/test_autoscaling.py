"""The ScaledObject against a simulated load: the lag is read from a live Valkey, the decisions are the HPA's rule.

The load: a step of 8 groups trains in 60 s, a generator samples two groups at once in 45 s. So one generator gives
8 groups in 180 s, three are not quite enough and four are. A model takes 4 minutes to load.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import redis
from autoscaler import SYNC_S, Autoscaler, evaluate, scaled_object, trigger
from mirrored import MirroredFleet, Moment, autoscale

from chorus.deploy.simulator.pace import EngineSpeed, Lengths, Pace
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import Keys
from chorus.protocol.ledger.keys import TASK_GROUP
from chorus.protocol.metrics.processes import GeneratorMetrics, LearnerMetrics

HOUR = 3600.0
LOAD_S = 240.0
ENOUGH = 4


def pace() -> Pace:
    """45 decode steps of 1 s for a group of four, more or less."""
    groups = tuple(Lengths(n, 4 * n) for n in (48, 45, 42))
    tokens = 8 * 4 * 45
    return Pace(groups=groups, engine=EngineSpeed(((1, 1.0), (8, 1.0))), learner=(60.0 / tokens,), grade_s=0.5)


@pytest.fixture
def load(client: redis.Redis) -> Callable[..., MirroredFleet]:
    def build(target: int = 1) -> MirroredFleet:
        config = RunConfig(
            model={"path": "any"},
            problems={"train": ["any"]},
            templates={"names": ["qwen-math"]},
            sampling={"group_size": 4},
            staleness={"target": target},
            learner={"groups_per_step": 8},
            generator={"max_num_seqs": 8, "groups_in_flight": 2},
        )  # type: ignore[arg-type]
        return MirroredFleet(config, pace(), client, "qwen2.5-math-1.5b")

    return build


def turns(moments: list[Moment]) -> int:
    """How often the fleet has changed its mind: from growing to shrinking, or back."""
    changes = [b.replicas - a.replicas for a, b in pairwise(moments) if b.replicas != a.replicas]
    return sum(a * b < 0 for a, b in pairwise(changes))


def waiting(moments: list[Moment], last_s: float = HOUR) -> float:
    late = [m.values["waiting"] for m in moments if m.at > moments[-1].at - last_s]
    return sum(late) / len(late)


# -- the object ---------------------------------------------------------------------------------------------


def test_the_object_names_the_ledger_s_own_stream_and_group() -> None:
    metadata = trigger(scaled_object(), "queued")
    run = metadata["stream"].split(":")[1]
    assert metadata["stream"] == Keys(run).tasks
    assert metadata["consumerGroup"] == TASK_GROUP
    assert metadata["lagCount"] == "1"


def test_what_its_queries_ask_for_is_exported() -> None:
    registries = (LearnerMetrics().registry, GeneratorMetrics().registry)
    exported = {sample.name for r in registries for family in r.collect() for sample in family.samples}
    asked = {
        name for t in ("waiting", "idle") for name in re.findall(r"chorus_\w+", trigger(scaled_object(), t)["query"])
    }
    assert len(asked) == 3
    assert asked <= exported


def test_every_trigger_has_a_part_in_the_one_formula() -> None:
    spec = scaled_object()
    formula = spec["advanced"]["scalingModifiers"]["formula"]
    assert {t["name"] for t in spec["triggers"]} == {"queued", "waiting", "idle"}
    assert all(t["name"] in formula for t in spec["triggers"])


def test_what_a_model_s_load_costs_is_not_thrown_away_before_it_is_over() -> None:
    spec = scaled_object()
    load_s = RunConfig.model_fields["generator"].default.start_deadline_s
    assert spec["cooldownPeriod"] > load_s
    assert (
        spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"]
        > load_s
    )
    assert 1 <= spec["minReplicaCount"] <= spec["fallback"]["replicas"] <= spec["maxReplicaCount"]


@pytest.mark.parametrize(
    ("queued", "waits", "idle", "factor"),
    [
        (7, 0.5, 0.0, 2.0),  # half of the learner's time is missing: twice the fleet
        (7, 0.25, 0.0, 4 / 3),
        (7, 0.9, 0.0, 2.0),  # never more than twice
        (0, 0.5, 0.0, 1.0),  # starving without a queue: more generators would find nothing to do
        (7, 0.0, 0.0, 1.0),  # a queue that nobody waits for
        (7, 0.0, 0.9, 1.0),
        (0, 0.0, 0.1, 1.0),
        (0, 0.0, 0.49, 0.6),  # they are to work 85 % of the time
        (0, 0.3, 0.6, 1.0),  # idle, and yet the learner waits: the window is the limit, not the fleet
    ],
)
def test_the_formula(queued: float, waits: float, idle: float, factor: float) -> None:
    formula = scaled_object()["advanced"]["scalingModifiers"]["formula"]
    assert evaluate(formula, {"queued": queued, "waiting": waits, "idle": idle}) == pytest.approx(factor)


# -- the rule, beside the examples of its documentation --------------------------------------------------------


def fixed(factor: float, **behaviour: Any) -> Autoscaler:
    """An autoscaler whose metric is a number, with a free hand unless `behaviour` ties it."""
    spec = copy.deepcopy(scaled_object())
    free = {"stabilizationWindowSeconds": 0, "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}
    spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] = {"scaleUp": free, "scaleDown": free} | behaviour
    return Autoscaler(spec, 4, formula=str(factor))


def test_within_a_tenth_of_the_target_nothing_changes_and_beyond_it_is_rounded_up() -> None:
    assert fixed(1.09).decide(0.0, {}, 4) == 4
    assert fixed(0.91).decide(0.0, {}, 4) == 4
    assert fixed(1.2).decide(0.0, {}, 4) == 5
    assert fixed(0.5).decide(0.0, {}, 3) == 2


def test_pods_that_are_not_ready_do_not_multiply() -> None:
    assert fixed(2.0).decide(0.0, {}, ready=2) == 4


def test_a_window_downwards_holds_the_largest_wish_within_it() -> None:
    down = {"stabilizationWindowSeconds": 60, "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}
    autoscaler = fixed(0.5, scaleDown=down)
    sizes = [autoscaler.decide(t, {}, 4) for t in (0.0, 15.0, 30.0, 45.0, 60.0, 75.0)]
    assert sizes == [4, 4, 4, 4, 2, 2]


def test_a_policy_limits_the_change_within_its_period() -> None:
    down = {"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}
    autoscaler = fixed(0.25, scaleDown=down)
    assert [autoscaler.decide(t, {}, 4) for t in (0.0, 15.0, 30.0, 45.0, 60.0)] == [3, 3, 3, 3, 2]


# -- the load -------------------------------------------------------------------------------------------------


def test_a_starving_learner_makes_the_fleet_grow_until_it_does_not_starve_and_no_further(
    load: Callable[..., MirroredFleet],
) -> None:
    fleet = load()
    moments, _ = autoscale(fleet, Autoscaler(scaled_object(), 1), 2.5 * HOUR, LOAD_S)
    assert max(m.values["waiting"] for m in moments) > 0.5
    assert moments[-1].replicas == ENOUGH
    assert turns(moments) == 0
    assert waiting(moments) < 0.05
    assert fleet.ledger.accounts().difference == 0


def test_the_start_of_a_run_is_not_taken_for_starvation(load: Callable[..., MirroredFleet]) -> None:
    """Everybody waits for the first groups; and before the tenth step nobody knows whether that lasts."""
    moments, _ = autoscale(load(), Autoscaler(scaled_object(), ENOUGH), 1.5 * HOUR, LOAD_S)
    assert {m.replicas for m in moments} == {ENOUGH}


def test_idle_generators_go_one_by_one_and_the_learner_never_notices(load: Callable[..., MirroredFleet]) -> None:
    moments, _ = autoscale(load(), Autoscaler(scaled_object(), 8), 2 * HOUR, LOAD_S)
    assert moments[0].replicas == 8
    assert moments[-1].replicas == ENOUGH
    assert turns(moments) == 0
    assert all(a.replicas - b.replicas <= 1 for a, b in pairwise(moments))
    assert waiting(moments, 1.9 * HOUR) < 0.05


def test_with_staleness_0_it_grows_until_a_step_s_groups_fit_into_the_fleet_at_once(
    load: Callable[..., MirroredFleet],
) -> None:
    """The learner then waits in every step, whatever the fleet; the queue alone says that it can still be helped."""
    moments, _ = autoscale(load(target=0), Autoscaler(scaled_object(), 1), 2.5 * HOUR, LOAD_S)
    assert moments[-1].replicas == 8 // 2
    assert waiting(moments) > 0.3
    assert turns(moments) == 0


def test_the_queue_alone_would_ask_for_generators_that_nobody_needs(load: Callable[..., MirroredFleet]) -> None:
    by_queue = Autoscaler(scaled_object(), ENOUGH, formula="queued >= 1 ? 2.0 : 1.0")
    moments, _ = autoscale(load(), by_queue, 1 * HOUR, LOAD_S)
    assert moments[-1].replicas > ENOUGH
    assert waiting(moments, 0.5 * HOUR) < 0.05


def test_the_wait_alone_would_ask_for_generators_that_find_nothing_to_do(load: Callable[..., MirroredFleet]) -> None:
    by_wait = Autoscaler(scaled_object(), 8 // 2, formula="waiting > 0.1 ? 2.0 : 1.0")
    moments, _ = autoscale(load(target=0), by_wait, 1 * HOUR, LOAD_S)
    assert moments[-1].replicas == scaled_object()["maxReplicaCount"]
    assert waiting(moments, 0.3 * HOUR) > 0.3


def test_without_a_learner_the_fleet_shrinks_to_its_least() -> None:
    """Prometheus then knows no wait ratio, which KEDA reads as 0."""
    autoscaler = Autoscaler(scaled_object(), 4)
    values = {"queued": 0.0, "waiting": 0.0, "idle": 1.0}
    sizes = [autoscaler.decide(k * SYNC_S, values, autoscaler.current) for k in range(240)]
    assert sizes[59] == 4, "held for the whole window"
    assert sizes[-1] == 1
