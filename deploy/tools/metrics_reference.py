"""Every metric of every process.

`python -m chorus.deploy.tools.metrics_reference` writes their tables into docs/metrics.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from prometheus_client import CollectorRegistry

from chorus.protocol.graders import KINDS
from chorus.protocol.metrics.ledger import LedgerCollector
from chorus.protocol.metrics.processes import GeneratorMetrics, LearnerMetrics
from chorus.reward_server.api.metrics import Metrics

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
_BEGIN, _END = "<!-- tables: python -m chorus.deploy.tools.metrics_reference -->", "<!-- end of tables -->"
_SUFFIXES = {"histogram": ("_bucket", "_sum", "_count")}


@dataclass(frozen=True)
class Exported:
    """One metric family. `labels` are the process's own; Prometheus adds `job` and `instance`."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str

    @property
    def of_every_process(self) -> bool:
        return self.name.startswith("process_")

    @property
    def series(self) -> tuple[str, ...]:
        """The names by which PromQL knows it."""
        return tuple(self.name + suffix for suffix in _SUFFIXES.get(self.kind, ("",)))


def exported() -> dict[str, list[Exported]]:
    """Process -> what it exports, as its own registry declares it. Nothing is asked of Redis."""
    learner = LearnerMetrics().registry
    learner.register(LedgerCollector(redis.Redis(), "run"))
    registries = {
        "learner": learner,
        "generator": GeneratorMetrics().registry,
        "reward-server": Metrics(KINDS).registry,
    }
    return {process: sorted(_families(r), key=lambda e: e.name) for process, r in registries.items()}


def _families(registry: CollectorRegistry) -> Iterator[Exported]:
    for collector in list(registry._collector_to_names):  # the public way has no label names
        whole: Any = collector
        for family in whole.describe() if hasattr(whole, "describe") else whole.collect():
            labels = getattr(whole, "_labelnames", ()) or getattr(family, "_labelnames", ())
            name = family.name + ("_total" if family.type == "counter" else "")
            yield Exported(name, family.type, tuple(labels), family.documentation.rstrip("."))


def tables() -> str:
    """A table a process, as Markdown."""
    parts = []
    groups = {name: [f for f in found if not f.of_every_process] for name, found in exported().items()}
    groups["every process"] = [f for f in exported()["generator"] if f.of_every_process]
    for name, families in groups.items():
        parts += [f"### {name}", "", "| metric | type | labels | meaning |", "| --- | --- | --- | --- |"]
        parts += [f"| `{f.name}` | {f.kind} | {', '.join(f'`{n}`' for n in f.labels)} | {f.help} |" for f in families]
        parts.append("")
    return "\n".join(parts)


def page(now: str) -> str:
    """The page with the tables of today. Raises ValueError where the page has no place for them."""
    head, _, rest = now.partition(_BEGIN)
    _, end, tail = rest.partition(_END)
    if not end:
        raise ValueError(f"no {_BEGIN!r} ... {_END!r} in the page")
    return f"{head}{_BEGIN}\n\n{tables()}\n{_END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
