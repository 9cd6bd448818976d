"""`python -m chorus.benchmarks.experiments.lean`: the demo with less memory, at equal steps.

Arms: `whole` is recipes/demo.toml; `moments_of_8_bits` keeps AdamW's moments so; `adapters` trains adapters of rank 16
beside all linear layers, at ten times the rate. What travels at a sync is counted from the checkpoint.
"""

import sys
from statistics import fmean

from chorus.benchmarks.experiments.arms import Figure, evaluated, main, trained
from chorus.protocol.run_folder.files import read_json
from chorus.protocol.run_folder.folder import RunFolder

PART = 5  # steps


def accuracy(first: int) -> Figure:
    """Of the samples of `PART` steps from this one on."""

    def figure(run: RunFolder) -> float | None:
        values = [r["accuracy"] for r in run.records()[first - 1 : first - 1 + PART] if r.get("accuracy") is not None]
        return fmean(values) if values else None

    return figure


def sent_kib(run: RunFolder) -> float | None:
    """What a sync sends: adapters where there are some, else the whole model; both stand so in a checkpoint."""
    [*_, newest] = sorted(run.path.glob("checkpoints/*/huggingface"))
    adapter = newest.with_name("adapter") / "adapter_model.safetensors"
    files = [adapter] if adapter.exists() else sorted(newest.glob("*.safetensors"))
    return sum(file.stat().st_size for file in files) / 2**10


def pause_ms(run: RunFolder) -> float | None:
    """How long sampling stands still for a sync, median."""
    seconds = read_json(run.summary).get("weights", {}).get("pause_seconds_p50")
    return None if seconds is None else 1e3 * seconds


def memory_mib(run: RunFolder) -> float | None:
    """The learner's peak, as its last record has it."""
    peak = run.records()[-1].get("memory_peak")
    return None if peak is None else peak / 2**20


FIGURES = {
    "held out: accuracy before": evaluated("before", "accuracy"),
    "held out: accuracy after": evaluated("after", "accuracy"),
    **{f"accuracy of steps {k} to {k + PART - 1}": accuracy(k) for k in range(1, 26, PART)},
    "last steps: distance to what was sampled, nats": trained("mismatch_abs"),
    "sent at a sync, KiB": sent_kib,
    "pause of a sync, ms": pause_ms,
    "learner's peak, MiB": memory_mib,
}

if __name__ == "__main__":
    sys.exit(main("lean", __doc__, FIGURES))
