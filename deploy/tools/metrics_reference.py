"""Every metric of every process, and every key of a step's record.

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
from chorus.protocol.metrics.step import TABLE, Metric
from chorus.reward_server.api.metrics import Metrics

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
_BEGIN, _END = "<!-- {}: python -m chorus.deploy.tools.metrics_reference -->", "<!-- end of {} -->"
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
        parts += [
            f"| `{f.name}` | {f.kind} | {', '.join(f'`{n}`' for n in f.labels)} | {_cell(f.help)} |" for f in families
        ]
        parts.append("")
    return "\n".join(parts)


def record() -> str:
    """The keys of metrics.jsonl as Markdown."""
    lines = ["| key | in | unit | meaning | at Prometheus |", "| --- | --- | --- | --- | --- |"]
    lines += [f"| `{r.key}` | {', '.join(r.scopes)} | {r.unit} | {_cell(r.help)} | {_series(r)} |" for r in TABLE]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")  # KL(p || q) would end the cell


def _series(row: Metric) -> str:
    total = "_total" * row.counter
    return ", ".join(f"`{row.full_name(view)}{total}{_selector(row, view)}`" for view in row.exported)


def _selector(row: Metric, view: str) -> str:
    labels = ",".join(f'{name}="{value}"' for name, value in row.labels_in(view).items())
    return f"{{{labels}}}" if labels else ""


def page(now: str) -> str:
    """The page with the tables as they are to be. Raises ValueError where the page has no place for them."""
    for name, text in (("record", record()), ("tables", tables())):
        begin, end = _BEGIN.format(name), _END.format(name)
        head, _, rest = now.partition(begin)
        _, found, tail = rest.partition(end)
        if not found:
            raise ValueError(f"no {begin!r} ... {end!r} in the page")
        now = f"{head}{begin}\n\n{text}\n{end}{tail}"
    return now


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
