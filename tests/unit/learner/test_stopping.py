"""SIGTERM to a learner: a checkpoint when the step in progress has ended, at once where it waits; again ends it."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from paperlearner import config_of, start

from chorus.deploy.placement import place
from chorus.deploy.services import MARGIN_S, Chosen, services_of
from chorus.learner.loop import Learner
from chorus.learner.main import _status_of
from chorus.learner.parts import Parts
from chorus.protocol.config.run import LearnerSection
from chorus.protocol.run_folder import checkpoints
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.stopping import stopped_by_signals

ROOT = Path(__file__).parents[3]


def at(name: str, nth: int, parts: list[Parts]) -> Callable[[str], None]:
    """A hook that asks for a stop at the nth time that this happens."""
    seen: list[str] = []

    def hook(happens: str) -> None:
        seen.append(happens)
        if seen.count(name) == nth and happens == name:
            parts[0].stop.number = signal.SIGTERM

    return hook


def steps_of(folder: Path) -> list[int]:
    return [checkpoints.read_manifest(path).step for path in checkpoints.whole(folder / "checkpoints")]


def stopped(learner: Learner, parts: Parts, holder: list[Parts]) -> int:
    holder.append(parts)
    return _status_of(learner)


def test_a_stop_in_the_middle_of_a_step_waits_for_its_end_and_leaves_its_checkpoint(
    client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    holder: list[Parts] = []
    config = config_of(tiny_model, tmp_path, run={"steps": 9}, learner={"checkpoint_every": 9})
    learner, parts = start(client, config, tmp_path, at("train", 2, holder))
    assert stopped(learner, parts, holder) == 128 + signal.SIGTERM
    assert steps_of(tmp_path) == [2]
    assert parts.ledger.accounts().durable == 4, "what it holds is acknowledged"
    again, parts = start(client, config_of(tiny_model, tmp_path, run={"steps": 3}), tmp_path)
    again.run()
    assert sorted(parts.ranks.trained) == list(range(6)), "nothing is trained twice"  # type: ignore[attr-defined]


def test_a_learner_that_only_waits_leaves_at_once_and_writes_what_it_has_trained(
    client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    config = config_of(tiny_model, tmp_path, run={"steps": 9}, learner={"checkpoint_every": 9, "groups_per_step": 2})
    learner, parts = start(client, config, tmp_path)
    learner.life.begin()
    learner.step()
    parts.ledger.read = lambda *_: _asked(parts)  # type: ignore[attr-defined]
    learner.life.begin = lambda: None  # type: ignore[method-assign]
    assert _status_of(learner) == 128 + signal.SIGTERM
    assert steps_of(tmp_path) == [parts.done]
    assert RunFolder(tmp_path).status.read_text().count("stopped") == 1


def _asked(parts: Parts) -> list[Any]:
    parts.stop.number = signal.SIGTERM
    return []


@pytest.mark.parametrize("wait", ["first weights", "evaluation"])
def test_a_stop_before_anything_is_trained_writes_no_checkpoint(
    wait: str, client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    held = tmp_path / "held.jsonl"
    held.write_text('{"problem": "40?", "answer": "7"}\n')
    asked = {"problems": 1, "samples": 1}
    config = config_of(tiny_model, tmp_path, evaluation=asked, problems={"heldout": [str(held)]})
    learner, parts = start(client, config, tmp_path)
    if wait == "first weights":
        parts.stop.number = signal.SIGTERM
    else:
        parts.evaluations.ledger.read = lambda *_: _asked(parts)  # type: ignore[method-assign]
    assert _status_of(learner) == 128 + signal.SIGTERM
    assert steps_of(tmp_path) == []
    again, parts = start(client, config, tmp_path)
    again.run()
    assert sorted(parts.ranks.trained) == list(range(6))  # type: ignore[attr-defined]
    assert RunFolder(tmp_path).evaluation("before").exists(), "what was cut short is asked again"


def test_under_torchrun_an_echo_of_the_first_signal_is_not_a_second_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    ended: list[int] = []
    with stopped_by_signals(0.3, ended.append) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        _until(lambda: stop.number == signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        _until(lambda: ended)
    assert ended == [128 + signal.SIGTERM], "by the end of its grace alone"


def test_a_signal_asks_and_a_second_one_ends_a_process_that_is_deep_in_a_step() -> None:
    ended: list[int] = []
    over = threading.Event()

    def end(status: int) -> None:
        ended.append(status)
        over.set()

    with stopped_by_signals(60.0, end) as stop:
        stop.check()
        os.kill(os.getpid(), signal.SIGTERM)
        _until(lambda: stop.number == signal.SIGTERM)
        assert ended == []
        os.kill(os.getpid(), signal.SIGTERM)
        assert over.wait(5.0)
    assert ended == [143]


def test_the_end_of_the_grace_ends_it_too_and_outside_the_block_signals_are_what_they_were() -> None:
    before = signal.getsignal(signal.SIGTERM)
    ended: list[int] = []
    over = threading.Event()
    with stopped_by_signals(0.05, lambda status: (ended.append(status), over.set())[0]) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert over.wait(5.0)
    assert (ended, stop.number) == ([130], signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before
    with stopped_by_signals(0.05, ended.append) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        _until(lambda: stop.number > 0)
    threading.Event().wait(0.1)
    assert ended == [130], "who has left in time is not ended afterwards"


def _until(true: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(500):
        if true():
            return
        waiting.wait(0.01)
    raise AssertionError("it did not come to that")


def test_whoever_stops_a_learner_waits_longer_than_it_may_take(tiny_model: Path, tmp_path: Path) -> None:
    default = LearnerSection().grace_s
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["learner"]["stop_grace_period"]
    job = next(
        o for o in yaml.safe_load_all((ROOT / "deploy/kubernetes/base/learner.yaml").read_text()) if o["kind"] == "Job"
    )
    slurm = re.search(r"#SBATCH --signal=B:TERM@(\d+)", (ROOT / "docs" / "operations.md").read_text())
    assert slurm
    assert float(compose.removesuffix("s")) >= default + MARGIN_S
    assert job["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= default + MARGIN_S
    torchrun = re.search(
        r"--shutdown-timeout=(\d+)", (ROOT / "deploy/kubernetes/overlays/gpu/learner.yaml").read_text()
    )
    assert torchrun
    assert default < float(torchrun[1]) < default + MARGIN_S
    config = config_of(tiny_model, tmp_path, learner={"grace_s": 7.0})
    services = services_of(Chosen(config, RunFolder(tmp_path), place(config, [0, 1], []), True, True, False))
    assert services[-1].grace_s == 7.0 + MARGIN_S
    others = sum(service.grace_s for service in services[:-1]) + 2 * 10.0  # and the reward server's and Redis'
    assert int(slurm[1]) >= default + MARGIN_S + others, "Slurm asks `chorus run`, which stops all services in order"


def test_ranks_under_torchrun_have_as_long(tiny_model: Path, tmp_path: Path) -> None:
    config = config_of(tiny_model, tmp_path, learner={"grace_s": 50.0}, placement={"learner_ranks": 2})
    argv = services_of(Chosen(config, RunFolder(tmp_path), place(config, [0, 1], []), True, True, False))[-1].argv
    assert argv[argv.index("--shutdown-timeout") + 1] == "60"


def test_the_last_checkpoint_from_before_an_alarm_is_kept(
    client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    config = config_of(tiny_model, tmp_path, run={"steps": 7}, learner={"checkpoint_every": 1, "keep_checkpoints": 1})
    learner, parts = start(client, config, tmp_path)
    look = parts.recorder.alarms.look
    skipped = {3: 1, 4: 1, 6: 1}  # quiet until step 2, at 5 and at 7
    parts.recorder.alarms.look = lambda record: look(record | {"updates_skipped": skipped.get(record["step"], 0)})  # type: ignore[method-assign]
    learner.run()
    loadable = [checkpoints.read_manifest(path).step for path in checkpoints.loadable(tmp_path / "checkpoints")]
    assert loadable == [2, 5, 7], "before the first alarm, before the newest one, and the newest"
