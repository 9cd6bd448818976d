"""What is wrong with a configuration, in one line: who set it, where, and what to write instead."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from chorus.protocol.config.other_names import meant
from chorus.protocol.config.places import declared, fields_at, forms, place_of

_LISTS = ("list_type", "tuple_type")


@dataclass(frozen=True)
class Given:
    """A value that goes before the recipe's. `name`: the variable, or `--set key=value`, without secrets."""

    name: str
    path: Sequence[str]
    value: Any

    def sets(self, location: Sequence[int | str], said: str) -> bool:
        """Whether a fault at this place, or of the section that stands there, is this one's."""
        shared = min(len(self.path), len(location))
        if list(self.path[:shared]) != list(location[:shared]):
            return False
        if len(self.path) > shared:  # a section's fault, or that of two sections: its line names the key
            names = (".".join(self.path), ".".join(self.path[shared:]) if shared else "")
            return any(re.search(rf"(?<![\w.]){re.escape(name)}(?![\w])", said) for name in names if name)
        value = self.value
        for part in location[shared:]:
            if not isinstance(value, dict):
                break
            if part not in value:
                return False
            value = value[part]
        return True


def explain(error: ValidationError, recipe: str, given: Sequence[Given]) -> str:
    """`recipe`: what is to blame where nothing that was `given` is; of these the strongest comes first."""
    lines, mends, blamed = [], [], []
    for location, problems in groupby(error.errors(), lambda problem: place_of(problem["loc"])):
        found = [*problems]
        lines.append(line := _line(location, found))
        if found[0]["type"] == "missing":
            mends.append(_what_to_write(location))
        blamed.append(blame(recipe, given, location, line))
    return f"{', '.join(dict.fromkeys(blamed))}: {'; '.join(lines + mends)}"


def blame(recipe: str, given: Sequence[Given], location: Sequence[int | str], said: str) -> str:
    return next((one.name for one in given if one.sets(location, said)), recipe)


def _line(location: tuple[int | str, ...], problems: Sequence[Any]) -> str:
    problem, *others = problems
    where, said = ".".join(map(str, location)), problem["msg"].removeprefix("Value error, ")
    for other in others:  # of a value that may have one of several forms
        said += f"; or: {other['msg'].removeprefix('Value error, ')}"
    if problem["type"] == "extra_forbidden":
        return f"{where} is not a known key{_neighbours(location)}"
    if problem["type"] == "missing":
        return f"{where} is missing"
    if not where or said.startswith((f"{where}.", f"{where}:")):
        return said
    if isinstance(problem["input"], dict | BaseModel):  # of a whole section: it says itself which keys
        return f"{where}: {said}"
    mend = _as_list(location, problem["input"]) if any(found["type"] in _LISTS for found in problems) else ""
    return f"{where}: {said} (got {without_secrets(repr(problem['input']))}){mend}"


def without_secrets(text: str) -> str:
    """Addresses of Redis and of the reward server may hold a password."""
    return "an address, not shown" if "://" in text or "@" in text else text


def _as_list(location: tuple[int | str, ...], value: Any) -> str:
    """What to write where a list belongs and one value was given, or several with commas between them."""
    kind = next((form for form in forms(declared(location)) if get_origin(form) in (list, tuple)), None)
    items = [item.strip() for item in value.split(",")] if isinstance(value, str) else [value]
    if kind is None or not all(isinstance(item, str | int | float) for item in items):
        return ""
    (inner, *_) = forms(get_args(kind)[0])
    shown = ", ".join(item if isinstance(item, str) and inner is not str else json.dumps(item) for item in items)
    return f"; write [{f'[{shown}]' if get_origin(inner) is list else shown}]"


def _what_to_write(location: tuple[int | str, ...]) -> str:
    """`chorus init` shows a whole recipe."""
    field = fields_at(location[:-1]).get(str(location[-1]))
    needed = [name for name, own in fields_at(location).items() if own.is_required()]
    if needed:
        return f"write [{location[-1]}] with {' and '.join(needed)}"
    return f"give it ({field.description})" if field is not None and field.description else "give it"


def _neighbours(location: tuple[int | str, ...]) -> str:
    fields = fields_at(location[:-1])
    known = f"; known here: {', '.join(sorted(fields))}: use one of these" if fields else "; remove it"
    return f"{known}. Did you mean {key}?" if (key := meant(location)) else known
