"""Presets: how the rows of a public data set become problems, as data. One's own is a file: `?preset=mine.toml`.

title = "GSM8K: worked solutions that end with #### and the answer"

[columns]                            as in a source, after the ?; of a list the first that the row has
problem = "question"
answer = ["final", "answer|after:####"]

base = "verl"                        what this preset does not say is as there
where = ["answer!=proof"]            all must hold
cut = ['\\s*Think step by step\\.$']   what is no part of the problem
kind = "text"                        of all rows
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

PACKAGE_PRESETS = Path(__file__).parent / "presets"
FieldName = Literal[
    "problem", "answer", "answers", "choices", "tests", "id", "solution", "kind", "level", "domain", "source",
    "sub_answers",
]  # fmt: skip
COLUMNS: tuple[str, ...] = get_args(FieldName)


class Preset(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    base: str = Field(default="", description="a preset of the package, which this one goes on from")
    columns: dict[FieldName, str | list[str]] = Field(default_factory=dict)
    where: list[str] = Field(default_factory=list)
    cut: list[str] = Field(default_factory=list)
    kind: str = ""


def preset_names() -> list[str]:
    return sorted(path.stem for path in PACKAGE_PRESETS.glob("*.toml"))


@cache
def load_preset(name: str) -> Preset:
    """A preset of the package, or of a file of one's own. Raises ValueError."""
    path = Path(name) if name.endswith(".toml") else PACKAGE_PRESETS / f"{name}.toml"
    if not path.is_file():
        raise ValueError(
            f"preset={name}: there is no such preset; use one of {', '.join(preset_names())}, or a .toml file"
        )
    try:
        preset = Preset.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"preset {path}: {'.'.join(map(str, first['loc']))}: {first['msg']}; mend the file") from None
    except ValueError as error:
        raise ValueError(f"preset {path}: {error}; mend the file") from None
    if not preset.base or path.stem == preset.base:
        return preset
    base = load_preset(preset.base)
    return Preset(
        title=preset.title,
        columns=base.columns | preset.columns,
        where=[*base.where, *preset.where],
        cut=[*base.cut, *preset.cut],
        kind=preset.kind or base.kind,
    )
