"""The list of breakages: what each changes, and which tests must fail then.

[[breakage]]
name = "commit: a twin is not refused"          # unique; ONLY= chooses by a part of it
file = "protocol/ledger/scripts.py"
text = "== 0 then return 0 end"                  # stands exactly once in the file
instead = "== 2 then return 0 end"
fails = ["tests/unit/protocol/test_ledger.py::test_a_twin_s_commit_is_refused"]     # node ids or files
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

LISTS = Path(__file__).parent / "breakages"


class Unusable(Exception):
    """A breakage that can't be tried as it is written: it has to be mended first."""


@dataclass(frozen=True)
class Breakage:
    name: str
    file: str
    text: str
    instead: str
    fails: list[str]

    def applied(self, source: str) -> str:
        """The file's text with the breakage in it. Raises Unusable where its text does not stand there once."""
        found = source.count(self.text)
        if found != 1:
            raise Unusable(f"{self.name}: {self.text!r} stands {found} times in {self.file}, not once: mend its text")
        return source.replace(self.text, self.instead)

    @property
    def module(self) -> str:
        """The name that the file is imported by."""
        return ".".join(["chorus", *Path(self.file).with_suffix("").parts]).removesuffix(".__init__")


def read_breakages() -> list[Breakage]:
    """All lists, in the order of their files' names."""
    files = sorted(LISTS.glob("*.toml"))
    return [Breakage(**entry) for file in files for entry in tomllib.loads(file.read_text())["breakage"]]


def covered(named: str, tests: list[str]) -> bool:
    """Whether `named`, a file or a node id with or without its parameters, is among the node ids `tests`."""
    return any(id == named or id.startswith((f"{named}::", f"{named}[")) for id in tests)
