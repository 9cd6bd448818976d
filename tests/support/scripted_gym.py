"""A library with the interface of reasoning-gym and one task of ours, for tests of what stands around it."""

from __future__ import annotations

import random
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from chorus.protocol import reasoning_gym as gym


@dataclass
class SumsConfig:
    seed: int | None = None
    size: int = 500
    largest: int = 99
    operators: list[str] = field(default_factory=lambda: ["+"])
    note: str = ""

    def validate(self) -> None:
        assert self.largest >= 1, "largest must be at least 1"


class ProceduralDataset:
    """As in the library: right is the answer that it holds."""

    category = "arithmetic"

    def score_answer(self, answer: str | None, entry: dict[str, Any]) -> float:
        return 1.0 if answer == entry["answer"] else 0.0


class Coins(ProceduralDataset):
    """Never the same twice, as tasks are that draw from a set."""

    def __init__(self, config: SumsConfig) -> None:
        self.config = config

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"question": f"Coin {random.random()} shows", "answer": ["heads", "tails"][index % 2], "metadata": {}}


class Sums(ProceduralDataset):
    """`a + b` as any two numbers with that sum: many right answers, part of the score for any answer at all."""

    def __init__(self, config: SumsConfig) -> None:
        config.validate()
        self.config = config

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = random.Random((self.config.seed or 0) + index)
        a, b = rng.randint(1, self.config.largest), rng.randint(1, self.config.largest)
        return {
            "question": f"Which two numbers have the sum {a + b}?",
            "answer": f"{a} {b}",
            "metadata": {"sum": a + b},
        }

    def score_answer(self, answer: str | None, entry: dict[str, Any]) -> float:
        parts = (answer or "").split()
        if len(parts) == 2 and all(p.isdecimal() for p in parts):
            return 1.0 if sum(map(int, parts)) == entry["metadata"]["sum"] else 0.5
        return 0.01


@contextmanager
def installed(**tasks: type) -> Iterator[None]:
    """It stands where reasoning-gym would. `tasks`: further datasets, with the same configuration."""
    datasets = {name: (cls, SumsConfig, None) for name, cls in ({"sums": Sums, "coins": Coins} | tasks).items()}
    factory = types.ModuleType("reasoning_gym.factory")
    vars(factory).update(
        DATASETS=datasets, create_dataset=lambda name, **options: datasets[name][0](SumsConfig(**options))
    )
    dataset = types.ModuleType("reasoning_gym.dataset")
    vars(dataset).update(ProceduralDataset=ProceduralDataset)
    package = types.ModuleType("reasoning_gym")
    modules = {m.__name__: m for m in (package, factory, dataset)}
    _forget()
    with patch.dict(sys.modules, modules):
        yield
    _forget()


def _forget() -> None:
    gym.items.cache_clear()
    gym.item.cache_clear()
