"""docs/grading.md: every example of its tables has the verdict that the page gives it, in every mode."""

import re
from pathlib import Path

import pytest
from kinds import SENTENCE, verdict

PAGE = Path(__file__).parents[3] / "docs" / "grading.md"
MODES = ("train", "strict", "paper")


def _rows() -> list[tuple[str, str, str, str, bool]]:
    """(kind, completion, gold, mode, accepted) of the page's two tables of examples."""
    found: list[tuple[str, str, str, str, bool]] = []
    columns: list[str] = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not cells:
            columns = []
        elif not columns:
            columns = cells
        elif "gold" in columns and not set(cells[0]) <= set("- "):
            row = dict(zip(columns, cells, strict=True))
            text, gold = (row[name].strip("`").replace("\\|", "|") for name in (columns[2], "gold"))
            boxed = columns[2] == "answer"
            kind = "math" if boxed else row["kind"]
            found += [(kind, SENTENCE % text if boxed else text, gold, mode, row[mode] == "a") for mode in MODES]
    return found


ROWS = _rows()


def test_the_page_has_an_example_of_each_verdict_in_each_mode():
    assert len(ROWS) >= 3 * 50
    assert {(mode, accepted) for _, _, _, mode, accepted in ROWS} == {(m, a) for m in MODES for a in (True, False)}


@pytest.mark.parametrize(("kind", "completion", "gold", "mode", "accepted"), ROWS)
def test_an_example_of_the_page_has_its_verdict(kind, completion, gold, mode, accepted):
    assert (verdict(completion, gold, kind, mode) == "correct") is accepted
