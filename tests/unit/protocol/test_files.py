from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from chorus.protocol.run_folder.files import write_whole


@pytest.mark.parametrize("left", ["", "of a crash"])
def test_a_private_file_is_its_owners_alone_before_the_first_byte(
    left: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where others could read the file, or what a crash left of it."""
    path, partial = tmp_path / "secret", tmp_path / "secret.partial"
    path.write_text("older")
    if left:
        partial.write_text(left)
    modes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode)))
    write_whole(path, "word", durable=True, private=True)
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("word", 0o600)
    assert modes[0] == 0o600
