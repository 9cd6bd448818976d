"""What `chorus run` says when its builder of the starter policy is too slow."""

from __future__ import annotations

from pathlib import Path

import pytest

from chorus.deploy import launcher
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.runtime.processes import spawn_guarded


def test_a_starter_that_takes_too_long_is_told_with_the_mend_and_its_builder_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def slow(argv: list[str], *, name: str, log: Path, env: dict[str, str]) -> object:
        started.append(spawn_guarded(["sleep", "600"], name=name, log=log, env=env))
        return started[0]

    monkeypatch.setattr(launcher, "spawn_guarded", slow)
    monkeypatch.setattr(launcher, "STARTER_DEADLINE_S", 0.2)
    (tmp_path / "logs").mkdir()
    with pytest.raises(CannotGoOn, match=r"not built within 0.2 s.*build it apart with `chorus starter .*config.json"):
        launcher._build_starter(RunFolder(tmp_path), tmp_path / "cache", lambda _: None)
    assert started[0].poll() is not None
