"""The simulation beside times that a pencil gives, its calibration on made-up runs, and `chorus plan`."""

from __future__ import annotations

import json
import random
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
import storedrun

from chorus.cli.main import main
from chorus.deploy.simulator.calibrate import calibrate, fit_engine, read_lengths
from chorus.deploy.simulator.fleet import Fleet
from chorus.deploy.simulator.forecast import forecast, recommend, remarks
from chorus.deploy.simulator.pace import EngineSpeed, Lengths, Pace, groups_of
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import Keys, Rollout
from chorus.protocol.messages import SyncReport, Timing
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.exits import CannotGoOn

Configure = Callable[..., RunConfig]


@pytest.fixture
def recipe(configure: Configure) -> Callable[..., RunConfig]:
    """Steps of 4 groups of 2; two groups at once in a generator."""

    def build(target: int = 1, most: int = 4, in_flight: int = 2) -> RunConfig:
        return configure(
            sampling={"group_size": 2, "max_tokens": 100},
            staleness={"target": target, "max": most},
            learner={"groups_per_step": 4},
            generator={"max_num_seqs": 64, "groups_in_flight": in_flight},
        )

    return build


def even(step_s: float, learner_s: float, **more: Any) -> Pace:
    """Groups of two times 10 tokens; a decode step takes `step_s` whatever runs; a training step `learner_s`."""
    groups = (Lengths(10, 20),)
    return Pace(groups=groups, engine=EngineSpeed(((1, step_s), (64, step_s))), learner=(learner_s / 80,), **more)


# -- the engine -------------------------------------------------------------------------------------------------


def test_between_measured_rates_a_decode_step_s_time_is_on_a_line_and_beyond_them_the_rate_stays() -> None:
    speed = EngineSpeed.from_rates([(10, 100.0), (30, 150.0)])
    assert speed.step_s(10) == pytest.approx(0.1)
    assert speed.step_s(20) == pytest.approx(0.15)
    assert speed.step_s(30) == pytest.approx(0.2)
    assert speed.rate(60) == pytest.approx(150.0)
    assert speed.step_s(1) == pytest.approx(0.1)


def test_groups_are_taken_as_recorded_or_else_drawn_and_cut() -> None:
    assert groups_of([[3, 5], [7, 1]], 2, 10, seed=0) == (Lengths(5, 8), Lengths(7, 8))
    drawn = groups_of([[3], [500]], 2, 10, seed=0)
    assert {g.longest for g in drawn} == {3, 10}
    assert drawn == groups_of([[3], [500]], 2, 10, seed=0)
    assert drawn != groups_of([[3], [500]], 2, 10, seed=1)


# -- the fleet --------------------------------------------------------------------------------------------------


def test_a_slow_generator_sets_the_pace(recipe: Callable[..., RunConfig]) -> None:
    """Two groups a second from a generator, four a step: a step every two seconds, of which 0.1 s are training."""
    found = forecast(recipe(), even(0.1, 0.1), 1)
    assert found.samples_per_s == pytest.approx(4.0, rel=0.01)
    assert found.steps_per_hour == pytest.approx(1800, rel=0.01)
    assert found.learner_idle == pytest.approx(0.95, abs=0.01)
    assert found.generators_idle == pytest.approx(0.0, abs=0.01)


def test_two_slow_generators_give_twice_as_much(recipe: Callable[..., RunConfig]) -> None:
    assert forecast(recipe(target=2), even(0.1, 0.1), 2).samples_per_s == pytest.approx(8.0, rel=0.02)


def test_a_busy_learner_sets_the_pace_and_what_it_trains_is_one_step_old(recipe: Callable[..., RunConfig]) -> None:
    found = forecast(recipe(), even(0.01, 5.0), 4)
    assert found.steps_per_hour == pytest.approx(720)
    assert found.learner_idle == pytest.approx(0.0)
    assert (found.staleness_mean, found.staleness_max) == (1.0, 1)
    # One generator takes the four groups of each step, two by two: 0.2 s in 5 s, shared by four.
    assert found.generators_idle == pytest.approx(1 - 0.2 / 5 / 4 * 2, abs=0.03)


def test_with_staleness_0_sampling_and_training_take_turns(recipe: Callable[..., RunConfig]) -> None:
    """Two generators sample a step's four groups at once in 1 s; then 3 s of training."""
    found = forecast(recipe(target=0), even(0.1, 3.0), 2)
    assert found.steps_per_hour == pytest.approx(3600 / 4.0)
    assert found.learner_idle == pytest.approx(0.25)
    assert (found.staleness_mean, found.staleness_max) == (0.0, 0)
    assert forecast(recipe(target=0), even(0.1, 3.0), 8).steps_per_hour == pytest.approx(900), "no more to share"


def test_with_staleness_0_nothing_starts_before_the_step_s_weights_are_verified(
    recipe: Callable[..., RunConfig],
) -> None:
    found = forecast(recipe(target=0), even(0.1, 3.0, pause_s=0.5, sync_s=1.0), 2)
    assert found.steps_per_hour == pytest.approx(3600 / 5.0)


def test_a_pause_holds_up_what_is_running(recipe: Callable[..., RunConfig]) -> None:
    """A step every 2 s plus one pause of 0.5 s."""
    found = forecast(recipe(), even(0.1, 0.1, pause_s=0.5, sync_s=0.5), 1)
    assert found.steps_per_hour == pytest.approx(3600 / 2.5, rel=0.03)


def test_further_generators_make_weights_later_where_the_learner_s_link_is_shared() -> None:
    pace = even(0.1, 0.1, pause_s=0.5, sync_s=0.7, link_s=0.2)
    assert pace.later_with(1) == 0
    assert pace.later_with(4) == pytest.approx(0.6)
    assert pace.sync_with(4) == pytest.approx(1.3)


def test_sequences_share_an_engine(recipe: Callable[..., RunConfig]) -> None:
    """10 ms for each of the four sequences: four groups of 20 tokens a step take 80 x 10 ms, in whatever order."""
    pace = replace(even(0.1, 0.01), engine=EngineSpeed(((1, 0.01), (64, 0.64))))
    assert forecast(recipe(target=2), pace, 1).steps_per_hour == pytest.approx(3600 / 0.8, rel=0.02)


def test_never_more_than_the_window_is_outstanding_and_every_group_is_trained_or_dropped_once(
    recipe: Callable[..., RunConfig],
) -> None:
    rng = random.Random(3)
    lengths = tuple(Lengths(n, 2 * n) for n in rng.choices(range(1, 60), k=200))
    fleet = Fleet(recipe(most=1), replace(even(0.01, 0.2, pause_s=0.05, sync_s=0.1, grade_s=0.02), groups=lengths))
    for _ in range(3):
        fleet.join()
    for step in range(1, 80):
        fleet.run(steps=step)
        assert len(fleet.window.outstanding) <= fleet.config.capacity
        trained = len(fleet.staleness)
        assert fleet._admitted == trained + fleet.dropped + len(fleet.window.outstanding)
    assert max(fleet.staleness) <= 1, "older ones are dropped"


def test_dynamic_sampling_makes_generators_work_for_groups_that_are_not_trained(
    recipe: Callable[..., RunConfig],
) -> None:
    assert forecast(recipe(), even(0.1, 0.1, accepted=0.5), 1).samples_per_s == pytest.approx(2.0, rel=0.03)


def test_nobody_holds_more_than_its_share_of_the_window(recipe: Callable[..., RunConfig]) -> None:
    """Eight groups may be outstanding."""
    fleet = Fleet(recipe(in_flight=100), even(0.1, 0.1))
    first = fleet.join()
    fleet.run(until_s=0.5)
    assert first.held == 8
    second = fleet.join(after_s=5.0)
    assert (first.slots, second.slots) == (4, 4), "who is not ready yet is counted, too"
    fleet.leave(second)
    assert first.slots == 8


def test_fewer_slots_let_several_generators_work_on_one_step_and_the_plan_says_so(
    recipe: Callable[..., RunConfig],
) -> None:
    """A step is sampled in 1 s and trained in 0.8 s. Two that take whole steps in turn pause twice for each."""
    pace = replace(even(0.1, 0.8, pause_s=0.2, sync_s=0.4), engine=EngineSpeed(((1, 0.0125), (64, 0.8))))
    config = recipe(in_flight=8)
    fleets = [forecast(config, pace, n) for n in (1, 2)]
    chosen, _ = recommend(fleets, config)
    (remark,) = remarks(config, pace, fleets, chosen, 100)
    assert "generator.groups_in_flight=2, 2 generators would give 10 samples/s" in remark
    assert forecast(recipe(in_flight=2), pace, 2).samples_per_s == pytest.approx(8 / 0.8, rel=0.01)
    assert fleets[1].samples_per_s < 8


def test_a_generator_that_joins_helps_and_one_that_leaves_finishes_what_it_holds(
    recipe: Callable[..., RunConfig],
) -> None:
    fleet = Fleet(recipe(target=2), even(0.1, 0.1))
    first = fleet.join()
    fleet.run(until_s=20.0)
    alone = fleet.done
    second = fleet.join(after_s=5.0)
    fleet.run(until_s=45.0)
    assert fleet.done - alone == pytest.approx(5 / 2 + 20, abs=2)
    fleet.leave(first)
    held = first.held
    fleet.run(until_s=50.0)
    assert (held, first.held, fleet.generators) == (2, 0, [second])
    assert fleet.held_s() == pytest.approx(20 + 25 + 20 + 1 + 5, abs=2)


def test_the_same_question_has_the_same_answer(recipe: Callable[..., RunConfig]) -> None:
    lengths = groups_of([[n] for n in range(5, 95)], 2, 100, seed=1)
    pace = replace(even(0.01, 0.3, pause_s=0.1, sync_s=0.2), groups=lengths)
    assert forecast(recipe(), pace, 3) == forecast(recipe(), pace, 3)


# -- which fleet ------------------------------------------------------------------------------------------------


def test_the_smallest_fleet_that_keeps_the_learner_busy_is_recommended(recipe: Callable[..., RunConfig]) -> None:
    config = recipe(target=3)
    fleets = [forecast(config, even(0.1, 0.7), n) for n in range(1, 9)]
    chosen, why = recommend(fleets, config)
    assert chosen.generators == 3  # two groups a second each, and 4 / 0.7 = 5.7 can be trained
    assert why.startswith("3 generators: the learner waits only")
    largest, why = recommend(fleets[:2], config)
    assert largest.generators == 2
    assert "look at larger fleets too" in why


# -- calibration ------------------------------------------------------------------------------------------------


def recorded(base_s: float, sequence_s: float) -> list[Rollout]:
    """Groups of one generator, in rounds of 1, 2, 4 or 8 that run side by side, all completions equally long."""
    made: list[Rollout] = []
    now = 1000.0
    for side_by_side in (1, 2, 4, 8, 4, 2):
        length = 5 + side_by_side
        seconds = length * (base_s + sequence_s * 2 * side_by_side)
        for _ in range(side_by_side):
            ready = storedrun.group(len(made), "qwen-math", [([7] * length, storedrun.grade(1.0))] * 2)
            timing = Timing(started=now, generated=now + seconds, graded=now + seconds + 0.25)
            made.append(replace(ready, group=ready.group.model_copy(update={"timing": timing})))
        now += seconds + 1.0
    return [replace(r, entry=replace(r.entry, payload=r.group.encode())) for r in made]


def test_the_engine_s_two_costs_are_found_again() -> None:
    fit = fit_engine([r.group for r in recorded(0.020, 0.003)])
    assert fit.base_s == pytest.approx(0.020, rel=1e-6)
    assert fit.sequence_s == pytest.approx(0.003, rel=1e-6)
    assert fit.r2 == pytest.approx(1.0)


def test_no_cost_is_negative_and_the_times_still_add_up() -> None:
    groups = [r.group for r in recorded(0.050, -0.001)]
    fit = fit_engine(groups)
    assert fit.sequence_s == 0.0
    told = sum(fit.base_s * g.samples[0].n_tokens for g in groups)
    assert told == pytest.approx(sum(g.timing.generated - g.timing.started for g in groups))


@pytest.fixture
def run(tmp_path: Path, recipe: Callable[..., RunConfig]) -> Path:
    groups = recorded(0.020, 0.003)
    folder = storedrun.run_folder(tmp_path / "run", recipe(), [groups[:7], groups[7:]])
    for step in range(1, 8):
        figures = {"step": step, "time": 2000.0 + step, "seconds": 3.0, "wait_seconds": 1.0, "trained_tokens": 100}
        RunFolder(folder).append_record(figures | {"groups": 10, "groups_filtered": {}})
    (folder / "summary.json").write_text('{"weights": {"seconds_p50": 0.5, "pause_seconds_p50": 0.2}}')
    return folder


def test_a_run_tells_how_fast_everybody_was(run: Path) -> None:
    known = calibrate(run)
    assert known.pace.engine.step_s(10) == pytest.approx(0.050)
    assert known.pace.learner == (0.02,) * 5, "two seconds for a hundred tokens, the first two steps left out"
    assert (known.pace.grade_s, known.pace.pause_s, known.pace.sync_s) == (pytest.approx(0.25), 0.2, 0.5)
    assert known.pace.fleet == 1
    assert len(known.lengths) == 21
    assert known.notes == {}


def test_what_a_run_can_not_tell_is_said(run: Path) -> None:
    (run / "summary.json").unlink()
    assert "syncs are taken to cost nothing" in calibrate(run).notes["weights"]


def test_a_run_that_is_still_on_tells_its_syncs_from_redis(run: Path, redis_url: str, client: redis.Redis) -> None:
    (run / "summary.json").unlink()
    config = json.loads((run / "config.json").read_text())
    config["redis"]["url"] = redis_url
    (run / "config.json").write_text(json.dumps(config))
    for k, total_s in enumerate((0.4, 0.6, 9.0)):
        report = SyncReport(
            generator_id="g", group="g", version=f"1.{k}", ok=k < 2, pause_s=total_s / 2, total_s=total_s
        )
        client.xadd(Keys(run.name).reports, {"d": report.encode()})
    pace = calibrate(run).pace
    assert (pace.pause_s, pace.sync_s) == (0.25, 0.5), "of those that went well"


def test_the_pause_before_a_group_s_first_token_is_no_time_of_the_engine(run: Path) -> None:
    """Admitted and leased at the end of step 3, and yet sampled by its weights: the sync came between."""
    shard = run / "rollouts" / "step-000002.parquet"
    shard.unlink()
    ready = storedrun.group(90, "qwen-math", [([7] * 10, storedrun.grade(1.0))] * 2)
    task = ready.group.task.model_copy(update={"admitted_at": 2002.9})
    timing = Timing(started=2002.95, generated=2002.95 + 0.2 + 10 * 0.026, graded=2005.0)
    samples = [s.model_copy(update={"versions": [(1, 3, 10)]}) for s in ready.group.samples]
    group = ready.group.model_copy(update={"task": task, "timing": timing, "samples": samples})
    storedrun.write_step(
        RunFolder(run), 2, [replace(ready, group=group, entry=replace(ready.entry, payload=group.encode()))]
    )
    known = calibrate(run)
    assert known.pace.fresh
    assert known.pace.engine.step_s(2) == pytest.approx(0.026, rel=0.02)


# -- the command ------------------------------------------------------------------------------------------------


def plan(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert main(["plan", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["plan", *map(str, arguments)]) == 3
    return capsys.readouterr().err


def test_a_recorded_run_is_all_that_a_plan_needs(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = plan(capsys, run / "config.json", "--run", run, "--generators", "1..3", "--steps", 20)
    assert [f["generators"] for f in told["forecasts"]] == [1, 2, 3]
    assert told["recommended"] in (1, 2, 3)
    assert told["why"].startswith(str(told["recommended"]))


def test_without_a_run_speeds_and_lengths_are_given(
    tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lengths = tmp_path / "lengths.txt"
    lengths.write_text("10\n\n10\n")
    given = ("--lengths", lengths, "--rates", "1:10,64:640", "--learner-rate", 800)
    told = plan(capsys, run / "config.json", *given, "--generators", "1")
    assert told["forecasts"][0]["samples_per_s"] == pytest.approx(4.0, rel=0.01), "as a slow generator above"
    assert "--learner-rate" in refused(capsys, run / "config.json", "--lengths", lengths, "--rates", "1:10")


def test_other_lengths_change_the_answer(tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lengths = tmp_path / "lengths.txt"
    lengths.write_text("90\n")
    common = (run / "config.json", "--run", run, "--generators", 1, "--steps", 20)
    longer = plan(capsys, *common, "--lengths", lengths)["forecasts"][0]["samples_per_s"]
    assert longer < 0.3 * plan(capsys, *common)["forecasts"][0]["samples_per_s"]
    assert plan(capsys, *common, "--lengths", run) == plan(capsys, *common)


def test_a_table_marks_the_recommended_fleet(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(run / "config.json"), "--run", str(run), "--generators", "1..2", "--steps", "20"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("engine    20 ms a decode step + 3e+03 us for each sequence") for line in lines)
    assert sum(line.lstrip().startswith("* ") for line in lines) == 2, "in the table, and the sentence below it"


@pytest.mark.parametrize("text", ["0..3", "3..1", "a", "1..5000", "", "1;2"])
def test_fleets_that_are_none_are_refused(text: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "write fleet sizes from 1 to 1024" in refused(
        capsys, run / "config.json", "--run", run, f"--generators={text}"
    )


@pytest.mark.parametrize(
    ("option", "value", "mend"),
    [
        ("--rates", "10", "write sequences:tokens/s pairs"),
        ("--rates", "1:0", "write sequences:tokens/s pairs"),
        ("--rates", "1:5,1:6", "write sequences:tokens/s pairs"),
        ("--learner-rate", "0", "give a number above 0"),
        ("--pause-seconds", "nan", "give a number of 0 or more"),
        ("--grade-seconds", "-1", "give a number of 0 or more"),
        ("--steps", "0", "simulate at least one step"),
        ("--lengths", "/nowhere", "give a file with one length a line"),
        ("--run", "/nowhere", "give the folder of a run"),
    ],
)
def test_bad_input_is_one_line_with_the_mend(
    option: str, value: str, mend: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, run / "config.json", "--run", run, f"{option}={value}")
    assert mend in said
    assert said.count("\n") == 1


def test_a_line_that_is_no_length_is_named(tmp_path: Path) -> None:
    file = tmp_path / "lengths.txt"
    file.write_text("12\n0.5\n")
    with pytest.raises(CannotGoOn, match=r"lengths.txt, line 2: '0.5' is no number of tokens"):
        read_lengths(file)
    file.write_text("\n")
    with pytest.raises(CannotGoOn, match="there is no length in it"):
        read_lengths(file)


def test_the_page_s_example_of_a_gpu_fleet_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(__file__).parents[3]
    page = (root / "docs" / "scaling.md").read_text(encoding="utf-8")
    [example] = re.findall(
        r"^chorus (plan recipes/qwen2.5-math-1.5b_async.toml .*?)\n```", page, re.DOTALL | re.MULTILINE
    )
    (tmp_path / "recipes").symlink_to(root / "recipes")
    (tmp_path / "lengths.txt").write_text("\n".join(str(200 + 37 * n % 1500) for n in range(64)))
    monkeypatch.chdir(tmp_path)
    assert main([*shlex.split(example.replace("\\\n", " ")), "--steps", "3", "--json"]) == 0
    forecasts = json.loads(capsys.readouterr().out)["forecasts"]
    assert [f["generators"] for f in forecasts] == [1, 2, 3, 4, 5, 6, 7]
    assert forecasts[-1]["steps_per_hour"] > 2 * forecasts[0]["steps_per_hour"]
