"""Templates from their TOML files: the package's thirteen beside this file, and those of one's own."""

import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.templates.template import Template

PACKAGE_TEMPLATES = Path(__file__).parent
METHODS = PACKAGE_TEMPLATES / "methods"  # templates that belong to a method; a recipe names them like the thirteen


def load_templates(extra: Sequence[str | Path] = ()) -> dict[str, Template]:
    """Name to template, sorted by name: the package's thirteen and those in `extra` (TOML files or folders).

    Raises ValueError, with the file and the field, for a file that cannot be read as a template,
    whose stem is not its name, or whose name is already taken.
    """
    found: dict[str, tuple[Template, Path]] = {}
    for path in _files([PACKAGE_TEMPLATES, *map(Path, extra)]):
        template = _load(path)
        if template.name in found:
            raise ValueError(
                f"template {path}: the name {template.name!r} is already taken by {found[template.name][1]}; "
                "rename the file and its `name`"
            )
        found[template.name] = (template, path)
    return {name: found[name][0] for name in sorted(found)}


def known_templates(extra: Sequence[str | Path] = ()) -> dict[str, Template]:
    """All that a recipe may name. Raises as `load_templates`."""
    return load_templates([METHODS, *extra])


def choose_templates(
    names: Sequence[str], extra: Sequence[Path] = (), key: str = "templates.names"
) -> dict[str, Template]:
    """The templates that a recipe names under `key`, in its order. Raises CannotGoOn."""
    try:
        known = known_templates(extra)
    except (OSError, ValueError) as error:
        raise CannotGoOn(f"templates.files: {error}") from None
    if unknown := [name for name in names if name not in known]:
        raise CannotGoOn(f"{key}: {', '.join(unknown)} unknown; known: {', '.join(known)}: give some of these")
    return {name: known[name] for name in names}


def _files(places: Iterable[Path]) -> list[Path]:
    files: list[Path] = []
    for place in places:
        if place.is_dir():
            files.extend(sorted(place.glob("*.toml")))
        elif place.is_file():
            files.append(place)
        else:
            raise ValueError(f"template {place}: no such file or folder; give a TOML file or a folder of them")
    return files


def _load(path: Path) -> Template:
    """Every refusal begins with `template FILE:`, and names the field, or the line where it is no TOML."""
    try:
        template = Template.model_validate(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except UnicodeDecodeError as error:
        raise ValueError(f"template {path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"template {_toml_place(path, str(error))}") from None
    except ValidationError as error:
        problems = [_explain(path, e) for e in error.errors()]
        raise ValueError("; ".join(f"template {problem}" for problem in problems)) from None
    if template.name != path.stem:
        raise ValueError(
            f"template {path}: name is {template.name!r}, but the file is called {path.stem!r}; make them equal"
        )
    return template


def _toml_place(path: Path, message: str) -> str:
    """tomllib's message ends with `(at line n, column m)`, or with `(at end of document)`."""
    words, _, place = message.rpartition(" (at ")
    if found := re.match(r"line (\d+), column (\d+)", place):
        return f"{path}:{found[1]}: not valid TOML: {words} (column {found[2]})"
    return f"{path}: not valid TOML: {message}"


def _explain(path: Path, error: ErrorDetails) -> str:
    """`file: field: message`."""
    field, *rest = error["loc"]
    if error["type"] == "extra_forbidden":
        return f"{path}: {field}: not a known key; known: {', '.join(Template.model_fields)}"
    if error["type"] == "missing":
        return f"{path}: {field}: missing; every template needs it"
    item = "".join(f"[{part}]" for part in rest)
    return f"{path}: {field}{item}: {error['msg'].removeprefix('Value error, ')} (got {error['input']!r:.80})"
