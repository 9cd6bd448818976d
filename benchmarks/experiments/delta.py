"""`python -m chorus.benchmarks.experiments.delta`: how much of SmolLM2 changes in a step, and what a delta of it costs.

Arms: `recipe` is recipes/smollm2.toml, `default_rate` the same at the default learning rate. Each step's weights are
compared with those before it in bfloat16, from the first step on, laid out as they travel. Times are of one core; a
link's are counted, 100 Mbit/s without anything around the bytes. A run took about ten minutes on two cores.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean

import torch
from safetensors import safe_open

from chorus.benchmarks.experiments.arms import Figure, main
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.delta import apply, checksum, difference
from chorus.protocol.weights import describe, new_buckets, plan_buckets

_WIRE, _UNIT = "bfloat16", 2
_BUCKET_BYTES = 64 * 2**20  # as learner.bucket_bytes has it
_BITS_PER_S = 1e8


@dataclass(frozen=True)
class Step:
    """From one step's weights to the next one's. changed: the share of values; whole, delta: bytes."""

    changed: float
    whole: int
    delta: int
    making_s: float
    applying_s: float


def _buckets(folder: Path) -> list[torch.Tensor]:
    files = [safe_open(path, framework="pt") for path in sorted(folder.glob("*.safetensors"))]  # type: ignore[arg-type]
    named = [(name, file.get_tensor(name)) for file in files for name in file.keys()]  # noqa: SIM118
    plan = plan_buckets(describe(named, _WIRE), _BUCKET_BYTES)
    buckets = [bucket.zero_() for bucket in new_buckets(plan)]
    views = {name: view for bucket in plan.views(buckets) for name, view in bucket}
    for name, tensor in named:
        views[name].copy_(tensor)
    return buckets


def _steps(run: Path) -> Iterator[Step]:
    before: list[torch.Tensor] = []
    for folder in sorted(run.glob("checkpoints/step-*/huggingface")):
        after = _buckets(folder)
        if before:
            yield _compared(before, after)
        before = after


def _compared(before: list[torch.Tensor], after: list[torch.Tensor]) -> Step:
    base, new = [b.numpy() for b in before], [b.numpy() for b in after]
    values = [(b.view(torch.int16), a.view(torch.int16)) for b, a in zip(before, after, strict=True)]
    changed = sum(int((b != a).sum()) for b, a in values) / sum(a.numel() for _, a in values)
    started = time.monotonic()
    parts = [difference(b, n, _UNIT) for b, n in zip(base, new, strict=True)]
    wanted = checksum(new)
    making_s, started = time.monotonic() - started, time.monotonic()
    for bucket, part in zip(base, parts, strict=True):
        apply(bucket, part, _UNIT)
    if checksum(base) != wanted:
        raise RuntimeError("the delta does not make the new weights of the old ones")
    applying_s = time.monotonic() - started
    return Step(changed, sum(n.size for n in new), sum(part.size for part in parts), making_s, applying_s)


@cache
def steps(run: Path) -> list[Step]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return list(_steps(run))
    finally:
        torch.set_num_threads(threads)


def mean(field: str, scale: float = 1.0) -> Figure:
    """Over the steps."""
    return lambda run: fmean(scale * getattr(step, field) for step in steps(run.path))


def share(run: RunFolder) -> float:
    return fmean(100 * step.delta / step.whole for step in steps(run.path))


def first(run: RunFolder) -> float:
    return 100 * steps(run.path)[0].changed


def last(run: RunFolder) -> float:
    return 100 * steps(run.path)[-1].changed


FIGURES = {
    "values that change, %": mean("changed", 100),
    "values that change in the first of these steps, %": first,
    "values that change in the last of these steps, %": last,
    "whole, MB": mean("whole", 1e-6),
    "delta, MB": mean("delta", 1e-6),
    "delta / whole, %": share,
    "whole at 100 Mbit/s, s": mean("whole", 8 / _BITS_PER_S),
    "delta at 100 Mbit/s, s": mean("delta", 8 / _BITS_PER_S),
    "making the delta, s": mean("making_s"),
    "applying it, s": mean("applying_s"),
}

if __name__ == "__main__":
    sys.exit(main("delta", __doc__, FIGURES))
