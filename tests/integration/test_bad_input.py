"""Bad input ends in one clear line that says what, where and the mend, and in an exit status that is not 0."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from chorus.cli.main import main
from chorus.protocol.ledger import Keys
from chorus.protocol.runtime.exits import CANNOT_GO_ON

RECIPE = """
[run]
dir = "{runs}"
[model]
path = "{model}"
dtype = "float32"
context = 200
[problems]
train = ["{problems}"]
max_prompt_tokens = 150
[templates]
names = ["qwen-math"]
[sampling]
max_tokens = 32
[reward]
url = "http://127.0.0.1:9"
"""
Refused = Callable[..., str]
NOBODY = "redis://127.0.0.1:9/0"


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Path) -> Path:
    problems = tmp_path / "problems.jsonl"
    problems.write_text('{"problem": "1 + 1", "answer": "2"}\n{"problem": "1 + 2", "answer": "3"}\n')
    path = tmp_path / "song.toml"
    path.write_text(RECIPE.format(runs=tmp_path / "runs", model=tiny_model, problems=problems))
    return path


@pytest.fixture
def refused(recipe: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Refused]:
    """Call a command that must end with one line and status 3; returns the line."""

    def call(*argv: object) -> str:
        status = main([str(part) for part in argv])
        lines = capsys.readouterr().err.strip().splitlines()
        assert status == CANNOT_GO_ON, lines
        assert len(lines) == 1, lines
        assert lines[0].startswith(f"chorus {argv[0]}: ")
        return lines[0]

    yield call
    assert not (recipe.parent / "runs").exists(), "refused before a run's folder is made"


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("learner.lrr=1", "learner.lrr is not a known key; known here: adam_eps, betas, "),
        ("singing.loud=1", "singing is not a known key; known here: alarms, curriculum, doctor, evaluation, "),
        ("sampling.top_p=0.9", "sampling.top_p is 0.9; training needs 1.0, because"),
        ("sampling.group_size=1", "sampling.group_size is 1; a group needs at least 2 samples"),
        ("learner.lr", "--set learner.lr: write it as section.key=value"),
        ("learner.lr=fast", "learner.lr: Input should be a valid number"),
        ("learner.lr=inf", "learner.lr: Input should be a finite number"),
        ("run.seed.deep=1", "run.seed: Input should be a valid integer"),
        ("learner=3", "learner: Input should be a valid dictionary"),
        ("objective.name=tune", "--set objective.name=tune: objective.name 'tune' is unknown; known: cispo, dapo, "),
        ("sampling.max_tokens=900", "+ sampling.max_tokens (900) exceed model.context (200): lower one or raise"),
        ('templates.names=["nobody"]', "templates.names: nobody unknown; known: abel, "),
        ('templates.files=["none.toml"]', "templates.files: template none.toml: no such file or folder"),
        ('problems.train=["none.jsonl"]', "problems.train: problems 'none.jsonl': no such file"),
        ('problems.train=["none.txt"]', "unknown kind of source; give a .jsonl, "),
        ("model.path=./none", "model.path ./none: no such folder; give a Hugging Face folder, a hub name, or"),
        (f"redis.url={NOBODY}", f"redis.url {NOBODY}: Error 111 connecting to 127.0.0.1:9"),
        ("redis.url=localhost", "redis.url: 'localhost' has no scheme; write it as redis://localhost:6379/0"),
    ],
)
def test_a_recipe_that_can_not_be_right_is_refused(recipe: Path, given: str, line: str, capsys: object) -> None:
    status = main(["run", str(recipe), "--set", given])
    told = capsys.readouterr().err.strip().splitlines()  # type: ignore[attr-defined]
    assert status == CANNOT_GO_ON
    assert len(told) == 1
    assert line in told[0]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[run\n", "song.toml: Expected ']' at the end of a table declaration (at line 1, column 5)"),
        ("", "song.toml: model is missing; problems is missing; templates is missing"),
        ("[run]\nsteps = 3\nsteps = 4\n", "song.toml: Cannot overwrite a value (at line 3"),
    ],
)
def test_a_recipe_that_can_not_be_read_is_refused_with_its_line(
    recipe: Path, text: str, line: str, refused: Refused
) -> None:
    recipe.write_text(text)
    assert line in refused("run", recipe)


def test_a_recipe_that_is_not_there_is_refused(recipe: Path, refused: Refused) -> None:
    assert "nothing.toml: can't be read (No such file or directory); give the path" in refused("run", "nothing.toml")
    assert "can't be read (Is a directory)" in refused("run", recipe.parent)


def test_two_values_for_one_key_are_refused(recipe: Path, refused: Refused) -> None:
    line = refused("run", recipe, "--set", "run.seed=1", "--set", "run.seed.deep=2")
    assert "--set run.seed.deep=2: seed has a value already" in line


def test_an_environment_variable_that_is_no_section_is_refused(
    recipe: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHORUS_LEARNER", "fast")
    line = refused("run", recipe)
    assert "CHORUS_LEARNER: this names a section" in line
    assert "name a key as CHORUS_LEARNER__KEY, or give the section as JSON" in line


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_model_folder_that_lacks_a_file_is_refused(
    recipe: Path, tmp_path: Path, tiny_model: Path, name: str, refused: Refused
) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / name).unlink()
    line = refused("run", recipe, "--set", f"model.path={model}")
    assert f"model.path {model}: there is no {name} in it; give a Hugging Face folder with" in line


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ('{"problem": "2 + 2"}', "problems.jsonl:3: the row has no answer; give `answer` or `answers`"),
        ('{"problem": "2 + 2", "answer": " "}', "problems.jsonl:3: the row has no answer"),
        ('{"problem": "add", "kind": "code", "answer": "1"}', "problems.jsonl:3: kind 'code' is graded by tests; give"),
        ('{"problem": "add", "kind": "code", "tests": "[1"}', "problems.jsonl:3: tests: Expecting"),
        ('{"answer": "2"}', "problems.jsonl:3: the row has no problem"),
        ('{"problem": ', "problems.jsonl:3: not valid JSON"),
        ("[1]", "problems.jsonl:3: a row must be an object"),
    ],
)
def test_a_problem_that_can_not_be_used_is_refused_with_file_and_line(
    recipe: Path, row: str, line: str, refused: Refused
) -> None:
    problems = recipe.with_name("problems.jsonl")
    problems.write_text(problems.read_text() + row + "\n")
    assert line in refused("run", recipe)


def test_a_truncated_archive_of_problems_is_refused(recipe: Path, tmp_path: Path, refused: Refused) -> None:
    import gzip

    archive = tmp_path / "problems.jsonl.gz"
    archive.write_bytes(gzip.compress(b'{"problem": "1 + 1", "answer": "2"}\n' * 99)[:-9])
    assert "can't be read after line" in refused("run", recipe, "--set", f'problems.train=["{archive}"]')


def test_a_folder_that_is_no_run_can_not_be_resumed_or_audited(recipe: Path, tmp_path: Path, refused: Refused) -> None:
    assert "there is no config.json in it; give the folder of a run" in refused("run", "--resume", tmp_path)
    assert "no summary.json; give the folder of a run that has ended" in refused("audit", tmp_path)
    (tmp_path / "summary.json").write_text("{}")
    assert "not the summary of a run ('ledger')" in refused("audit", tmp_path)
    (tmp_path / "summary.json").write_text("{")
    assert "not the summary of a run" in refused("audit", tmp_path)


@pytest.mark.parametrize(("url", "why"), [(NOBODY, "Connection refused"), ("localhost", "write it as redis://")])
def test_an_unreachable_redis_is_one_line_from_every_command(
    recipe: Path, url: str, why: str, refused: Refused
) -> None:
    service = ("--config", recipe, "--run-id", "x", "--set", f"redis.url={url}")
    for argv in (
        ("audit", "--redis", url),
        ("status", "--redis", url),
        ("learner", *service, "--run-dir", recipe.parent),
        ("generator", *service),
    ):
        line = refused(*argv)
        assert url in line
        assert why in line


def test_a_run_that_is_not_on_the_server_is_one_line(redis_url: str, refused: Refused) -> None:
    for command in ("status", "audit", "why"):
        assert "no run has a ledger on" in refused(command, "--redis", redis_url)
    assert "run 'ghost' has no ledger on this Redis" in refused("audit", "--redis", redis_url, "ghost")


def test_an_unreachable_reward_server_is_refused_at_the_start(
    recipe: Path, redis_url: str, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chorus.generator.main._REWARD_SERVER_DEADLINE_S", 0.5)
    line = refused("generator", "--config", recipe, "--run-id", "x", "--set", f"redis.url={redis_url}")
    assert "reward.url http://127.0.0.1:9: no connection, for 0.5 s; start `chorus reward-server`" in line


def test_a_port_in_use_is_one_line_of_the_reward_server(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["reward-server", "--port", str(port), "--workers", "1"]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use; is another server running there?" in line


# The real learner, a generator that never comes, under the real launcher.
LAUNCH = """
import sys
from pathlib import Path
from chorus.deploy.launcher import run
from chorus.deploy.services import services_of
from chorus.protocol.config.load import load_config

config = load_config(Path(sys.argv[1]))
sys.exit(run(config, sys.argv[1], services=lambda chosen: services_of(chosen)[-1:]))
"""


def test_a_redis_wiped_in_the_middle_ends_the_whole_run_in_seconds(recipe: Path) -> None:
    launched = subprocess.Popen(
        [sys.executable, "-c", LAUNCH, str(recipe)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        run_dir, client = _learner_waits(recipe.parent / "runs", launched)
        assert client.exists(Keys(run_dir.name).fence)
        client.flushall()
        wiped = time.monotonic()
        output, _ = launched.communicate(timeout=60)
        assert time.monotonic() - wiped < 20
    finally:
        launched.kill()
    assert launched.returncode == CANNOT_GO_ON, output
    line = next(line for line in output.splitlines() if line.startswith("chorus run: "))
    assert line.startswith("chorus run: learner: chorus learner: the ledger of run")
    assert "was the server flushed or replaced? Start a new run" in line
    assert "Traceback" not in output


def _learner_waits(runs: Path, launched: subprocess.Popen[str]) -> tuple[Path, redis.Redis]:
    end = time.monotonic() + 60
    while time.monotonic() < end and launched.poll() is None:
        for status in runs.glob("song-*/status.json"):
            if json.loads(status.read_text())["phase"] == "waiting":
                config = json.loads((status.parent / "config.json").read_text())
                return status.parent, redis.Redis.from_url(config["redis"]["url"])
        time.sleep(0.1)
    raise AssertionError("the learner never came to wait for a generator")
