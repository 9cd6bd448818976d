"""docs/design.md says what is there: its tables name every room, and every wait."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", ["protocol", "learner", "reward_server"])
def test_every_room_stands_in_its_folders_table_and_there_are_twelve_at_most(folder: str) -> None:
    rooms = {
        p.name + "/" * p.is_dir() for p in (ROOT / folder).iterdir() if p.name not in ("__pycache__", "__init__.py")
    }
    table = PAGE.partition(f"| room of `{folder}/` |")[2].partition("\n\n")[0]
    assert rooms == set(re.findall(r"`([\w/.]+)`", "\n".join(row.split("|")[1] for row in table.splitlines()[2:])))
    assert len(rooms) < 12


def test_every_wait_has_a_row() -> None:
    named = {
        name
        for folder in ("learner", "generator")
        for path in (ROOT / folder).rglob("*.py")
        for name in re.findall(r'waits\.on\(\s*"([^"]+)"', path.read_text(encoding="utf-8"))
    }
    assert len(named) >= 8
    rows = PAGE.partition("| wait |")[2].partition("\n\n")[0]
    assert {name for name in named if f"`{name}`" not in rows} == set()
