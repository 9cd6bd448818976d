"""CHORUS_LOG: lines for people by default, one JSON object a line for machines, whatever is logged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chorus.protocol.runtime.logs import message_of

ROOT = Path(__file__).parents[3]


def python(code: str, chorus_log: str = "") -> subprocess.CompletedProcess[str]:
    """In a process of its own: the root logger belongs to the test runner here."""
    environment = os.environ | {"CHORUS_LOG": chorus_log}
    program = "import logging, warnings\nfrom chorus.protocol.runtime import logs\n" + code
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)


def objects(text: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in text.splitlines()]


def test_by_default_lines_are_for_people() -> None:
    said = python("logs.set_up('learner')\nlogging.getLogger('chorus.learner').info('step %d', 3)").stderr
    assert said.endswith("chorus.learner INFO step 3\n")


def test_json_lines_say_time_level_logger_role_run_version_and_message() -> None:
    code = (
        "logs.set_up('learner')\n"
        "log = logging.getLogger('chorus.learner')\n"
        "log.info('early')\n"
        "logs.tell(run='demo-1')\n"
        "logs.tell(version='1.12')\n"
        "log.warning('a \"quoted\"\\nword: %s', 'é')"
    )
    early, late = objects(python(code, "json").stderr)
    assert early["role"] == "learner"
    assert "run" not in early
    at = datetime.fromisoformat(late.pop("time"))
    assert datetime.now(UTC) - at < timedelta(minutes=2)
    assert late == {
        "level": "WARNING",
        "logger": "chorus.learner",
        "role": "learner",
        "run": "demo-1",
        "version": "1.12",
        "message": 'a "quoted"\nword: é',
    }


def test_an_error_a_warning_and_the_last_word_are_objects_too() -> None:
    code = (
        "logs.set_up('learner')\n"
        "try:\n  1 / 0\nexcept ZeroDivisionError:\n  logging.getLogger('x').exception('failed')\n"
        "warnings.warn('old', stacklevel=1)\n"
        "logs.last_word('chorus learner: no model')\n"
        "raise ValueError('unforeseen')"
    )
    ended = python(code, "json")
    failed, warned, last, uncaught = objects(ended.stderr)
    assert "ZeroDivisionError" in failed["exception"]
    assert "old" in warned["message"]
    assert last["message"] == "chorus learner: no model"
    assert "unforeseen" in uncaught["message"]
    assert "Traceback" in uncaught["exception"]
    assert ended.returncode == 1


def test_an_error_in_a_thread_is_an_object() -> None:
    code = "import threading\nlogs.set_up('x')\nt = threading.Thread(target=lambda: 1 / 0)\nt.start()\nt.join()"
    [said] = objects(python(code, "json").stderr)
    assert "ZeroDivisionError" in said["exception"]


@pytest.mark.parametrize(("value", "levels"), [("json,debug", ["DEBUG", "ERROR"]), ("ERROR json", ["ERROR"])])
def test_json_and_a_level_go_together(value: str, levels: list[str]) -> None:
    code = "logs.set_up('x')\nlogging.debug('a')\nlogging.error('b')"
    assert [said["level"] for said in objects(python(code, value).stderr)] == levels


def test_a_value_that_means_nothing_is_refused_with_what_would() -> None:
    command = [sys.executable, "-m", "chorus.cli.main", "templates"]
    environment = os.environ | {"CHORUS_LOG": "jsn"}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert ended.returncode == 3
    assert ended.stderr.startswith("chorus templates: CHORUS_LOG=jsn: unknown; give json, a level (DEBUG, ")


def test_a_command_that_can_not_go_on_says_so_in_json_on_one_line() -> None:
    command = [sys.executable, "-m", "chorus.cli.main", "audit"]
    environment = os.environ | {"CHORUS_LOG": "json"}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    [said] = objects(ended.stderr)
    assert said["role"] == "audit"
    assert said["message"].startswith("chorus audit: give a run's folder")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"level": "ERROR", "message": "chorus learner: no model"}', "chorus learner: no model"),
        ("chorus learner: no model", "chorus learner: no model"),
        ("[1, 2]", "[1, 2]"),
        ('{"a": 1}', '{"a": 1}'),
    ],
)
def test_what_a_line_says_can_be_read_from_either_form(line: str, message: str) -> None:
    assert message_of(line) == message


def test_a_last_word_that_finds_no_room_leaves_the_exit_code_as_it_is() -> None:
    program = "import sys\nfrom chorus.protocol.runtime import logs\nlogs.last_word('no room')\nsys.exit(3)\n"
    with open("/dev/full", "w") as full:
        assert subprocess.run([sys.executable, "-c", program], stderr=full, timeout=30).returncode == 3
