"""Trackers: every number of a record, from a thread of their own, and no run ends for their sake."""

from __future__ import annotations

import logging
import sys
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chorus.learner.metrics import trackers
from chorus.learner.metrics.trackers import Trackers, scalars
from chorus.protocol.config.run import RunConfig
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.exits import CannotGoOn

RECORD: dict[str, Any] = {
    "step": 3,
    "steps": 9,
    "time": 1000.0,
    "entropy": 0.5,
    "accuracy": 0.25,
    "reference_k1": None,
    "seconds": 2.0,
    "somebody_elses": 7,
    "accuracy_histogram": [1, 2],
    "alarms": ["words"],
    "by_template": {"qwen-math": {"reward": 1.5, "entropy": None}},
    "by_staleness": {"4+": {"tokens": 6}},
    "by_domain": {"algebra": {"samples": 2}},
    "template_weights": None,
    "diversity": {"distinct_2": 0.125},
}
SCALARS = {
    "policy/entropy": 0.5,
    "reward/accuracy": 0.25,
    "flow/seconds": 2.0,
    "other/somebody_elses": 7.0,
    "template/qwen-math/reward": 1.5,
    "age/4+/tokens": 6.0,
    "by_domain/algebra/samples": 2.0,
    "diversity/distinct_2": 0.125,
}


def config(**wanted: Any) -> RunConfig:
    least = {"model": {"path": "any"}, "problems": {"train": ["any"]}, "templates": {"names": ["qwen-math"]}}
    secret = {"redis": {"url": "redis://:hunter2@host:6379/0"}}
    return RunConfig.model_validate(least | secret | {"trackers": {"tensorboard": False} | wanted})


class FakeRun:
    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.finished = False

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> list[FakeRun]:
    """A module in the place of `wandb`; the runs that it was asked for."""
    runs: list[FakeRun] = []

    def init(**options: Any) -> FakeRun:
        runs.append(FakeRun(options))
        return runs[-1]

    module = types.ModuleType("wandb")
    module.__dict__["init"] = init
    module.__dict__["Table"] = lambda columns, data: (columns, data)
    module.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "wandb", module)
    return runs


def test_every_number_gets_a_heading_and_what_was_not_measured_is_left_out() -> None:
    assert dict(scalars(RECORD)) == SCALARS


def test_tensorboard_holds_what_was_written_at_its_step_and_time(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    tracked = Trackers(config(tensorboard=True), RunFolder(tmp_path), "run")
    tracked.write(RECORD)
    tracked.write(RECORD | {"step": 4, "entropy": 0.25})
    tracked.close()
    [entropies, rewards] = read_events(tmp_path / "tensorboard", "policy/entropy", "template/qwen-math/reward")
    assert entropies == [(3, 1000.0, 0.5), (4, 1000.0, 0.25)]
    assert rewards == [(3, 1000.0, 1.5), (4, 1000.0, 1.5)]


def test_after_a_resume_tensorboard_shows_the_new_steps_where_old_ones_were_undone(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    for first, entropy in ((1, 0.5), (2, 0.75)):
        tracked = Trackers(config(tensorboard=True), RunFolder(tmp_path), "run", first)
        for step in range(first, 4):
            tracked.write(RECORD | {"step": step, "entropy": entropy})
        tracked.close()
    [entropies] = read_events(tmp_path / "tensorboard", "policy/entropy")
    assert [(step, value) for step, _, value in entropies] == [(1, 0.5), (2, 0.75), (3, 0.75)]


def read_events(folder: Path, *tags: str) -> list[list[tuple[int, float, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder)).Reload()
    return [[(e.step, e.wall_time, e.value) for e in found.Scalars(tag)] for tag in tags]


SHOWN = [
    {"sort": sort, "template": "abel", "problem_id": "p1", "verdict": "wrong", "reward": 0.5, "advantage": -1.0}
    | {"tokens": 3, "text": f"# no heading\n<b>{sort}</b>"}
    for sort in ("best", "worst", "odd")
]


def test_tensorboard_shows_samples_as_the_text_that_they_are(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracked = Trackers(config(tensorboard=True), RunFolder(tmp_path), "run")
    tracked.write({"step": 10, "time": 1000.0, "shown": SHOWN})
    tracked.close()
    [event] = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Tensors("samples/worst/text_summary")
    [text] = event.tensor_proto.string_val
    assert event.step == 10
    assert text.decode() == (
        "    p1 under abel: wrong, reward 0.5, advantage -1, 3 tokens\n    \n    # no heading\n    <b>worst</b>\n    "
    )


def test_weights_and_biases_shows_samples_as_a_table(tmp_path: Path, wandb: list[FakeRun]) -> None:
    tracked = Trackers(config(wandb="chorus"), RunFolder(tmp_path), "run")
    tracked.write({"step": 10, "shown": SHOWN})
    tracked.close()
    assert wandb[0].logged == [(10, {"samples": (list(SHOWN[0]), [list(row.values()) for row in SHOWN])})]


def test_what_is_of_an_earlier_step_stands_at_the_last_one_in_weights_and_biases_which_would_drop_it(
    tmp_path: Path, wandb: list[FakeRun]
) -> None:
    tracked = Trackers(config(wandb="chorus"), RunFolder(tmp_path), "run")
    tracked.write(RECORD | {"step": 5})
    tracked.write({"step": 3, "evaluation": {"validation": {"step": 3, "accuracy": 0.5}}})
    tracked.close()
    told = {"evaluation/validation/step": 3.0, "evaluation/validation/accuracy": 0.5}
    assert wandb[0].logged[1:] == [(5, told)]


def test_weights_and_biases_gets_the_same_numbers_and_no_password(tmp_path: Path, wandb: list[FakeRun]) -> None:
    tracked = Trackers(config(wandb="chorus"), RunFolder(tmp_path), "demo 1")
    tracked.write(RECORD)
    tracked.close()
    [run] = wandb
    assert run.logged == [(3, SCALARS)]
    assert run.finished
    assert (run.options["project"], run.options["id"], run.options["resume"]) == ("chorus", "demo-1", "allow")
    assert "hunter2" not in str(run.options)


def test_weights_and_biases_is_imported_only_where_it_is_asked_for(tmp_path: Path, wandb: list[FakeRun]) -> None:
    tracked = Trackers(config(), RunFolder(tmp_path), "run")
    tracked.write(RECORD)
    tracked.close()
    assert wandb == []


@pytest.mark.parametrize(("wanted", "package"), [({"tensorboard": True}, "tensorboard"), ({"wandb": "p"}, "wandb")])
def test_a_tracker_whose_package_is_missing_is_refused_with_the_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: dict[str, Any], package: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        CannotGoOn, match=rf"trackers\.{package} is set, but the package {package} .* install chorus-rl"
    ):
        Trackers(config(**wanted), RunFolder(tmp_path), "run")


def test_a_tracker_that_fails_is_left_out_with_one_warning_and_the_other_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wandb: list[FakeRun], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trackers, "TensorBoard", failing)
    monkeypatch.setattr(trackers, "_needs", lambda *_: None)
    tracked = Trackers(config(tensorboard=True, wandb="p"), RunFolder(tmp_path), "run")
    with caplog.at_level(logging.WARNING):
        for step in range(3):
            tracked.write(RECORD | {"step": step})
        tracked.close()
    assert [step for step, _ in wandb[0].logged] == [0, 1, 2]
    assert caplog.text.count("TensorBoard fails and is left out from now on: OSError: the disk is full") == 1


def failing(*_: Any) -> Any:
    def write(*_: Any) -> None:
        raise OSError("the disk is full")

    return types.SimpleNamespace(write=write, close=lambda: None)


def stuck(release: threading.Event) -> Callable[..., Any]:
    return lambda *_: types.SimpleNamespace(write=lambda *_: release.wait(60), close=lambda: None)


def test_a_tracker_that_hangs_delays_neither_a_step_nor_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()
    monkeypatch.setattr(trackers, "TensorBoard", stuck(release))
    monkeypatch.setattr(trackers, "_needs", lambda *_: None)
    monkeypatch.setattr(trackers, "_QUEUE_RECORDS", 5)
    tracked = Trackers(config(tensorboard=True), RunFolder(tmp_path), "run")
    started = time.monotonic()
    with caplog.at_level(logging.WARNING):
        for step in range(20):
            tracked.write(RECORD | {"step": step})
        tracked.close(deadline_s=0.1)
    assert time.monotonic() - started < 30  # the tracker would have hung for a minute
    assert "records behind; step 19 is left out" in caplog.text
    assert "had not finished after 0.1 s" in caplog.text
    release.set()
