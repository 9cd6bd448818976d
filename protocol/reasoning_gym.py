"""Items of reasoning-gym, named so that two processes make the same one: the learner that asks, the grader that scores.

    reasoning-gym:countdown?seed=3&size=500              all items of a task: a source of problems
    reasoning-gym:countdown?seed=3&size=500#17@9f2c...   its item 17, whose question has that hash: a gold

An item is a function of the task, its options and its number, so the name is all that travels; the hash tells where
the two processes hold different versions of reasoning-gym. Options are those of the task's own configuration; their
values are read as JSON, or else as text. `seed` is 0 and `size` 500 unless given. Item i of seed s is item 0 of seed
s + i in most tasks: seeds of training and held-out problems must lie further apart than `size`.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

PREFIX = "reasoning-gym:"
DEFAULTS: dict[str, Any] = {"seed": 0, "size": 500}
REFUSED = {
    "codeio": "its items come about by running programs that nobody has read",
    "composite": "it is a mixture of other tasks; name each of them as a source of its own",
    "polynomial_multiplication": "its items differ from process to process",
}


class GymError(ValueError):
    """A name that can't be used. The message says why and what would do."""


@dataclass(frozen=True, eq=False)
class Items:
    """One task with its options. `dataset` is reasoning-gym's own object; `has_scorer`: it can tell several answers
    right, where others compare with the one that they hold."""

    spec: str
    task: str
    size: int
    dataset: Any
    has_scorer: bool

    @property
    def category(self) -> str:
        """The family of the task: algebra, games, logic, ..."""
        return self.dataset.category

    def entry(self, index: int) -> dict[str, Any]:
        """Item `index`: its `question`, an `answer` that is right, and what the scorer needs in `metadata`."""
        return self.dataset[index]

    def name(self, index: int, question: str) -> str:
        """The name under which another process finds this item."""
        return f"{self.spec}#{index}@{digest(question)}"


@lru_cache(maxsize=64)
def items(spec: str) -> Items:
    """The items of `reasoning-gym:TASK?options`. Raises GymError, or ImportError without reasoning-gym."""
    try:
        from reasoning_gym.dataset import ProceduralDataset  # pyright: ignore[reportMissingImports]
        from reasoning_gym.factory import DATASETS, create_dataset  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            f"problems {spec!r}: needs reasoning-gym, which can't be imported ({error}); "
            "`pip install 'chorus-rl[gym]'`, also where the reward server runs"
        ) from error
    task, _, query = spec.removeprefix(PREFIX).partition("?")
    if task in REFUSED:
        raise GymError(f"task {task!r} can't be used: {REFUSED[task]}")
    if task not in DATASETS:
        near = difflib.get_close_matches(task, DATASETS, n=3) or sorted(DATASETS)
        raise GymError(f"reasoning-gym has no task {task!r}; it has {', '.join(near)}")
    options = DEFAULTS | _options(query)
    known = [field.name for field in dataclasses.fields(DATASETS[task][1])]
    if unknown := [name for name in options if name not in known]:
        raise GymError(f"task {task!r} has no option {unknown[0]!r}; it has {', '.join(known)}")
    if any(type(options[name]) is not int for name in DEFAULTS) or options["size"] < 1:
        raise GymError("seed and size must be whole numbers, size at least 1")
    try:
        dataset = create_dataset(task, **options)
    except (AssertionError, ValueError, TypeError) as error:  # its configurations validate themselves with `assert`
        raise GymError(f"task {task!r} refuses these options ({error or 'it does not say why'})") from error
    has_scorer = type(dataset).score_answer is not ProceduralDataset.score_answer
    return Items(spec, task, options["size"], dataset, has_scorer)


def _options(query: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for part in filter(None, query.split("&")):
        name, equals, value = part.partition("=")
        if not equals:
            raise GymError(f"{part!r} is no option; write name=value")
        try:
            options[name] = json.loads(unquote(value))
        except ValueError:
            options[name] = unquote(value)
    return options


@lru_cache(maxsize=256)
def item(name: str) -> tuple[Items, dict[str, Any]]:
    """The task and the entry that a name stands for.

    Raises GymError where it names nothing or another question than it was made for.
    """
    spec, _, place = name.rpartition("#")
    index, _, wanted = place.partition("@")
    if not spec.startswith(PREFIX) or not index.isdecimal():
        raise GymError(f"{name!r} does not name an item of reasoning-gym")
    found = items(spec)
    if int(index) >= found.size:
        raise GymError(f"{name!r}: the task has {found.size} items, counted from 0")
    entry = found.entry(int(index))
    if digest(entry["question"]) != wanted:
        raise GymError(
            f"{name!r} is another question here; the learner and the reward server need the same version of "
            "reasoning-gym"
        )
    return found, entry


def digest(question: str) -> str:
    """16 hexadecimal digits that tell questions apart."""
    return hashlib.blake2b(question.encode(), digest_size=8).hexdigest()
