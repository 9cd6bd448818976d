"""Reasoning templates: what a prompt says, and what the format contract pays.

A template turns a problem into a ChatML prompt and scores the *form* of a completion (never its answer).
Templates are data: one TOML file each in `protocol/templates/`, and more through `load_templates(extra)`.
Source of the sampling rule, the layouts and the format rewards: prompt augmentation, arXiv 2602.03190.

    templates = load_templates()
    name = draw(seed=42, epoch=0, problem_id="math/7", names=list(templates))
    prompt = render_chatml(templates[name], "What is 3 + 4?")
    score = format_score(templates[name], completion)      # completion: the text after the prompt
"""

import hashlib
import re
import tomllib
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from protocol.exits import CannotGoOn

PACKAGE_TEMPLATES = Path(__file__).parent / "templates"
Category = Literal["deepseek", "free-form", "reflection", "explicit-cot"]


class Template(BaseModel):
    """One way of asking: the texts around a problem and the markers that a completion must hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1)]
    category: Category
    system: str
    user_suffix: str = ""  # follows the problem directly: it brings its own newline
    prefill: str = ""  # opens the assistant's turn; part of the prompt, never of the completion
    markers: list[Annotated[str, Field(min_length=1)]] = []  # empty: the format score is always 1.0
    answer_place: str  # where a reader finds the boxed answer, in words


def load_templates(extra: Sequence[Path] = ()) -> dict[str, Template]:
    """Name to template, sorted by name: the package's thirteen and those in `extra` (TOML files or folders).

    Raises ValueError, with the file and the line or field, for a file that cannot be read as a template,
    whose stem is not its name, or whose name is already taken.
    """
    found: dict[str, tuple[Template, Path]] = {}
    for path in _files([PACKAGE_TEMPLATES, *extra]):
        template = _load(path)
        if template.name in found:
            raise ValueError(
                f"template {path}: the name {template.name!r} is already taken by {found[template.name][1]}; "
                "rename the file and its `name`"
            )
        found[template.name] = (template, path)
    return {name: found[name][0] for name in sorted(found)}


def choose_templates(names: Sequence[str], extra: Sequence[Path] = ()) -> dict[str, Template]:
    """The templates that a recipe names, in its order. Raises CannotGoOn."""
    try:
        known = load_templates(extra)
    except (OSError, ValueError) as error:
        raise CannotGoOn(f"templates.files: {error}") from None
    if unknown := [name for name in names if name not in known]:
        raise CannotGoOn(f"templates.names: {', '.join(unknown)} unknown; known: {', '.join(known)}")
    return {name: known[name] for name in names}


def messages(template: Template, problem: str) -> list[dict[str, str]]:
    """The chat messages of a prompt, without the prefill (which opens the assistant's turn)."""
    return [
        {"role": "system", "content": template.system},
        {"role": "user", "content": problem + template.user_suffix},
    ]


def render_chatml(template: Template, problem: str) -> str:
    """The whole prompt as ChatML text: system block, user block, assistant header, prefill."""
    blocks = "".join(
        f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n" for message in messages(template, problem)
    )
    return f"{blocks}<|im_start|>assistant\n{template.prefill}"


def marker_counts(template: Template, completion: str) -> dict[str, int]:
    """Marker to the number of its non-overlapping occurrences in the completion (without the prefill)."""
    return {marker: completion.count(marker) for marker in template.markers}


def format_score(template: Template, completion: str) -> float:
    """Share of the markers that occur exactly once, in [0, 1]; 1.0 for a template without markers.

    Order and nesting do not count, and neighbouring markers may share a newline: each is counted on its own.
    """
    if not template.markers:
        return 1.0
    return sum(n == 1 for n in marker_counts(template, completion).values()) / len(template.markers)


def draw(
    seed: int, epoch: int, problem_id: str, names: Sequence[str], weights: Mapping[str, float] | None = None
) -> str:
    """The template of one problem in one epoch: uniform over `names`, or with chances in proportion to `weights`.

    It depends on its arguments alone, not on the order of names (no global generator), so that a resumed run
    draws the same again.
    """
    if not names:
        raise ValueError("no template to draw from: name at least one in the recipe")
    key = f"{seed}\0{epoch}\0{problem_id}".encode()
    number = int.from_bytes(hashlib.blake2b(key, digest_size=16).digest(), "little")
    ordered = sorted(names)
    if weights is None:
        return ordered[number % len(ordered)]
    bounds = list(accumulate(weights[name] for name in ordered))
    point = (number >> 75) * 2.0**-53  # in [0, 1), all of a float's digits
    return ordered[bisect_right(bounds, point * bounds[-1])]


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
    text = path.read_text(encoding="utf-8")
    try:
        template = Template.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:  # its message ends with the line and the column
        raise ValueError(f"template {path}: not valid TOML: {error}") from error
    except ValidationError as error:
        problems = "; ".join(_explain(text, e["loc"], e["msg"]) for e in error.errors())
        raise ValueError(f"template {path}: {problems}") from error
    if template.name != path.stem:
        raise ValueError(
            f"template {path}: name is {template.name!r}, but the file is called {path.stem!r}; make them equal"
        )
    return template


def _explain(text: str, location: tuple[int | str, ...], message: str) -> str:
    """`field (line n): message`; a field that is missing has no line."""
    field = str(location[0])
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(rf"\s*{re.escape(field)}\s*=", line):
            return f"{field} (line {number}): {message}"
    return f"{field}: {message}"
