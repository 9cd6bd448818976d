"""A run's ledger, found by the run's folder or on a server that is named, and its accounts as a person reads them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import redis

from chorus.cli.inspect.standing import is_run, standing
from chorus.protocol.ledger import Accounts, Keys, LedgerLostError, read_accounts
from chorus.protocol.run_folder.files import read_json
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.identity import name_of
from chorus.protocol.runtime.addresses import shown
from chorus.protocol.runtime.command_line import option
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.runtime.redis import connect

redis_option = option("--redis", "url", metavar="URL", help="ask this server (default: the run's own)")


def run_options(command: Callable[..., int]) -> Callable[..., int]:
    """RUN and --redis, of the commands that look at what is going on."""
    of_run = "a run's folder; with --redis also a run id (default: all runs on that server)"
    return click.argument("run", required=False, help=of_run)(redis_option(command))


@dataclass(frozen=True)
class Live:
    """A run whose ledger answers."""

    client: redis.Redis
    run_id: str
    accounts: Accounts


@dataclass(frozen=True)
class Found:
    """What was asked for: runs whose ledger answers; or the `folder` of one, and why its ledger does not answer."""

    live: list[Live]
    folder: Path | None = None
    why_not: str = ""


def find(run: str | None, url: str | None) -> Found:
    """Raises CannotGoOn where neither a ledger nor a run's folder is named."""
    folder = Path(run) if run and Path(run).is_dir() else None
    if url is not None:
        client = connect(url, patience_s=0.0, named="--redis")
        runs = [name_of(folder) if folder else run] if run else _run_ids(client)
        if not runs:
            raise CannotGoOn(f"no run has a ledger on {shown(url)}; give the --redis of the run's config.json")
        try:
            return Found([_read(client, run_id) for run_id in runs], folder)
        except LedgerLostError as error:
            raise CannotGoOn(str(error)) from None
    if run is None:
        raise CannotGoOn("give a run's folder, or --redis URL for all runs on that server")
    if folder is None or not is_run(RunFolder(folder)):
        what = "there is no config.json in it" if folder else "no such folder"
        raise CannotGoOn(f"{run}: {what}; give the folder of a run, or --redis URL and a run id")
    try:
        return Found([_read(own_redis(folder), name_of(folder))], folder)
    except (CannotGoOn, LedgerLostError) as error:
        return Found([], folder, str(error))


def own_redis(folder: Path) -> redis.Redis:
    """The server that the run's config.json names, or the environment. Raises CannotGoOn where none answers."""
    configured = (read_json(RunFolder(folder).config).get("redis") or {}).get("url")
    url = configured or os.environ.get("CHORUS_REDIS__URL", "")
    return connect(url, patience_s=0.0, named=f"{folder}/config.json: redis.url")


def _read(client: redis.Redis, run_id: str) -> Live:
    return Live(client, run_id, read_accounts(client, Keys(run_id)))


def _run_ids(client: redis.Redis) -> list[str]:
    found = client.scan_iter("chorus:*:fence", count=1000)
    return sorted(key.decode().removeprefix("chorus:").removesuffix(":fence") for key in found)


def format_accounts(run_id: str, accounts: Accounts) -> str:
    """The accounts as a person reads them."""
    dropped = ", ".join(f"{n} {reason}" for reason, n in sorted(accounts.dropped.items())) or "0"
    verdict = "balanced" if accounts.difference == 0 else f"OUT OF BALANCE BY {accounts.difference}"
    return (
        f"run {run_id}: {verdict}\n"
        f"  admitted    {accounts.admitted}\n"
        f"  trained     {accounts.trained}  ({accounts.durable} durable)\n"
        f"  dropped     {dropped}\n"
        f"  outstanding {accounts.outstanding}  ({accounts.queued} queued, {accounts.leased} leased, "
        f"{accounts.unread} unread, {accounts.read} read)\n"
        f"  foreign     {accounts.foreign}  (entries nobody admitted, refused)"
    )


def from_files(folder: Path, why_not: str) -> list[str]:
    """What can be said of a run whose ledger does not answer."""
    run = RunFolder(folder.resolve())
    lines = standing(run).lines
    if ledger := read_json(run.summary).get("ledger"):
        lines.append(f"  {format_totals(ledger)}")
    return [*lines, f"  (from its files; {why_not})"]


def format_totals(ledger: dict[str, Any]) -> str:
    """The accounts of summary.json in one line."""
    return (
        f"{ledger['admitted']} admitted = {ledger['trained']} trained "
        f"+ {sum(ledger['dropped'].values())} dropped + {ledger['outstanding']} outstanding"
    )
