"""docs/operations.md says of every key whether it may change at resume, and names no key that there is not."""

from __future__ import annotations

import re
from pathlib import Path

from chorus.protocol.config.run import RunConfig

PAGE = Path(__file__).parents[3] / "docs" / "operations.md"
KEYS = {
    f"{section}.{key}"
    for section, field in RunConfig.model_fields.items()
    for key in field.annotation.model_fields  # type: ignore[union-attr]
}


def rows() -> list[tuple[list[str], str, str]]:
    table = PAGE.read_text(encoding="utf-8").partition("## What may change at resume")[2].partition("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:3] == "| `"]
    return [(re.findall(r"`([^`]+)`", keys), may, holds) for keys, may, holds in cells]


def test_every_key_has_one_row() -> None:
    named = [key for keys, _, _ in rows() for key in keys]
    assert len(named) == len(set(named))
    single = {key for key in named if not key.endswith(".*")}
    assert single <= KEYS
    sections = {key.removesuffix(".*") for key in named if key.endswith(".*")}
    assert sections <= set(RunConfig.model_fields)
    assert {key for key in KEYS - single if key.partition(".")[0] not in sections} == set()
    for section in sections:
        assert {key for key in KEYS - single if key.partition(".")[0] == section}, f"{section}.* covers nothing more"


def test_every_row_says_whether_and_from_when() -> None:
    assert len(rows()) > 30
    for keys, may, holds in rows():
        assert may, keys
        assert holds or may.startswith(("no", "without effect")), keys
