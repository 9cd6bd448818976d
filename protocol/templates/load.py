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


def load_templates(extra: Sequence[str | Path] = ()) -> dict[str, Template]:
    """Name to template, sorted by name: the package's thirteen and those in `extra` (TOML files or folders).

    Raises ValueError, with the file and the line or field, for a file that cannot be read as a template,
    whose stem is not its name, or whose name is already taken.
    """
    found: dict[str, tuple[Template, Path]] = {}
    for path in _files([PACKAGE_TEMPLATES, *map(Path, extra)]):
        template = _load(path)
        if template.name in found:
            where = _place(path, path.read_text(encoding="utf-8"), "name")
            raise ValueError(
                f"template {where}: the name {template.name!r} is already taken by {found[template.name][1]}; "
                "rename the file and its `name`"
            )
        found[template.name] = (template, path)
    return {name: found[name][0] for name in sorted(found)}


def choose_templates(
    names: Sequence[str], extra: Sequence[Path] = (), key: str = "templates.names"
) -> dict[str, Template]:
    """The templates that a recipe names under `key`, in its order. Raises CannotGoOn."""
    try:
        known = load_templates(extra)
    except (OSError, ValueError) as error:
        raise CannotGoOn(f"templates.files: {error}") from None
    if unknown := [name for name in names if name not in known]:
        raise CannotGoOn(f"{key}: {', '.join(unknown)} unknown; known: {', '.join(known)}")
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
    """Every refusal begins with `template FILE:LINE:`, or `template FILE:` where no line is to blame."""
    try:
        text = path.read_text(encoding="utf-8")
        template = Template.model_validate(tomllib.loads(text))
    except UnicodeDecodeError as error:
        raise ValueError(f"template {path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"template {_toml_place(path, str(error))}") from None
    except ValidationError as error:
        problems = [_explain(path, text, e) for e in error.errors()]
        raise ValueError("; ".join(f"template {problem}" for problem in problems)) from None
    if template.name != path.stem:
        where = _place(path, text, "name")
        raise ValueError(
            f"template {where}: name is {template.name!r}, but the file is called {path.stem!r}; make them equal"
        )
    return template


def _toml_place(path: Path, message: str) -> str:
    """tomllib's message ends with `(at line n, column m)`, or with `(at end of document)`."""
    words, _, place = message.rpartition(" (at ")
    if found := re.match(r"line (\d+), column (\d+)", place):
        return f"{path}:{found[1]}: not valid TOML: {words} (column {found[2]})"
    return f"{path}: not valid TOML: {message}"


def _explain(path: Path, text: str, error: ErrorDetails) -> str:
    """`file:line: field: message`; a field that is missing has no line."""
    field, *rest = error["loc"]
    index = error.get("ctx", {}).get("index") if error["type"] == "wrong_item" else next(iter(rest), None)
    place = _place(path, text, str(field), index if isinstance(index, int) else None)
    if error["type"] == "extra_forbidden":
        return f"{place}: {field}: not a known key; known: {', '.join(Template.model_fields)}"
    if error["type"] == "missing":
        return f"{path}: {field}: missing; every template needs it"
    item = "".join(f"[{part}]" for part in rest)
    return f"{place}: {field}{item}: {error['msg'].removeprefix('Value error, ')} (got {error['input']!r:.80})"


def _place(path: Path, text: str, field: str, index: int | None = None) -> str:
    """`file:line` of a top-level key, or of an item of its array; `file` where it is not written."""
    lines = text.split("\n")
    quote = ""  # inside a text of several lines nothing is a key
    for number, line in enumerate(lines, 1):
        if not quote and re.match(rf"""\s*["']?{re.escape(field)}["']?\s*=""", line):
            return f"{path}:{number if index is None else _item_line(lines, number, field, index)}"
        for mark in ("'''", '"""'):
            if line.count(mark) % 2 and quote in ("", mark):
                quote = "" if quote else mark
                break
    return str(path)


def _item_line(lines: list[str], first: int, field: str, index: int) -> int:
    """The line of an array's item; the array begins on line `first`.

    The file is read up to each line, with the array closed there: that shows how many items it has by then.
    """
    seen, begins = 0, first
    for number in range(first, len(lines) + 1):
        for closing in ("", "\n]"):
            try:
                items = tomllib.loads("\n".join(lines[:number]) + closing)[field]
            except tomllib.TOMLDecodeError:  # within a text, or a bracket too many
                continue
            if len(items) > index:
                return begins if index == seen else number  # behind another one it stands on that one's last line
            seen, begins = len(items), number + 1
    return first
