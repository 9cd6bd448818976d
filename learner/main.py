"""`chorus learner`: train, alone or as one rank under torchrun."""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import time
from functools import partial
from pathlib import Path

import redis

from chorus.protocol.config.load import load_config
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import FencedError, LedgerLostError
from chorus.protocol.run_folder import checkpoints
from chorus.protocol.run_folder.files import write_json
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime import logs
from chorus.protocol.runtime.exits import CannotGoOn, first_line
from chorus.protocol.runtime.redis import connect, lost

log = logging.getLogger("chorus.learner")
_SCANT_BYTES = 16 * 2**20


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="chorus learner", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="recipe (.toml) or a run's config.json")
    parser.add_argument("--run-id", required=True, help="namespace of the run on Redis")
    parser.add_argument("--run-dir", type=Path, required=True, help="the run's folder")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in --run-dir")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    args = parser.parse_args(argv)
    logs.tell(run=args.run_id)
    config = load_config(args.config, args.overrides)
    # A container that is started once more has nothing to do.
    if args.resume and (steps := RunFolder(args.run_dir).finished_steps()) >= config.run.steps:
        print(f"chorus learner: {args.run_dir}: all {steps} steps are trained; for more, raise run.steps", flush=True)
        return os.EX_OK
    client = connect(config.redis.url)
    try:
        return _learn(config, args, client)
    except (LedgerLostError, FencedError) as error:
        raise CannotGoOn(str(error)) from None
    except redis.RedisError as error:
        raise lost(config.redis.url, error) from None
    except Exception as error:  # every library that writes has a name of its own for a full disk
        if type(error).__name__ == "OutOfMemoryError":
            log.exception("a GPU without memory")
            raise CannotGoOn(_too_much(config, error)) from None
        if shutil.disk_usage(args.run_dir).free > _SCANT_BYTES or isinstance(error, CannotGoOn):
            raise
        log.exception("failed beside a full disk")
        raise CannotGoOn(
            f"run.dir {args.run_dir}: its disk is full ({first_line(error)}); make room, then go on with --resume"
        ) from None


def _too_much(config: RunConfig, error: Exception) -> str:
    """torch's word on a GPU without memory, less its list of processes, and what would need less."""
    what = first_line(error).split(" Process ")[0]
    shared = "; the generators share this GPU: lower generator.gpu_memory" if config.shares_a_gpu else ""
    return (
        f"{what} Lower learner.token_budget (now {config.learner.token_budget} tokens a micro-batch) or set "
        f"learner.gradient_checkpointing = true{shared}. Then go on with --resume"
    )


def _note_start(run: RunFolder) -> None:
    """`chorus run` has noted when the services started; a learner started by hand notes its own start."""
    run.path.mkdir(parents=True, exist_ok=True)
    if not run.note.exists():
        write_json(run.note, {"started_at": time.time()})


def _learn(config: RunConfig, args: argparse.Namespace, client: redis.Redis) -> int:
    # torch takes seconds to import: whatever can be refused without it has been refused by now.
    import torch
    import torch.distributed as dist

    from chorus.learner.lifecycle import assemble
    from chorus.learner.loop import Learner
    from chorus.learner.training import distributed
    from chorus.learner.weight_sync import Broadcaster

    torch.manual_seed(config.run.seed)
    rank, _, device = distributed.join()
    run = RunFolder(args.run_dir)
    if rank == 0:
        _note_start(run)
        for text in config.objective.warnings:
            log.warning("objective: %s", text)
    start_from = checkpoints.latest(run.checkpoints) if args.resume else None
    ranks = distributed.DistributedTrainer(config, device, start_from)
    try:
        if rank == 0:
            backend = "nccl" if device.type == "cuda" and not config.shares_a_gpu else "gloo"
            parts = assemble(
                config,
                run,
                args.run_id,
                client,
                ranks,
                partial(Broadcaster, config, client, args.run_id, backend, device),
            )
            Learner(parts).run()
            ranks.stop()
        else:
            ranks.follow()
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    return os.EX_OK
