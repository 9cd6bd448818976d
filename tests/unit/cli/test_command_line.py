"""`chorus` itself: its version in a blink, what it imports, what it says of words that it does not know."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence

import pytest

from chorus.cli.main import COMMANDS, main

HEAVY = ("torch", "transformers", "vllm", "fastapi", "pydantic", "redis", "numpy", "rich", "httpx")
LOADED = """
import sys
from chorus.cli.main import main
for argv in {}: main(argv)
print([name for name in {} if name in sys.modules])
"""


def loaded(called: Sequence[Sequence[str]], names: Sequence[str]) -> list[str]:
    """Which of the modules have been imported when these commands have ended, in a process of their own."""
    code = LOADED.format(list(called), list(names))
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    return json.loads(said.splitlines()[-1].replace("'", '"'))


def test_the_version_comes_in_less_than_a_third_of_a_second_of_work() -> None:
    """Counted in processor time, since other tests run beside this one."""

    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        said = subprocess.check_output([sys.executable, "-m", "chorus.cli.main", "--version"], text=True)
        assert said.startswith("chorus 0.")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 0.3


def test_what_is_no_command_s_work_imports_no_library() -> None:
    assert loaded([["--version"], ["--help"], ["completion", "bash"], ["rnu"]], HEAVY) == []


def test_help_of_services_and_of_what_uses_a_model_needs_no_torch() -> None:
    names = ("run", "learner", "generator", "reward-server", "eval", "measure-difficulty", "regrade", "audit", "replay")
    assert loaded([[name, "--help"] for name in names], ("torch", "vllm", "transformers")) == []


def test_help_lists_every_command_and_help_of_one_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert all(f"\n  {name} " in listed for name in COMMANDS)
    assert (main([]), capsys.readouterr().out) == (0, listed)
    assert main(["status", "--help"]) == 0
    assert "Examples:\n  chorus status runs/" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "status", "line"),
    [
        (["rnu"], 64, "chorus: there is no command 'rnu'. Did you mean 'run'? (chorus --help lists"),
        (["run", "--dryrun"], 2, "chorus run: No such option '--dryrun'. Did you mean '--dry-run'? (chorus run"),
        (["templates", "shwo"], 2, "chorus templates: No such command 'shwo'. Did you mean 'show'? ("),
        (["learner"], 2, "chorus learner: Missing option '--config' ("),
        (["plan", "x.toml", "--steps", "many"], 2, "chorus plan: Invalid value for '--steps': 'many' is not a valid"),
        (["check-data", "a.jsonl", "--against", "--json"], 2, "chorus check-data: --against needs at least one value"),
        (["generator", "--config", "x", "--run-id", "x", "--cpus", "9999"], 2, "'--cpus': no core 9999 here; there "),
    ],
)
def test_words_that_can_not_be_read_are_one_line_with_the_nearest_that_can(
    argv: list[str], status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == status
    (said,) = capsys.readouterr().err.splitlines()
    assert line in said


def test_an_option_takes_several_values_until_the_next_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-data", "--against", "t1.jsonl", "t2.jsonl", "--show", "3", "train.jsonl"]) == 3
    assert "train.jsonl" in capsys.readouterr().err, (
        "read first, and not there: --show took one value, the rest is ours"
    )
    assert main(["levels", "--small", "a.jsonl", "--small", "b.jsonl", "--out", "x"]) == 3
    assert main(["levels", "--small", "a.jsonl", "b.jsonl", "--out", "x"]) == 3
    once, together = capsys.readouterr().err.splitlines()
    assert once == together


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("chorus re", ["recipes", "replay", "regrade", "report", "reward-server"]),
        ("chorus replay --st", ["--step"]),
        ("chorus levels --both-partial ", ["L1", "L2"]),
    ],
)
def test_a_shell_completes_commands_options_and_choices(words: str, offered: list[str]) -> None:
    environment = {
        **os.environ,
        "_CHORUS_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    said = subprocess.check_output([sys.executable, "-m", "chorus.cli.main"], text=True, env=environment)
    assert [line.partition(",")[2] for line in said.splitlines()] == offered


def test_the_script_for_a_shell_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    assert "_CHORUS_COMPLETE=bash_complete" in capsys.readouterr().out
