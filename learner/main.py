"""Train, alone or as one rank under torchrun."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import redis

from chorus.protocol.config.load import load_config
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import FencedError, LedgerLostError
from chorus.protocol.ledger.lease import holder, leased
from chorus.protocol.run_folder import checkpoints
from chorus.protocol.run_folder.files import write_json
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.identity import Asked, asked_of
from chorus.protocol.run_folder.start import take_up
from chorus.protocol.runtime import logs
from chorus.protocol.runtime.command_line import (
    PATH,
    command,
    config_option,
    lineage_option,
    option,
    overrides_option,
    run_id_option,
    take_over_option,
)
from chorus.protocol.runtime.exits import CannotGoOn, first_line
from chorus.protocol.runtime.redis import connect, glance, lost
from chorus.protocol.runtime.stopping import StopAsked, stopped_by_signals

if TYPE_CHECKING:
    import torch

    from chorus.learner.loop import Learner

log = logging.getLogger("chorus.learner")
_SCANT_BYTES = 16 * 2**20
# What a thread beside the step may hold the interpreter for: Python's own 5 ms are longer than most calls of the step.
_SWITCH_S = 0.0005


@command(
    "learner",
    help=__doc__,
    examples=["chorus learner --config recipes/demo.toml --run-id by-hand --run-dir runs/by-hand --resume"],
)
@config_option
@run_id_option
@option("--run-dir", type=PATH, required=True, metavar="FOLDER", help="the run's folder")
@option("--resume", is_flag=True, help="go on from the newest checkpoint in --run-dir")
@lineage_option
@take_over_option
@overrides_option
def main(
    config: Path,
    run_id: str,
    run_dir: Path,
    resume: bool,
    new_lineage: bool,
    take_over: bool,
    overrides: tuple[str, ...],
) -> int:
    logs.tell(run=run_id)
    settings = load_config(config, overrides)
    # A container that is started once more has nothing to do.
    if resume and (steps := RunFolder(run_dir).finished_steps()) >= settings.run.steps:
        print(f"chorus learner: {run_dir}: all {steps} steps are trained; for more, raise run.steps", flush=True)
        return os.EX_OK
    client = connect(settings.redis.url)
    try:
        with _sole(settings, run_dir, run_id, resume, asked_of(new_lineage, take_over), client):
            return _learn(settings, run_dir, run_id, resume, client)
    except FencedError as error:
        raise CannotGoOn(f"{error}: {holder(client, run_id) or 'another learner'} has taken the run over") from None
    except LedgerLostError as error:
        raise CannotGoOn(str(error)) from None
    except redis.RedisError as error:
        raise lost(settings.redis.url, error) from None
    except Exception as error:  # every library that writes has a name of its own for a full disk
        if type(error).__name__ == "OutOfMemoryError":
            log.exception("a GPU without memory")
            raise CannotGoOn(_too_much(settings, error)) from None
        free = shutil.disk_usage(run_dir).free
        if free > _SCANT_BYTES or isinstance(error, CannotGoOn):
            raise
        if free:  # else it would take what is left of the log's last page from the last word
            log.exception("failed beside a full disk")
        raise CannotGoOn(
            f"run.dir {run_dir}: its disk is full ({first_line(error)}); make room, then go on with --resume"
        ) from None


def _too_much(config: RunConfig, error: Exception) -> str:
    """torch's word on a GPU without memory, less its list of processes, and what would need less."""
    what = first_line(error).split(" Process ")[0]
    shared = "; the generators share this GPU: lower generator.gpu_memory" if config.shares_a_gpu else ""
    return (
        f"{what} Lower learner.token_budget (now {config.learner.token_budget} tokens a micro-batch) or set "
        f"learner.gradient_checkpointing = true{shared}. Then go on with --resume"
    )


@contextmanager
def _sole(
    config: RunConfig, run_dir: Path, run_id: str, resume: bool, asked: Asked, client: redis.Redis
) -> Iterator[None]:
    """Alone with this run, which is the one that the ledger knows. Of several ranks the first one sees to it."""
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    with leased(client, glance(config.redis.url), run_id, run_dir):
        take_up(client, RunFolder(run_dir), run_id, resume, asked)
        yield


def _note_start(run: RunFolder) -> None:
    """`chorus run` has noted when the services started; a learner started by hand notes its own start."""
    if not run.note.exists():
        write_json(run.note, {"started_at": time.time()})


def _learn(config: RunConfig, run_dir: Path, run_id: str, resume: bool, client: redis.Redis) -> int:
    # torch takes seconds to import: whatever can be refused without it has been refused by now.
    import torch
    import torch.distributed as dist

    from chorus.learner.loop import FineTuning, Learner
    from chorus.learner.parts import assemble
    from chorus.learner.training import distributed
    from chorus.learner.weight_sync.broadcaster import Broadcaster

    torch.manual_seed(config.run.seed)
    sys.setswitchinterval(_SWITCH_S)
    rank, _, device = distributed.join(config.redis.url)
    backend = _backend(config, device)
    run = RunFolder(run_dir)
    if rank == 0:
        _note_start(run)
        for text in config.objective.warnings:
            log.warning("objective: %s", text)
    start_from = checkpoints.latest(run.checkpoints) if resume else None
    ranks = distributed.DistributedTrainer(config, device, start_from, check_exports=True)
    try:
        if rank == 0:
            parts = assemble(
                config,
                run,
                run_id,
                client,
                ranks,
                partial(Broadcaster, config, client, run_id, backend, device),
            )
            with stopped_by_signals(config.learner.grace_s) as parts.stop:
                status = _status_of(FineTuning(parts) if config.finetune.data else Learner(parts))
            ranks.stop()
        else:
            status = os.EX_OK
            with stopped_by_signals(config.learner.grace_s):
                ranks.follow()
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    return status


def _backend(config: RunConfig, device: torch.device) -> str:
    """Over what weights go to generators. Raises CannotGoOn."""
    if device.type != "cuda" or config.shares_a_gpu:
        return "gloo"
    if config.learner.fan_out == "relay":
        raise CannotGoOn(
            "learner.fan_out is relay, which passes weights on over gloo, and this learner's GPUs send them over NCCL; "
            'leave it out, or set it to "direct"'
        )
    if config.learner.delta:
        raise CannotGoOn(
            "learner.delta is true, which adds to weights in the generators' host memory, and this learner's GPUs send "
            "them over NCCL onto the device; leave it out, or set it to false"
        )
    return "nccl"


def _status_of(learner: Learner) -> int:
    try:
        learner.run()
    except StopAsked as asked:
        log.info("%s: stopped after step %d; go on with --resume", asked, learner.parts.done)
        return asked.status
    except redis.RedisError:
        if not (number := learner.parts.stop.number):
            raise
        log.warning("Redis is away: ending after step %d without its word; go on with --resume", learner.parts.done)
        return 128 + number
    return os.EX_OK
