"""Who reads a command's output may leave: a run goes on and says so, a listing ends without a word."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from chorus.protocol.runtime.pipes import ENDED

# Prints to a reader that is gone after its first line; `done` is written when the work is.
PROGRAM = """
import sys
from pathlib import Path
from chorus.protocol.runtime.pipes import readers_may_leave
with readers_may_leave(goes_on={goes_on}, name="chorus run"):
    for n in range(20_000):
        print("line", n)
    {more}
    Path({done!r}).write_text("")
"""


def first_line_of(argv: list[str], cwd: Path) -> tuple[str, int, str]:
    """What `argv | head -1` gives: the line, the command's status, and what it said on stderr."""
    command = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd)
    assert command.stdout is not None
    line = command.stdout.readline()
    command.stdout.close()
    assert command.stderr is not None
    errors = command.stderr.read()
    return line, command.wait(60), errors


@pytest.mark.parametrize("more", ["pass", "sys.stdout.writelines(['more'] * 9); sys.stdout.flush()"])
def test_work_goes_on_when_nobody_reads_and_says_so_once(tmp_path: Path, more: str) -> None:
    program = PROGRAM.format(goes_on=True, more=more, done=str(tmp_path / "done"))
    line, status, errors = first_line_of([sys.executable, "-c", program], tmp_path)
    assert (line, status) == ("line 0\n", 0)
    assert errors == "chorus run: nobody reads its output any more; it goes on\n"
    assert (tmp_path / "done").exists()


def test_a_listing_ends_without_a_word(tmp_path: Path) -> None:
    program = PROGRAM.format(goes_on=False, more="pass", done=str(tmp_path / "done"))
    line, status, errors = first_line_of([sys.executable, "-c", program], tmp_path)
    assert (line, status, errors) == ("line 0\n", ENDED, "")
    assert not (tmp_path / "done").exists()


def test_a_last_line_that_nobody_reads_is_no_traceback(tmp_path: Path) -> None:
    """It lies in the buffer until the very end."""
    program = PROGRAM.format(goes_on=False, more="pass", done="done").replace("20_000", "1")
    command = subprocess.Popen(
        [sys.executable, "-c", f"input()\n{program}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert command.stdout is not None
    command.stdout.close()
    _, errors = command.communicate("go\n", timeout=60)
    assert (command.returncode, errors) == (ENDED, "")


def test_an_error_is_told_although_nobody_reads_the_output(tmp_path: Path) -> None:
    program = PROGRAM.format(goes_on=True, more="raise ValueError('lost')", done="done")
    _, status, errors = first_line_of([sys.executable, "-c", program], tmp_path)
    assert status == 1
    assert errors.rstrip().endswith("ValueError: lost")


@pytest.mark.parametrize("argv", [["--help"], ["runs", "runs"]])
def test_commands_that_list_end_quietly(tmp_path: Path, argv: list[str]) -> None:
    (tmp_path / "runs").mkdir()
    command = subprocess.Popen(
        [sys.executable, "-m", "chorus.cli.main", *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    )
    assert command.stdout is not None
    command.stdout.close()
    _, errors = command.communicate(timeout=60)
    assert (command.returncode, errors) == (ENDED, b"")
