"""The short form of `make chaos`: 30 seconds, one card of the deck after the other, then the audit."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from chaos import KINDS, faults_of, torment


@pytest.mark.slow
def test_a_run_under_random_faults_loses_nothing_trains_nothing_twice_and_ends(tmp_path: Path) -> None:
    report = torment(tmp_path, seconds=30.0, seed=5, every=(2.0, 3.0), pause=(3.5, 5.0), kinds=[*KINDS])
    assert faults_of(report, least_steps=6) == [], report
    assert report["ungraded_samples"] == 0
    assert len(report["faults"]) >= 4, "else this was no chaos"
