"""Live runs on a Redis server, for the commands that read nothing else."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import redis

from chorus.protocol.ledger import Books, Keys, LedgerLostError, read_books
from chorus.protocol.runtime.addresses import shown
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.runtime.redis import connect


def parse_live(prog: str, description: str | None, argv: list[str]) -> argparse.Namespace:
    """Arguments `run` (may be absent) and `redis`."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("run", nargs="?", help="run id (default: all runs on the server)")
    parser.add_argument("--redis", metavar="URL", required=True)
    return parser.parse_args(argv)


def live_books(url: str, run: str | None) -> Iterator[tuple[redis.Redis, str, Books]]:
    """The client, id and books of the run, or of all runs there. Raises CannotGoOn where there are none."""
    client = connect(url, patience_s=0.0, named="--redis")
    runs = [run] if run else _run_ids(client)
    if not runs:
        raise CannotGoOn(f"no run has a ledger on {shown(url)}")
    for run_id in runs:
        try:
            yield client, run_id, read_books(client, Keys(run_id))
        except LedgerLostError as error:
            raise CannotGoOn(str(error)) from None


def _run_ids(client: redis.Redis) -> list[str]:
    found = client.scan_iter("chorus:*:fence", count=1000)
    return sorted(key.decode().removeprefix("chorus:").removesuffix(":fence") for key in found)
