"""Train a step again, offline, from its stored rollouts, and compare the loss.

It starts from the newest checkpoint before the step (or from the run's start weights), trains the steps between
from their stored rollouts, with the supervised updates between them, and compares each with what the run recorded. What
the run had decided (gates of the reward, coefficients, resets of the reference) is taken from its records. Nothing in
the folder is changed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chorus.protocol.config.load import load_config
from chorus.protocol.run_folder.checkpoints import STATE, read_manifest, whole
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.command_line import PATH, command, option
from chorus.protocol.runtime.exits import CannotGoOn

if TYPE_CHECKING:
    from chorus.protocol.config.run import RunConfig
    from chorus.protocol.run_folder.rollouts import StoredStep

TOLERANCE = 1e-6  # float32 on CPU; the learner's own thread count gives it bit for bit
DIFFERS = 1
_TRAINS = ("model", "curriculum", "sampling", "objective", "reference", "learner", "relift", "finetune")


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


@command("replay", help=__doc__, examples=["chorus replay runs/demo-20261121-231924 --step 17"])
@click.argument("run", type=PATH, help="a run's folder, finished or still running")
@option("--step", type=int, required=True, help="the step to train again, from 1")
@option("--threads", type=int, default=1, help="as the learner had them")
def main(run: Path, step: int, threads: int) -> int:
    done = replay(run, step, threads)
    for r in done:
        verdict = "the same" if r.agrees else f"OFF BY {abs(r.loss - r.recorded_loss):.3g}"
        print(
            f"step {r.step}: loss {r.loss:.9g}, recorded {r.recorded_loss:.9g}: {verdict}; grad norm {r.grad_norm:.6g}"
        )
    return os.EX_OK if all(r.agrees for r in done) else DIFFERS


def replay(run_dir: Path, step: int, threads: int = 1) -> list[Replayed]:
    """The steps from the checkpoint after which `step` can be reached, up to `step`. Raises CannotGoOn."""
    run = RunFolder(run_dir).existing()
    start, folder = _checkpoint_before(run_dir, step)
    config = _config(run, start, step)
    import torch

    from chorus.learner.curriculum.stages import Schedule, latest
    from chorus.learner.training.control import Decisions
    from chorus.learner.training.distributed import DistributedTrainer
    from chorus.learner.training.experience import make_experience, minibatches
    from chorus.protocol.run_folder.demonstrations import batch_file, read_batch, recorded_steps
    from chorus.protocol.run_folder.rollouts import StoredStep, read_step, step_file, stored_steps

    records = {r["step"]: r for r in run.records()}
    stored, wanted = dict(stored_steps(run)), range(start + 1, step + 1)
    if config.finetune.data:
        shards = {n: StoredStep(batch_file(run, n), n) for n in wanted}
    else:
        shards = {n: stored.get(n, StoredStep(step_file(run, n), n)) for n in wanted}
    _check(run_dir, step, records, shards)
    supervised = recorded_steps(RunFolder(run_dir))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        torch.manual_seed(config.run.seed)
        crew = DistributedTrainer(config, torch.device("cuda" if torch.cuda.is_available() else "cpu"), folder)
        schedule = Schedule(config)
        schedule.open(run.stages)
        done = []
        for n, shard in shards.items():
            found: list[tuple[float, float]] = []  # loss and gradient norm of the step's own update, the first one
            if not config.finetune.data:
                decisions = Decisions.of_record(records[n], config.objective)
                if decisions.reset is not None:
                    crew.reset_reference(config.reference.reset_optimizer)
                groups, version = read_step(shard), n - 1 + sum(step < n for step in supervised)
                left_out = schedule.filters_overlong
                prepared = make_experience(groups, config, version, crew.reference, decisions, left_out)
                parts = minibatches(prepared, config.learner.updates_per_step)
                indices = [rollout.group.task.index for rollout in groups]
                schedule.trained = reduce(latest, (r.get("stage_number") for k, r in records.items() if k < n), None)
                result = crew.step(parts, schedule.settings(indices, decisions.coefficients))
                found.append((result.loss, max(result.grad_norms, default=0.0)))
            if n in supervised:
                lesson = crew.supervise(read_batch(RunFolder(run_dir), n))
                found.append((lesson.loss, lesson.grad_norm))
            loss, norm = (math.nan if (value := records[n][key]) is None else value for key in ("loss", "grad_norm"))
            done.append(Replayed(n, found[0][0], loss, found[0][1], norm))
        return done
    finally:
        torch.set_num_threads(before)


def _config(run: RunFolder, start: int, step: int) -> RunConfig:
    """The step's own, if those after `start` have it too. Raises CannotGoOn where a resume changed what they are
    trained with."""
    mine = load_config(run.config_of(step))
    for path in {run.config_of(n) for n in range(start + 1, step)} - {run.config_of(step)}:
        before = load_config(path)
        if changed := [name for name in _TRAINS if getattr(before, name) != getattr(mine, name)]:
            raise CannotGoOn(
                f"{run.path}: since step {start}, where its newest earlier checkpoint is, a resume has changed what "
                f"step {step} is trained with ({', '.join(changed)}); give a step from before the resume"
            )
    return mine


def _checkpoint_before(run_dir: Path, step: int) -> tuple[int, Path | None]:
    """(its step, its folder); (0, None): the run's start weights. Pruned checkpoints have no `state`."""
    read = [(path, read_manifest(path)) for path in whole(RunFolder(run_dir).checkpoints)]
    earlier = [(path, manifest) for path, manifest in read if manifest.step < step]
    kept = [(manifest.step, path) for path, manifest in earlier if (path / STATE).is_dir()]
    start, folder = max(kept, default=(0, None), key=lambda found: found[0])
    gone_back = [manifest.step for _, manifest in earlier if manifest.rolled_back_to is not None]
    if gone_back and gone_back[-1] > start:
        raise CannotGoOn(
            f"{run_dir}: after step {gone_back[-1]} the run went back to earlier weights, and that checkpoint is no "
            f"longer kept, so step {step} can't be reached; give an earlier step"
        )
    return start, folder


def _check(run_dir: Path, step: int, records: dict[int, Any], shards: Mapping[int, StoredStep]) -> None:
    if step not in records:
        known = f"it has recorded steps 1 to {max(records)}: give one of these" if records else "give a run with steps"
        raise CannotGoOn(f"{run_dir}: step {step} is not in metrics.jsonl; {known}")
    for n, shard in shards.items():
        if not shard.path.is_file() or n not in records:
            raise CannotGoOn(
                f"{shard}: missing; step {step} can't be reached without step {n}: put it back, or give an earlier step"
            )
