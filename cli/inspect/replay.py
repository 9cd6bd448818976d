"""`chorus replay RUN --step N`: train a step again, offline, from its stored rollouts, and compare the loss.

It starts from the newest checkpoint before the step (or from the run's start weights), trains the steps between
from their stored rollouts, and compares each with what the run recorded. Nothing in the folder is changed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chorus.protocol.config.load import load_config
from chorus.protocol.runtime.exits import CannotGoOn

TOLERANCE = 1e-6  # float32 on CPU; the learner's own thread count gives it bit for bit
DIFFERS = 1


@dataclass(frozen=True)
class Replayed:
    """One step: the loss and the gradient's norm as they were recorded, and as they came out again."""

    step: int
    loss: float
    recorded_loss: float
    grad_norm: float
    recorded_grad_norm: float

    @property
    def agrees(self) -> bool:
        if not math.isfinite(self.recorded_loss):
            return not math.isfinite(self.loss)
        return abs(self.loss - self.recorded_loss) <= TOLERANCE


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="chorus replay", description=__doc__)
    parser.add_argument("run", type=Path, help="a run's folder, finished or still running")
    parser.add_argument("--step", type=int, required=True, help="the step to train again, from 1")
    parser.add_argument("--threads", type=int, default=1, help="as the learner had them (default 1)")
    args = parser.parse_args(argv)
    done = replay(args.run, args.step, args.threads)
    for r in done:
        verdict = "the same" if r.agrees else f"OFF BY {abs(r.loss - r.recorded_loss):.3g}"
        print(
            f"step {r.step}: loss {r.loss:.9g}, recorded {r.recorded_loss:.9g}: {verdict}; grad norm {r.grad_norm:.6g}"
        )
    return os.EX_OK if all(r.agrees for r in done) else DIFFERS


def replay(run_dir: Path, step: int, threads: int = 1) -> list[Replayed]:
    """The steps from the checkpoint after which `step` can be reached, up to `step`. Raises CannotGoOn."""
    if not (run_dir / "config.json").is_file():
        raise CannotGoOn(f"{run_dir}: there is no config.json in it; give the folder of a run")
    import torch

    from chorus.learner.training.distributed import DistributedTrainer
    from chorus.learner.training.experience import make_experience, minibatches
    from chorus.protocol.run_folder.folder import RunFolder
    from chorus.protocol.run_folder.rollouts import read_step

    config = load_config(run_dir / "config.json")
    records = {r["step"]: r for r in RunFolder(run_dir).records()}
    start, folder = _checkpoint_before(run_dir, step)
    shards = {n: run_dir / "rollouts" / f"step-{n:06d}.msgpack.gz" for n in range(start + 1, step + 1)}
    _check(run_dir, step, records, shards)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        torch.manual_seed(config.run.seed)
        crew = DistributedTrainer(config, torch.device("cuda" if torch.cuda.is_available() else "cpu"), folder)
        done = []
        for n, shard in shards.items():
            groups = read_step(shard)
            prepared = make_experience(groups, config, n - 1, crew.reference)
            parts = minibatches(prepared, config.sampling.group_size, config.learner.updates_per_step)
            result = crew.step(parts)
            grad_norm = max(result.grad_norms, default=0.0)
            recorded = (math.nan if (value := records[n][key]) is None else value for key in ("loss", "grad_norm"))
            done.append(Replayed(n, result.loss, next(recorded), grad_norm, next(recorded)))
        return done
    finally:
        torch.set_num_threads(before)


def _checkpoint_before(run_dir: Path, step: int) -> tuple[int, Path | None]:
    """(its step, its folder); (0, None): the run's start weights. Pruned checkpoints have no `state`."""
    manifests = sorted((run_dir / "checkpoints").glob("step-*/manifest.json"))
    earlier = [(fields, path.parent) for path in manifests if (fields := json.loads(path.read_text()))["step"] < step]
    whole = [(fields["step"], folder) for fields, folder in earlier if (folder / "state").is_dir()]
    start, folder = max(whole, default=(0, None), key=lambda found: found[0])
    gone_back = [fields["step"] for fields, _ in earlier if fields.get("rolled_back_to") is not None]
    if gone_back and gone_back[-1] > start:
        raise CannotGoOn(
            f"{run_dir}: after step {gone_back[-1]} the run went back to earlier weights, and that checkpoint is no "
            f"longer kept, so step {step} can't be reached; learner.keep_checkpoints says how many are"
        )
    return start, folder


def _check(run_dir: Path, step: int, records: dict[int, Any], shards: dict[int, Path]) -> None:
    if step not in records:
        known = f"it has recorded steps 1 to {max(records)}" if records else "it has recorded none yet"
        raise CannotGoOn(f"{run_dir}: step {step} is not in metrics.jsonl; {known}")
    for n, shard in shards.items():
        if not shard.is_file() or n not in records:
            raise CannotGoOn(f"{shard}: missing; step {step} can't be reached without step {n}")
