"""The launcher with a real Valkey and real guards; scripts stand in for generators and the learner."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

RECIPE = """
[run]
dir = "{dir}"
[model]
path = "any"
[problems]
train = ["any"]
[templates]
names = ["any"]
[reward]
url = "http://127.0.0.1:9"
"""

# Runs a recipe with shell scripts for services. $RUN is the run's folder; every start appends to $RUN/starts.
LAUNCH = """
import sys
from pathlib import Path
import chorus.deploy.supervisor
from chorus.deploy.launcher import run
from chorus.deploy.services import Chosen
from chorus.deploy.supervisor import Service
from chorus.protocol.config.load import load_config
from chorus.protocol.runtime.exits import CannotGoOn

chorus.deploy.supervisor.RESTART_DELAY_S = 0.1

def scripted(chosen: Chosen) -> list[Service]:
    env = {"PATH": "/usr/bin:/bin", "RUN": str(chosen.run.path)}
    record = 'echo "$0 $$ $*" >> "$RUN/starts"; '
    def service(name, script, **more):
        return Service(name, name, ("sh", "-c", record + script, name), env, grace_s=2.0, **more)
    return [
        service("generator", GENERATOR),
        service("learner", LEARNER, again=("--resume",), ends_run=True),
    ]

GENERATOR, LEARNER = sys.argv[2:4]
resume = Path(sys.argv[4]) if len(sys.argv) > 4 else None
try:
    config = load_config(Path(sys.argv[1]) if resume is None else resume / "config.json")
    sys.exit(run(config, sys.argv[1], resume=resume, services=scripted))
except CannotGoOn as error:
    sys.exit(f"chorus run: {error}")
"""

FOREVER = "while :; do sleep 0.05; done"
UNTIL_TOLD = 'until [ -e "$RUN/end" ]; do sleep 0.05; done'


class Launch:
    """A launcher in a process of its own."""

    def __init__(self, folder: Path, generator: str, learner: str, resume: Path | None = None) -> None:
        self.runs = folder / "runs"
        recipe = folder / "song.toml"
        recipe.write_text(RECIPE.format(dir=self.runs))
        before = set(self.runs.glob("song-*"))
        argv = [
            sys.executable,
            "-c",
            LAUNCH,
            str(recipe),
            generator,
            learner,
            *([str(resume)] if resume else []),
        ]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._run_dir, self._before = resume, before

    @property
    def run_dir(self) -> Path:
        if self._run_dir is None:
            eventually(lambda: bool(set(self.runs.glob("song-*")) - self._before), "there is a run folder")
            self._run_dir = (set(self.runs.glob("song-*")) - self._before).pop()
        return self._run_dir

    def starts(self, name: str) -> list[tuple[int, str]]:
        """(pid, arguments) of each start of a service so far."""
        path = self.run_dir / "starts"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(pid), rest) for who, pid, rest in (line.split(" ", 2) for line in lines) if who == name]

    def started(self, name: str, times: int = 1) -> int:
        eventually(lambda: len(self.starts(name)) >= times, f"{name} was started {times} times")
        return self.starts(name)[times - 1][0]

    def end(self) -> tuple[int, str]:
        output, _ = self.process.communicate(timeout=30)
        return self.process.returncode, output

    def redis_port(self) -> int:
        return urlsplit(json.loads((self.run_dir / "config.json").read_text())["redis"]["url"]).port or 0


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Launch]]:
    launched: list[Launch] = []

    def start(generator: str = FOREVER, learner: str = UNTIL_TOLD, resume: Path | None = None) -> Launch:
        launched.append(Launch(tmp_path, generator, learner, resume))
        return launched[-1]

    yield start
    for each in launched:
        each.process.kill()
        each.process.wait()


def eventually(condition: Callable[[], bool], what: str, deadline_s: float = 20.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def leaves_nothing(run: Launch) -> None:
    pids = [pid for name in ("generator", "learner") for pid, _ in run.starts(name)]
    eventually(lambda: not any(alive(pid) for pid in pids), "all services are gone")
    eventually(lambda: not listens(run.redis_port()), "Redis's port is free")


def test_a_run_ends_with_its_learner_and_leaves_nothing(launch: Callable[..., Launch]) -> None:
    run = launch()
    run.started("generator")
    run.started("learner")
    assert listens(run.redis_port())
    (run.run_dir / "end").touch()
    status, output = run.end()
    assert status == 0, output
    leaves_nothing(run)
    told = json.loads((run.run_dir / "run.json").read_text())
    assert abs(told["started_at"] - time.time()) < 60


def test_each_run_gets_a_folder_of_its_own(launch: Callable[..., Launch]) -> None:
    first, second = launch(learner="exit 0"), None
    assert first.end()[0] == 0
    folder = first.run_dir
    second = launch(learner="exit 0")
    assert second.end()[0] == 0
    assert second.run_dir != folder
    assert {folder.name[:5], second.run_dir.name[:5]} == {"song-"}


def test_a_killed_generator_is_started_again_as_it_was(launch: Callable[..., Launch]) -> None:
    run = launch()
    os.kill(run.started("generator"), signal.SIGKILL)
    run.started("generator", times=2)
    (run.run_dir / "end").touch()
    status, output = run.end()
    assert status == 0, output
    assert "generator was killed by signal 9; restart 1 of at most 5" in output
    assert [arguments for _, arguments in run.starts("generator")] == ["", ""]
    assert len(run.starts("learner")) == 1


def test_a_killed_learner_is_resumed(launch: Callable[..., Launch]) -> None:
    run = launch()
    os.kill(run.started("learner"), signal.SIGKILL)
    run.started("learner", times=2)
    (run.run_dir / "end").touch()
    assert run.end()[0] == 0
    assert [arguments for _, arguments in run.starts("learner")] == ["", "--resume"]


def test_a_killed_redis_comes_back_with_its_data(launch: Callable[..., Launch]) -> None:
    import redis

    run = launch()
    run.started("learner")
    client = redis.Redis.from_url(json.loads((run.run_dir / "config.json").read_text())["redis"]["url"])
    client.set("book", "kept")
    os.kill(int(client.info("server")["process_id"]), signal.SIGKILL)  # type: ignore[index]
    eventually(lambda: not listens(run.redis_port()), "Redis is dead")
    eventually(lambda: listens(run.redis_port()), "Redis is back")

    def kept() -> bool:
        try:
            return client.get("book") == b"kept"
        except redis.RedisError:
            return False

    eventually(kept, "the data is there")
    (run.run_dir / "end").touch()
    assert run.end()[0] == 0


def test_exit_status_3_ends_the_run_with_the_last_words(launch: Callable[..., Launch]) -> None:
    run = launch(generator="echo 'model.path: there is no such model'; exit 3")
    status, output = run.end()
    assert status == 3
    assert "chorus run: generator: model.path: there is no such model (log: " in output
    assert len(run.starts("generator")) == 1
    assert "Traceback" not in output
    leaves_nothing(run)


def test_a_service_that_dies_in_the_same_way_again_ends_the_run(launch: Callable[..., Launch]) -> None:
    run = launch(generator="echo $$: out of memory at 0x$$; exit 1")
    status, output = run.end()
    assert status == 1
    assert "generator died twice in the same way within a minute" in output
    assert "its last words: " in output
    assert ": out of memory at 0x" in output
    assert f"`chorus run --resume {run.run_dir}`" in output
    assert len(run.starts("generator")) == 2
    leaves_nothing(run)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_learner_before_the_generators(
    launch: Callable[..., Launch], number: signal.Signals
) -> None:
    farewell = 'trap \'sleep 0.2; echo "$0" >> "$RUN/farewells"; exit 0\' TERM; '
    run = launch(generator=farewell + FOREVER, learner=farewell + FOREVER)
    run.started("generator")
    run.started("learner")
    time.sleep(0.3)  # until the traps are set
    run.process.send_signal(number)
    status, output = run.end()
    assert status == 128 + number
    assert "Traceback" not in output
    assert (run.run_dir / "farewells").read_text().split() == ["learner", "generator"]
    assert f"chorus run --resume {run.run_dir}" in output
    leaves_nothing(run)


def test_what_ignores_the_signal_is_killed_after_its_grace(launch: Callable[..., Launch]) -> None:
    run = launch(learner="trap '' TERM; " + FOREVER)
    run.started("learner")
    time.sleep(0.3)
    run.process.send_signal(signal.SIGTERM)
    assert run.end()[0] == 128 + signal.SIGTERM
    leaves_nothing(run)


def test_a_killed_launcher_leaves_no_orphans_and_can_be_resumed(launch: Callable[..., Launch]) -> None:
    run = launch(generator="trap '' TERM; " + FOREVER)
    run.started("generator")
    run.started("learner")
    started = json.loads((run.run_dir / "run.json").read_text())["started_at"]
    run.process.kill()
    run.process.wait()
    leaves_nothing(run)

    again = launch(resume=run.run_dir)
    again.started("learner", times=2)
    (run.run_dir / "end").touch()
    status, output = again.end()
    assert status == 0, output
    assert json.loads((run.run_dir / "run.json").read_text())["started_at"] == started
    leaves_nothing(again)


def test_a_resume_that_is_refused_before_its_learner_begins_leaves_the_configuration_as_it_was(
    launch: Callable[..., Launch], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = launch(learner="true")
    assert run.end()[0] == 0
    before = (run.run_dir / "config.json").read_bytes()
    monkeypatch.setenv("CHORUS_SAMPLING__MAX_TOKENS", "16")
    refused = launch(learner="echo step 4 can not be trained again; exit 3", resume=run.run_dir)
    status, output = refused.end()
    assert (status, "step 4 can not be trained again" in output) == (3, True)
    assert (run.run_dir / "config.json").read_bytes() == before


def test_an_unreachable_redis_is_one_clear_line(tmp_path: Path) -> None:
    recipe = tmp_path / "song.toml"
    recipe.write_text(RECIPE.format(dir=tmp_path) + '[redis]\nurl = "redis://127.0.0.1:9/0"\n')
    done = subprocess.run(
        [sys.executable, "-c", LAUNCH, str(recipe), FOREVER, FOREVER],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "chorus run: redis.url redis://127.0.0.1:9/0: " in done.stderr
    assert "Traceback" not in done.stderr
