"""Paths and names of folders as a recipe writes them: no shell reads it, so `~` and `$HOME` would be folders' names."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator


def _written_out(path: str) -> str:
    if path.startswith(("~", "$")):
        raise ValueError("no shell reads a recipe, so ~ and $ would be letters of a folder's name: write the path out")
    return path


def _one_name(name: str) -> str:
    if "/" in name or name in (".", ".."):
        raise ValueError("a name holds no / and is not . or ..: run.dir says in which folder runs are made")
    return name


WrittenOut = Annotated[str, AfterValidator(_written_out)]
OneName = Annotated[str, AfterValidator(_one_name)]
