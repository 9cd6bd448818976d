"""A recipe from its file: what stands in it, what the environment and `--set` say instead, and what is wrong with it.

Values come, strongest first, from `--set a.b=c`, from environment variables `CHORUS_A__B`, from the file, from the
defaults. They are merged here, once: a `RunConfig` that is built in code is what the code says. An objective that is
named by a stronger one takes the numbers of the weaker ones away: they were another objective's (docs/objectives.md).
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from chorus.protocol.config.explain import Given, blame, explain, without_secrets
from chorus.protocol.config.objective import ObjectiveConfig
from chorus.protocol.config.other_names import all_keys
from chorus.protocol.config.places import declared, forms
from chorus.protocol.config.presets import PRESETS
from chorus.protocol.config.run import RunConfig, RunSection
from chorus.protocol.runtime.exits import CannotGoOn

_PREFIX = "chorus_"
# Keys as a variable with one underscore would name them, and keys of [run] alone; no variable of ours is called so.
_SPELLED = {key: f"run.{key}" for key in RunSection.model_fields} | {key.replace(".", "_"): key for key in all_keys()}
# Keys of earlier versions, each with the one value that its absence means.
_FORMER = {
    ("learner", "layout"): "padded",
    ("objective", "seed_form"): "linear",
    ("objective", "seed_gamma"): 2.0,
    ("objective", "seed_entropy"): "rao",
    ("objective", "seed_mass"): "count",
}


class ConfigError(CannotGoOn, ValueError):
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
        text = path.read_text(encoding="utf-8-sig")  # an editor's byte order mark is passed over
        fields = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"recipe {path}: can't be read ({error.strerror}); give the path of a recipe") from None
    except ValueError as error:
        raise ConfigError(
            f"recipe {path}: {error}; mend it there, as {path.suffix[1:].upper() or 'TOML'} is written"
        ) from None
    if not isinstance(fields, dict):
        raise ConfigError(
            f"recipe {path}: a {type(fields).__name__} where sections were expected; write [model] and the others"
        )
    _without_former_keys(path, fields)
    variables, sets = list(_from_environment(environment)), list(_parse_overrides(overrides))
    for given in (variables, sets):
        fields = _laid_over(fields, _nested(given))
    _check_text("", fields)
    told = f"recipe {path}", [*variables, *sets][::-1]
    if (place := _no_number((), fields)) is not None:
        said = f"{'.'.join(map(str, place))}: true or false where a number belongs; give a number"
        raise ConfigError(f"{blame(*told, place, said)}: {said}")
    try:
        return RunConfig(**fields)
    except ValidationError as error:
        raise ConfigError(explain(error, *told)) from None


def _no_number(place: tuple[int | str, ...], value: Any) -> tuple[int | str, ...] | None:
    """Where true or false stands for a number, which would be read as 1 or 0; None where nothing does."""
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if isinstance(value, bool):
        kinds = forms(declared(place))
        return place if bool not in kinds and {int, float} & {*filter(_is_type, kinds)} else None
    return next((found for key, inner in below if (found := _no_number((*place, key), inner)) is not None), None)


def _is_type(kind: Any) -> bool:
    return isinstance(kind, type)


def _check_text(where: str, value: Any) -> None:
    """Bytes of a command line that are no UTF-8, and half of a surrogate pair in JSON, can be written to no file."""
    if isinstance(value, dict):
        for key, below in value.items():
            _check_text(f"{where}.{key}" if where else str(key), below)
    elif isinstance(value, list):
        for below in value:
            _check_text(where, below)
    elif isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ConfigError(f"{ascii(where)[1:-1]}: {value!a} is no text; write it in UTF-8") from None


def _without_former_keys(path: Path, fields: dict[str, Any]) -> None:
    """A run's configuration of before is read as it was meant. Raises ConfigError where that can't be had any more."""
    for (section, key), usual in _FORMER.items():
        part = fields.get(section)
        if isinstance(part, dict) and key in part and (value := part.pop(key)) != usual:
            raise ConfigError(
                f"recipe {path}: {section}.{key} = {value!r} is not offered any more; remove it, which means {usual!r}"
            )


def _merged(under: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` wins, key by key."""
    found = dict(under)
    for key, value in over.items():
        below = found.get(key)
        found[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return found


def _laid_over(under: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` wins, key by key. An objective that it names anew wins whole: the numbers below are another one's."""
    before, named = (part if isinstance(part := place.get("objective"), dict) else {} for place in (under, over))
    name = named.get("name")
    if name is None or name == before.get("name", ObjectiveConfig.model_fields["name"].default):
        return _merged(under, over)
    found = dict(under) | {"objective": {}}
    for place in PRESETS[name].beside if isinstance(name, str) and name in PRESETS else ():
        section, key = place.split(".")
        if isinstance(part := found.get(section), dict):
            found[section] = {other: value for other, value in part.items() if other != key}
    return _merged(found, over)


def _from_environment(environment: Mapping[str, str]) -> Iterator[Given]:
    """CHORUS_SECTION__KEY=value, and CHORUS_SECTION={"key": value}; what is no section's name is not ours.

    A key of its own wins over the same key in a section's JSON, in whatever order they were exported.
    """
    for name in sorted(environment, key=lambda name: (name.count("__"), name)):
        first, *rest = name.lower().removeprefix(_PREFIX).split("__")
        if not name.lower().startswith(_PREFIX):
            continue
        if not rest and (key := _SPELLED.get(first)):
            raise ConfigError(
                f"{name}: {key} is named with two underscores between section and key: CHORUS_"
                f"{key.upper().replace('.', '__')}; rename the variable, or remove it"
            )
        if first not in RunConfig.model_fields and not rest:
            continue
        text = environment[name]
        if first not in RunConfig.model_fields:
            raise ConfigError(
                f"{name}: there is no section {first}; name keys as CHORUS_SECTION__KEY, of the sections "
                f"{', '.join(RunConfig.model_fields)}"
            )
        if not rest and not text.lstrip().startswith("{"):
            raise ConfigError(
                f"{name}: this names a section, and its value is none; name a key as {name}__KEY, or give the "
                "section as JSON"
            )
        yield Given(name, [first, *rest], _structure(name, [first, *rest], text))


def _structure(name: str, path: Sequence[str], text: str) -> Any:
    """Lists and sections as JSON or TOML has them; everything else stays a text, which its field reads."""
    if _is_text(path) or not text.lstrip().startswith(("[", "{")):
        return text
    with suppress(tomllib.TOMLDecodeError):
        return _toml(text)
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigError(
            f"{name}: a list or a section, but neither JSON ({error}) nor TOML; put words in double quotes, and the "
            'whole in single ones, which the shell takes off, as in \'["abel", "open-r1"]\''
        ) from None


def _toml(text: str) -> Any:
    return tomllib.loads(f"v = {text}")["v"]


def _nested(given: Iterable[Given]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for one in given:
        _put(nested, one.name, one.path, one.value)
    return nested


def _put(nested: dict[str, Any], name: str, path: Sequence[str], value: Any) -> None:
    here = nested
    for part in path[:-1]:
        here = here.setdefault(part, {})
        if not isinstance(here, dict):
            raise ConfigError(f"{name}: {part} has a value already; it can't hold keys too: remove one of them")
    here[path[-1]] = (
        _merged(here[path[-1]], value) if isinstance(here.get(path[-1]), dict) and isinstance(value, dict) else value
    )


def _parse_overrides(items: Sequence[str]) -> Iterator[Given]:
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {without_secrets(item)}: write it as section.key=value")
        # `--set seed=3` is the everyday one; it means run.seed.
        path = ["run", key] if key in RunSection.model_fields else key.split(".")
        name = f"--set {key}={without_secrets(value)}"
        yield Given(name, path, _value(name, path, value))


def _value(name: str, path: Sequence[str], text: str) -> Any:
    """A TOML value, a JSON list or object, or the text as it is written: where it is neither, and where a key that
    holds a text is given a number, a date or the like (`--set run.name=2026`)."""
    try:
        parsed = _toml(text)
    except tomllib.TOMLDecodeError:
        return _structure(name, path, text)
    return parsed if isinstance(parsed, str) or not _is_text(path) else text


def _is_text(path: Sequence[str]) -> bool:
    """Whether the key holds a text and nothing else."""
    return forms(declared(path)) == [str]
