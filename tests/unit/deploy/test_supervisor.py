"""Deaths of supervised services: which are tried again, and which end the run. Real processes under real guards."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chorus.deploy import supervisor as supervisor_module
from chorus.deploy.supervisor import MAX_RESTARTS, Service, ServiceFailed, Supervisor
from chorus.protocol.runtime.exits import likeness

Start = Callable[[str], Supervisor]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Supervise one script; $N is the number of its start, from 1."""
    monkeypatch.setattr(supervisor_module, "RESTART_DELAY_S", 0.0)
    supervised = Supervisor(tmp_path, lambda _: None)

    def run(script: str) -> Supervisor:
        count = f"echo >> {tmp_path}/starts; N=$(wc -l < {tmp_path}/starts); "
        supervised.start(Service("gen-0", "generator", ("sh", "-c", count + script), {"PATH": os.environ["PATH"]}))
        return supervised

    yield run
    supervised.kill()


def failure(supervised: Supervisor, deadline_s: float = 30.0) -> ServiceFailed:
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        try:
            supervised.tick()
        except ServiceFailed as failed:
            return failed
        time.sleep(0.01)
    raise AssertionError("the run never ended")


def starts(folder: Path) -> int:
    return len((folder / "starts").read_text().splitlines())


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'IndexError: index out of range'; exit 1", "IndexError: index out of range"),
        ("echo pid $$ at 0x7f$N, port 4$N: no such token $N; exit 1", r"pid \d+ at 0x7f2, port 42: no such token 2"),
        ("exit 7", "none"),
        ("echo 'terminate called'; kill -ABRT $$", "terminate called"),
    ],
)
def test_the_same_death_again_ends_the_run_with_its_words(
    start: Start, tmp_path: Path, script: str, words: str
) -> None:
    failed = failure(start(script))
    assert starts(tmp_path) == 2
    assert failed.status == 1
    (line,) = str(failed).splitlines()
    assert line.startswith("gen-0 died twice in the same way within a minute, so a third start would not help: it ")
    assert f"(log: {tmp_path / 'gen-0.log'})" in line
    assert f"mend what they name, then go on with `chorus run --resume {tmp_path.parent}`" in line
    assert re.search(f"its last words: {words} ", line)


def test_different_deaths_are_tried_again_up_to_the_most(start: Start, tmp_path: Path) -> None:
    failed = failure(start('[ $((N % 2)) = 0 ] && echo "no route" || echo "no name"; exit 1'))
    assert starts(tmp_path) == MAX_RESTARTS + 1
    assert f"gen-0 died {MAX_RESTARTS + 1} times within 10 minutes" in str(failed)
    assert "its last words: no route (log: " in str(failed)


def test_words_of_an_earlier_start_are_not_those_of_this_one(start: Start, tmp_path: Path) -> None:
    failed = failure(start('[ "$N" = 1 ] && echo "no route"; exit 1'))
    assert starts(tmp_path) == 3, "the second was silent, and the third was like the second"
    assert "its last words: none" in str(failed)


@pytest.mark.parametrize("signal", ["KILL", "TERM"])
def test_to_be_killed_from_outside_again_and_again_is_no_fault_of_the_service(
    start: Start, tmp_path: Path, signal: str
) -> None:
    failed = failure(start(f"echo healthy; kill -{signal} $$; sleep 5"))
    assert starts(tmp_path) == MAX_RESTARTS + 1
    assert "6 times within 10 minutes" in str(failed)


def test_the_same_death_much_later_is_a_new_one(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "SAME_AGAIN_S", 0.0)
    failure(start("exit 1"))
    assert starts(tmp_path) == MAX_RESTARTS + 1


def test_exit_status_3_needs_no_second_try(start: Start, tmp_path: Path) -> None:
    assert failure(start("echo 'model.path: none there'; exit 3")).status == 3
    assert starts(tmp_path) == 1


@given(numbers=st.lists(st.integers(0), min_size=8, max_size=8))
def test_messages_that_differ_in_numbers_addresses_and_ids_alone_are_alike(numbers: list[int]) -> None:
    a, b, c, d, e, f, g, h = numbers
    text = "2026-11-22 pid {} at 0x{:x} (10.0.0.{}:{}), gen-{}-1{:x}: token {} of {}"
    assert likeness(text.format(a, b, c, d, e, f, g, h)) == likeness(text.format(h, g, f, e, d, c, b, a))


@given(one=st.from_regex(r"[g-z ]{1,12}", fullmatch=True), other=st.from_regex(r"[g-z ]{1,12}", fullmatch=True))
def test_messages_of_other_words_are_not_alike(one: str, other: str) -> None:
    assert (likeness(one) == likeness(other)) == (one.strip() == other.strip())
