"""A recipe from its file: what stands in it, what the environment and `--set` say instead, and what is wrong with it.

Values come, strongest first, from `--set a.b=c`, from environment variables `CHORUS_A__B`, from the file, from the
defaults. They are merged here, once: a `RunConfig` that is built in code is what the code says.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from chorus.protocol.config.run import RunConfig, RunSection

_PREFIX = "chorus_"


class ConfigError(ValueError):
    """A configuration that can't be used. The message is one line and names the mend."""


def load_config(
    path: str | Path, overrides: Sequence[str] = (), environment: Mapping[str, str] = os.environ
) -> RunConfig:
    """Read a recipe (.toml) or a run's resolved configuration (.json). Raises ConfigError.

    `overrides` are written as for `--set`: "learner.lr=2e-6". They win over variables of the environment
    (CHORUS_LEARNER__LR), which win over the file.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        fields = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"recipe {path}: can't be read ({error.strerror}); give the path of a recipe") from None
    except ValueError as error:
        raise ConfigError(f"recipe {path}: {error}") from None
    if not isinstance(fields, dict):
        raise ConfigError(f"recipe {path}: a {type(fields).__name__} where sections were expected")
    fields = _merged(fields, _from_environment(environment))
    fields = _merged(fields, _parse_overrides(overrides))
    try:
        return RunConfig(**fields)
    except ValidationError as error:
        raise ConfigError(f"recipe {path}: {_explain(error)}") from None


def _merged(under: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` wins, key by key."""
    found = dict(under)
    for key, value in over.items():
        below = found.get(key)
        found[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return found


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """CHORUS_SECTION__KEY=value, and CHORUS_SECTION={"key": value}; what is no section's name is not ours."""
    nested: dict[str, Any] = {}
    for name, text in environment.items():
        first, *rest = name.lower().removeprefix(_PREFIX).split("__")
        if not name.lower().startswith(_PREFIX) or (first not in RunConfig.model_fields and not rest):
            continue
        if first not in RunConfig.model_fields:
            raise ConfigError(
                f"{name}: there is no section {first}; name keys as CHORUS_SECTION__KEY, of the sections "
                f"{', '.join(RunConfig.model_fields)}"
            )
        if not rest and not text.lstrip().startswith("{"):
            raise ConfigError(f"{name}: name keys as CHORUS_SECTION__KEY, or give the section as JSON")
        _put(nested, name, [first, *rest], _structure(name, text))
    return nested


def _structure(name: str, text: str) -> Any:
    """Lists and objects as JSON; everything else stays a text, which its field reads."""
    if not text.lstrip().startswith(("[", "{")):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{name}: not JSON ({error}); lists and sections in the environment are JSON") from None


def _put(nested: dict[str, Any], name: str, path: Sequence[str], value: Any) -> None:
    here = nested
    for part in path[:-1]:
        here = here.setdefault(part, {})
        if not isinstance(here, dict):
            raise ConfigError(f"{name}: {part} has a value already; it can't hold keys too")
    here[path[-1]] = (
        _merged(here[path[-1]], value) if isinstance(here.get(path[-1]), dict) and isinstance(value, dict) else value
    )


def _parse_overrides(items: Sequence[str]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {item}: write it as section.key=value")
        # `--set seed=3` is the everyday one; it means run.seed.
        path = ["run", key] if key in RunSection.model_fields else key.split(".")
        try:
            parsed = tomllib.loads(f"v = {value}")["v"]
        except tomllib.TOMLDecodeError:
            parsed = value
        _put(nested, f"--set {item}", path, parsed)
    return nested


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        where, said = ".".join(str(part) for part in problem["loc"]), problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            lines.append(f"{where} is not a known key{_neighbours(problem['loc'])}")
        elif problem["type"] == "missing":
            lines.append(f"{where} is missing")
        elif not where or said.startswith(f"{where}."):
            lines.append(said)
        else:
            lines.append(f"{where}: {said} (got {problem['input']!r})")
    return "; ".join(lines)


def _neighbours(location: tuple[int | str, ...]) -> str:
    model: Any = RunConfig
    for part in location[:-1]:
        field = getattr(model, "model_fields", {}).get(part)
        model = field.annotation if field else None
    fields = getattr(model, "model_fields", {})
    return f"; known here: {', '.join(sorted(fields))}" if fields else ""
