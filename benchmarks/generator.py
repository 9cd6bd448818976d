"""Generating through the whole path against vLLM offline: the most that the same engine does on the same core.

    path      admit ─▶ Valkey ─▶ agent ─▶ vLLM ─▶ agent ─▶ reward server ─▶ commit ─▶ read by the learner
    offline                           `LLM.generate`

Both have the same engine arguments, the same prompts as token ids, the same sampling parameters, as many sequences at
once, and vLLM's cores to themselves while they are measured. Path and offline take turns in going first.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from chorus.benchmarks.bench import Bench
from chorus.benchmarks.fleet import Fleet, completion_tokens, open_fleet
from chorus.benchmarks.models import starter, three_million
from chorus.benchmarks.offline import Round, offline_vllm
from chorus.benchmarks.report import Row, at_least

GOAL = at_least(0.85)
_GROUPS = 256  # a measurement: eight of the demo's steps, so that its ends weigh little
_WARM_UP_GROUPS = 32


def measure(bench: Bench) -> Iterator[Row]:
    yield from _compare(bench, "0.7 M", starter(bench))
    if not bench.quick:
        yield from _compare(bench, "3 M", three_million(bench))


def _compare(bench: Bench, name: str, model: Path) -> Iterator[Row]:
    groups = 32 if bench.quick else _GROUPS
    path: list[float] = []
    alone: list[Round] = []
    tokens = 0
    config = bench.config(f"model.path={model}", f"staleness.target={bench.staleness}")
    label = f"generator-{name.replace(' ', '')}"
    with open_fleet(bench, label, config) as fleet:
        cores = set(fleet.placement.generator_cpus[0])
        with offline_vllm(fleet.config, cores, bench.folder / label / "logs" / "offline.log") as offline:
            # vLLM meets its first shapes, the agent its first connections.
            through_the_path(fleet, _WARM_UP_GROUPS)
            offline.generate(fleet.tasks(_WARM_UP_GROUPS))
            work: Counter[str] = Counter()
            for repeat in range(bench.repeats):
                tasks = fleet.tasks(groups)
                if repeat % 2:
                    alone.append(offline.generate(tasks))
                before = fleet.cpu_ms()
                made, seconds = through_the_path(fleet, groups)
                work.update(fleet.cpu_ms() - before)
                path.append(made / seconds)
                tokens += made
                if not repeat % 2:
                    alone.append(offline.generate(tasks))
                bench.say(f"path {path[-1]:,.0f}, offline {alone[-1].tokens / alone[-1].seconds:,.0f} tokens/s")
    each = ", ".join(f"{who} {1000 * ms / tokens:.1f}" for who, ms in work.most_common() if ms)
    each += f", offline {1e6 * sum(r.cpu_s for r in alone) / sum(r.tokens for r in alone):.1f}"
    at_once = f"{groups} groups of {config.sampling.group_size}, {config.groups_in_flight} at once"
    peer = [r.tokens / r.seconds for r in alone]
    yield Row(f"generator: path / offline, {name}", "tokens/s", path, peer, GOAL, f"{at_once}; us a token: {each}")
    # What is not the model's: beside a GPU, whose model takes none of it, the core would be full with this.
    host = [1e6 * (r.cpu_s - r.model_s) / r.tokens for r in alone]
    full = f"the core is full at {1e6 / median(host):,.0f} tokens/s"
    yield Row(f"generator: offline, processor time beside the model, {name}", "us a token", host, note=full)


def through_the_path(fleet: Fleet, groups: int) -> tuple[int, float]:
    """(completion tokens, seconds) from admitting `groups` to reading the last committed one."""
    tasks = fleet.tasks(groups)
    started = time.monotonic()
    fleet.admit(tasks)
    finished = fleet.collect(groups)
    return completion_tokens(finished), time.monotonic() - started
