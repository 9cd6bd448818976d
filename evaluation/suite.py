"""Suites of benchmarks: data files that name each benchmark, how large it is, and where its problems are.

A benchmark is read from the folder that `--data` names, or by its hub name; either way through problems/sources.py,
so its rows have the schema of every other problem file.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from chorus.problems.fetch.catalogue import fetched_by
from chorus.problems.sources import load_problems
from chorus.protocol.messages import Problem
from chorus.protocol.runtime.exits import CannotGoOn

PACKAGE_SUITES = Path(__file__).parent / "suites"
_STRICT = ConfigDict(frozen=True, extra="forbid")


class Benchmark(BaseModel):
    """`problems`: how many the published benchmark has; 0 where nobody has said."""

    model_config = _STRICT

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    title: str
    problems: int = Field(default=0, ge=0)
    kind: Literal["math", "choice", "text"] = "math"
    file: str = ""
    hub: str = Field(default="", pattern=r"^(hub:.+)?$")

    def source(self, data: Path | None) -> str:
        """Where its problems are: in the folder `data`, or on the hub. Raises CannotGoOn."""
        if data is not None:
            if not self.file or not (data / self.file).is_file():
                mend = (fetched_by(data / self.file) if self.file else "") or "put it there"
                raise CannotGoOn(
                    f"--data {data}: benchmark {self.name} has no {self.file or 'file'} there; {mend}, leave --data "
                    "out to read the benchmark from the hub, or choose others with --benchmarks"
                )
            return str(data / self.file)
        if not self.hub:
            raise CannotGoOn(f"benchmark {self.name} has no hub name; give the folder of its file with --data")
        return self.hub


class Suite(BaseModel):
    model_config = _STRICT

    title: str
    benchmark: list[Benchmark] = Field(min_length=1)

    @model_validator(mode="after")
    def _named_once(self) -> Suite:
        names = [b.name for b in self.benchmark]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"benchmark {', '.join(sorted(twice))} is listed twice")
        return self

    def only(self, names: list[str]) -> Suite:
        """The suite without its other benchmarks. Raises CannotGoOn for a name it does not have."""
        known = {b.name: b for b in self.benchmark}
        if unknown := [name for name in names if name not in known]:
            raise CannotGoOn(
                f"--benchmarks {','.join(unknown)}: not in this suite; it has {', '.join(known)}: give some of these"
            )
        return self.model_copy(update={"benchmark": [known[name] for name in names]})


def load_suite(name: str) -> Suite:
    """A suite of the package, or of a TOML file of one's own. Raises CannotGoOn."""
    path = Path(name) if name.endswith(".toml") else PACKAGE_SUITES / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PACKAGE_SUITES.glob("*.toml")))
        raise CannotGoOn(f"--suite {name}: there is no such suite; known: {known}, or give a .toml file")
    try:
        return Suite.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "suite"
        raise CannotGoOn(f"suite {path}: {where}: {first['msg'].removeprefix('Value error, ')}; mend it") from None
    except ValueError as error:
        raise CannotGoOn(f"suite {path}: {error}; mend it") from None


def read_problems(source: str, kind: str | None = None) -> list[Problem]:
    """All problems of a source, in its order. `kind`: of all of them, whatever the rows say. Raises CannotGoOn."""
    try:
        problems = load_problems(source)
    except (OSError, ValueError, ImportError) as error:
        raise CannotGoOn(str(error)) from None
    return problems if kind is None else [p.model_copy(update={"kind": kind}) for p in problems]
