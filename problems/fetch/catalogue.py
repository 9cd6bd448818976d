"""What can be fetched, as data: catalogues/NAME.toml. One's own is a file: `chorus fetch mine.toml`.

title = "..."

[[set]]
name = "eval_aime24"              its file is eval_aime24.jsonl.gz
licence = "..."
rows = 30                         that a mirror must have
usable = 30                       of them (default: all); what is lost beyond a hundredth is refused, the rest is said

[[set.mirror]]                    tried in this order
hub = "owner/name"                a data set on the Hugging Face hub, or
github = "owner/name"             a repository (`lfs = true`: the file lies in Git LFS), or
url = "https://..."               any address
revision = "..."                  a whole commit, of hub and github
path = "data/train.parquet"       of the file there
columns = "problem=question"      how its rows are read: the options of a source, docs/problems.md
sha256 = "..."                    where it is known; where not, that of the first download holds from then on
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path, PurePosixPath
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from chorus.protocol.runtime.exits import CannotGoOn

PACKAGE_CATALOGUES = Path(__file__).parent / "catalogues"
_STRICT = ConfigDict(frozen=True, extra="forbid")
_Commit = Annotated[str, Field(pattern=r"^([0-9a-f]{40})?$")]


class Mirror(BaseModel):
    """One place of a set's rows."""

    model_config = _STRICT

    hub: str = ""
    github: str = ""
    url: str = ""
    revision: _Commit = ""
    path: str = ""
    lfs: bool = False
    columns: str = ""
    sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")

    @model_validator(mode="after")
    def _is_one_place(self) -> Self:
        if sum(map(bool, (self.hub, self.github, self.url))) != 1:
            raise ValueError("a mirror is one of hub, github and url; name one")
        if not self.url and not (self.revision and self.path):
            raise ValueError("a mirror on the hub or on GitHub needs its revision, a whole commit, and its path")
        return self

    @property
    def address(self) -> str:
        if self.hub:
            host = os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"
            return f"{host}/datasets/{self.hub}/resolve/{self.revision}/{self.path}"
        if self.github:
            host = "https://media.githubusercontent.com/media" if self.lfs else "https://raw.githubusercontent.com"
            return f"{host}/{self.github}/{self.revision}/{self.path}"
        return self.url

    @property
    def ending(self) -> str:
        """.jsonl, .parquet, .jsonl.gz, ...: what tells how it is read."""
        endings = PurePosixPath(self.path or urlsplit(self.url).path).suffixes
        return "".join(endings[-2:] if endings[-1:] == [".gz"] else endings[-1:])


class Rest(BaseModel):
    """A set that is drawn from what other sets leave: rows of `of` that share no problem with any of `without`.

    First those of `level` and above, then the next lower; which of them, their texts' digests decide.
    """

    model_config = _STRICT

    of: str
    without: list[str]
    level: int = 0
    rows: int = Field(ge=1)


class Set(BaseModel):
    """`solutions`: another set that holds the same problems with their solutions, levels and subjects; where a row's
    gold says nothing, the last box of the solution is its gold. `kept` is whether it becomes a file of problems."""

    model_config = _STRICT

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    title: str
    licence: str
    rows: int = Field(default=0, ge=0)
    usable: int = Field(default=0, ge=0)
    solutions: str = ""
    kept: bool = True
    rest: Rest | None = None
    mirror: list[Mirror] = []

    @model_validator(mode="after")
    def _comes_from_somewhere(self) -> Self:
        if (self.rest is None) == (not self.mirror):
            raise ValueError(f"{self.name} needs mirrors, or the sets that it is the rest of")
        return self

    @property
    def file(self) -> str:
        return f"{self.name}.jsonl.gz"

    @property
    def needs(self) -> list[str]:
        """The sets that must be read before it."""
        return [self.rest.of, *self.rest.without] if self.rest else [self.solutions] if self.solutions else []


class Catalogue(BaseModel):
    model_config = _STRICT

    title: str
    set: list[Set] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_are_known_and_one(self) -> Self:
        known: list[str] = []
        for each in self.set:
            if each.name in known:
                raise ValueError(f"set {each.name} is listed twice")
            if missing := [name for name in each.needs if name not in known]:
                raise ValueError(f"set {each.name} needs {', '.join(missing)}; list that before it")
            known.append(each.name)
        return self

    def with_needs(self, names: list[str]) -> list[Set]:
        """The sets of these names and those that they need, in order. Raises CannotGoOn for an unknown one."""
        by_name = {each.name: each for each in self.set}
        if unknown := [name for name in names if name not in by_name]:
            known = ", ".join(each.name for each in self.set if each.kept)
            raise CannotGoOn(f"--only {','.join(unknown)}: not in this catalogue; give some of {known}")
        wanted = set(names)
        for each in reversed(self.set):
            wanted |= set(each.needs) if each.name in wanted else set()
        return [each for each in self.set if each.name in wanted]


def catalogue_names() -> list[str]:
    return sorted(path.stem for path in PACKAGE_CATALOGUES.glob("*.toml"))


def fetched_by(path: Path) -> str:
    """The mend for a file that is not there: the command that brings it, or nothing."""
    for name in catalogue_names():
        if path.name in {each.file for each in load_catalogue(name).set if each.kept}:
            to = "" if path.parent == Path("data") / name else f" --to {path.parent}"
            return f"give the command `chorus fetch {name}{to}`, which brings it"
    return ""


def load_catalogue(name: str) -> Catalogue:
    """A catalogue of the package, or of a TOML file of one's own. Raises CannotGoOn."""
    path = Path(name) if name.endswith(".toml") else PACKAGE_CATALOGUES / f"{name}.toml"
    if not path.is_file():
        raise CannotGoOn(
            f"{name}: nothing is fetched under this name; give one of {', '.join(catalogue_names())}, or a .toml file"
        )
    try:
        return Catalogue.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "catalogue"
        raise CannotGoOn(f"catalogue {path}: {where}: {first['msg'].removeprefix('Value error, ')}; mend it") from None
    except ValueError as error:
        raise CannotGoOn(f"catalogue {path}: {error}; mend it") from None
