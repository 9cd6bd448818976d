"""Every refusal of every command is one line, `chorus COMMAND: what, where; the mend`, with a code of the documents.

All are called in this process: words that are wrong for any command, made from its own parameters, and a table of what
each command refuses.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from chorus.cli.main import COMMANDS, app, main
from chorus.protocol.runtime.command_line import USAGE
from chorus.protocol.runtime.exits import CANNOT_GO_ON

ROOT = Path(__file__).parents[3]
# A mend tells what to do: a clause that begins with such a word, or says what a value should be.
MEND = re.compile(
    r"(?:[;:,(] |, or | and |\. )(?:add|build|change|choose|give|go|grade|install|leave|list|lower|make|mend|move|name|"
    r"put|raise|remove|rename|run|save|see|set|simulate|start|stop|take|try|unset|use|wait|widen|write)\b|"
    r"--help lists|\b(?:should|needs|must)\b|\?$|\? ",
    re.IGNORECASE,
)
NEED_NO_FILE = ("reward-server", "check", "recipes", "completion", "templates", "slurm")  # the first would listen
RECIPE = """
[model]
path = "{model}"
context = 400
[problems]
train = ["{train}"]
max_prompt_tokens = 300
[templates]
names = ["qwen-math"]
[sampling]
max_tokens = 16
"""
Refused = Callable[..., str]


@pytest.fixture
def place(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a recipe, its model and its problems, and a run that has not trained."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").symlink_to(tiny_model)
    (tmp_path / "train.jsonl").write_text('{"problem": "1 + 1", "answer": "2"}\n')
    text = RECIPE.format(model="model", train="train.jsonl")
    (tmp_path / "song.toml").write_text(text)
    (tmp_path / "broken.toml").write_text("[model\n")
    (tmp_path / "empty.toml").write_text("")
    (tmp_path / "rows.jsonl").write_text('{"problem": "1 + 1"}\n')
    (tmp_path / "text.txt").write_bytes(b"\xff")
    return tmp_path


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    def call(*argv: str, status: int | None = None) -> str:
        ended = main(list(argv))
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, (argv, lines)
        assert ended in ((status,) if status is not None else (USAGE, CANNOT_GO_ON)), (argv, ended, lines)
        assert re.match(rf"chorus {argv[0]}( [a-z]+)?: \S", lines[0]), lines[0]
        assert MEND.search(lines[0]), f"it does not say what to do: {lines[0]}"
        return lines[0]

    return call


def commands() -> Iterator[tuple[str, ...]]:
    """All of them, and those below them."""
    with click.Context(app) as context:
        for name in COMMANDS:
            command = app.get_command(context, name)
            yield (name,)
            if isinstance(command, click.Group):
                yield from ((name, below) for below in command.commands)


def made(names: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Its least arguments, all paths of nothing; and whether it asks for any."""
    with click.Context(app) as context:
        command: click.Command | None = app.get_command(context, names[0])
    if len(names) > 1:
        assert isinstance(command, click.Group)
        command = command.commands[names[1]]
    assert command
    argv: list[str] = []
    for param in command.params:
        is_path = isinstance(param.type, click.Path)
        word = param.type.choices[0] if isinstance(param.type, click.Choice) else "/nothing/there" if is_path else "7"
        if param.required or isinstance(param, click.Argument):
            argv += [param.opts[0], str(word)] if isinstance(param, click.Option) else [str(word)]
    return [*names, *argv], [*names, "--no-such-option"]


ALL = list(commands())


@pytest.mark.parametrize("names", ALL, ids=" ".join)
def test_an_option_that_is_none_is_refused_by_every_command(names: tuple[str, ...], refused: Refused) -> None:
    assert "--no-such-option" in refused(*made(names)[1], status=USAGE)


@pytest.mark.parametrize("names", [names for names in ALL if " ".join(names) not in NEED_NO_FILE], ids=" ".join)
def test_files_that_are_not_there_are_refused_by_every_command_that_takes_one(
    names: tuple[str, ...], refused: Refused, place: Path
) -> None:
    refused(*made(names)[0])


TABLE = {
    "run": [
        ["run"],
        ["run", "song.toml", "--resume", "x"],
        ["run", "broken.toml"],
        ["run", "empty.toml"],
        ["run", "train.jsonl"],
        *(
            ["run", "song.toml", "--set", wrong]
            for wrong in (
                *("learner.lrr=1", "singing.loud=1", "model.path=nowhere/there", "model.path=train.jsonl", "learner=3"),
                *(
                    'templates.names=["nobody"]',
                    "templates.names=[]",
                    'problems.train=["nothing.jsonl"]',
                    "learner.lr=0",
                ),
                *('problems.train=["rows.jsonl"]', 'problems.train=["nothing.csv.gz"]', "objective.name=tune", "steps"),
                *("sampling.top_p=0.5", "sampling.group_size=1", "staleness.max=0", "sampling.max_tokens=9999"),
                *(
                    "problems.max_prompt_tokens=3",
                    "model.context=90000",
                    "placement.learner_cpus=[999]",
                    "run.seed.deep=2",
                ),
                *("evaluation.problems=3", "learner.updates_per_step=3", "redis.url=nonsense", "reward.shadow=nobody"),
            )
        ),
    ],
    "slurm": [
        ["slurm", "submit"],
        ["slurm", "submit", "song.toml", "--generators", "0"],
        ["slurm", "submit", "song.toml", "--set", "model.path=nowhere/there"],
        ["slurm", "submit", "--resume", "nothing"],
        ["slurm", "scale", "run", "2"],
        ["slurm", "scale", "run", "many"],
        ["slurm", "status", "run"],
        ["slurm", "cancel", "run"],
        ["slurm", "head", "run", "--host", "127.0.0.1"],
    ],
    "init": [["init", "nobody", "mine.toml"], ["init", "demo", "song.toml"]],
    "plan": [
        ["plan", "song.toml"],
        ["plan", "song.toml", "--generators", "none"],
        ["plan", "song.toml", "--steps", "0"],
    ],
    "templates": [
        ["templates", "--files", "nothing"],
        ["templates", "show", "nobody", "--problem", "1"],
        ["templates", "try", "boxed", "--completion", "nothing.txt"],
        ["templates", "try", "qwen-math", "--completion", "text.txt"],
    ],
    "starter": [["starter", "song.toml", "--set", 'templates.names=["nobody"]', "--set", "model.path=starter"]],
    "runs": [["runs", "nothing"]],
    "status": [["status", "."], ["status", "--redis", "redis://127.0.0.1:9/0"], ["status", "--redis", "nonsense"]],
    "why": [["why", "nothing"]],
    "audit": [["audit", "."]],
    "trace": [["trace", ".", "99"], ["trace", "run", "99"]],
    "replay": [["replay", "run", "--step", "1"]],
    "regrade": [["regrade", "run"], ["regrade", "run", "--steps", "many"]],
    "report": [["report", "run"], ["report", "nothing"]],
    "eval": [
        ["eval", "model", "--suite", "maths"],
        ["eval", "model", "--suite", "math", "--benchmarks", "gsm9k"],
        ["eval", "model", "--problems", "nothing.jsonl", "--top-p", "7"],
        ["eval", "run", "--problems", "train.jsonl"],
        ["eval", "model", "--problems", "train.jsonl", "--checkpoint", "9"],
        ["eval", "model", "--problems", "train.jsonl", "--hint-ratio", "2"],
    ],
    "levels": [["levels", "--small", "train.jsonl", "--out", "x"], ["levels", "--out", "x", "--write", "y"]],
    "data": [
        ["data", "rows.jsonl"],
        ["data", "train.jsonl?preset=gsm8k"],
        ["data", "train.jsonl?answer=answer|boxed"],
        ["data", "train.jsonl?where=answer=3"],
        ["data", "train.jsonl", "--templates", "qwen-math"],
        ["data", "train.jsonl", "--data", "."],
    ],
    "check-data": [["check-data", "rows.jsonl", "--against", "train.jsonl"]],
    "learner": [["learner", "--config", "song.toml", "--run-id", "x", "--run-dir", "y"]],
    "generator": [
        ["generator", "--config", "song.toml", "--run-id", "x"],
        ["generator", "--config", "song.toml", "--run-id", "x", "--cpus", "many"],
    ],
    "reward-server": [
        ["reward-server", "--recipe", "nothing.toml"],
        ["reward-server", "--port", "99999"],
        ["reward-server", "--workers", "0"],
        ["reward-server", "--reward-json", "{"],
        ["reward-server", "--templates", "nothing"],
    ],
    "prepare": [["prepare", "song.toml", "--run-dir", "train.jsonl/run", "--models", "models"]],
    "completion": [["completion", "tcsh"]],
}


@pytest.mark.parametrize("argv", [argv for rows in TABLE.values() for argv in rows], ids=" ".join)
def test_what_a_command_refuses_is_one_line_with_the_mend(argv: list[str], refused: Refused, place: Path) -> None:
    run = place / "run"
    run.mkdir()
    shutil.copy(place / "song.toml", run / "recipe.toml")
    config = {
        "model": {"path": "model", "context": 400},
        "problems": {"train": ["train.jsonl"], "max_prompt_tokens": 300},
        "templates": {"names": ["qwen-math"]},
        "sampling": {"max_tokens": 16},
    }
    (run / "config.json").write_text(json.dumps(config))
    (run / "run.json").write_text("{}")
    refused(*argv)


def rows_of_the_documents() -> list[tuple[str, str, str]]:
    """(code, of which command, example) of the table of exit codes."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    table = text[text.index("\n## Exit codes") :]
    table = table[: table.index("\n## ", 5)]
    cells = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines() if line[:3] == "| `"
    ]
    return [(code.strip("`"), who, example) for code, who, _, example in cells]


def test_the_documents_list_every_code_with_an_example_that_has_the_form() -> None:
    rows = rows_of_the_documents()
    assert {code for code, _, _ in rows} == {"0", "1", "2", "3", "64", "130", "143", "141"}
    for code, who, example in rows:
        assert re.match(r"`.+`$", example), f"code {code} of {who} has no example message"
        if code in ("2", "3", "64"):
            assert re.match(r"`chorus( [a-z-]+)?: ", example)
            assert MEND.search(example.strip("`")), example


def test_the_examples_of_wrong_words_are_what_is_said(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    called = {
        ("2", "run"): ["run", "--xyz"],
        ("2", "reward-server"): ["reward-server", "--workers", "0"],
        ("3", "run"): ["run", "nothing.toml"],
        ("64", "chorus"): ["rnu"],
    }
    examples = {
        (code, re.match(r"`chorus ?([a-z-]*):", example)): example for code, _, example in rows_of_the_documents()
    }  # type: ignore[misc]
    said = {(code, match[1] or "chorus"): example.strip("`") for (code, match), example in examples.items() if match}
    for key, argv in called.items():
        assert main(argv) == int(key[0])
        assert capsys.readouterr().err.strip() == said[key]
