"""torchrun for a learner on several nodes that meet on the run's Redis: no port is open beside gloo's own, or NCCL's.

    python -m chorus.deploy.nodes --nnodes 2 --nproc-per-node 1 --rdzv-endpoint RUN/config.json --rdzv-id RUN \\
      --rdzv-conf rank=0 -m chorus.cli.main learner ...            rank=1 on the other node

All else is torchrun's own. Each node announces itself for as long as it waits; node 0 gathers those that are here, and
tells each of them the name of the group, which is never used twice: what is left of an earlier start misleads nobody.
"""

from __future__ import annotations

import secrets
import sys
import time
from pathlib import Path
from typing import Any

import redis
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)

from chorus.protocol.config.load import load_config
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.runtime.redis import connect
from chorus.protocol.runtime.redis_store import RedisStore

BACKEND = "chorus"
DEADLINE_S = 600.0  # for all nodes to come
HERE_S = 3  # a node that has not said for so long that it waits is gone
_POLL_S = 0.2


class Meeting(RendezvousHandler):
    """`name`: of the run; nodes that give the same one meet."""

    def __init__(self, url: str, name: str, rank: int, nodes: int, deadline_s: float = DEADLINE_S) -> None:
        self._url, self._name, self._rank, self._nodes, self._deadline_s = url, name, rank, nodes, deadline_s
        self._group = ""

    def get_backend(self) -> str:
        return BACKEND

    def next_rendezvous(self) -> RendezvousInfo:
        client = connect(self._url)
        self._group = self._gather(client) if self._rank == 0 else self._report(client)
        store = RedisStore(client, self._group, self._deadline_s)
        # The workers take the group's name from torchrun, and no address: nobody listens.
        return RendezvousInfo(store, self._rank, self._nodes, RendezvousStoreInfo("127.0.0.1", 0))

    def _key(self, what: str) -> str:
        return f"chorus:{self._name}:nodes:{what}"

    def _gather(self, client: redis.Redis) -> str:
        group = f"chorus:{self._name}:ranks:{secrets.token_hex(8)}"
        others = range(1, self._nodes)
        end = time.monotonic() + self._deadline_s
        while True:
            here: list[Any] = client.mget([self._key(str(k)) for k in others]) if others else []  # type: ignore[assignment]
            if None not in here:
                for mark in here:
                    client.set(self._key(mark.decode()), group, ex=int(self._deadline_s))
                return group
            if time.monotonic() > end:
                missing = [str(rank) for rank, mark in zip(others, here, strict=True) if mark is None]
                raise CannotGoOn(
                    f"learner: node {', '.join(missing)} of {self._nodes} did not come within {self._deadline_s:g} s; "
                    "start it with the same --rdzv-id and its own --rdzv-conf rank="
                )
            time.sleep(_POLL_S)

    def _report(self, client: redis.Redis) -> str:
        mark = secrets.token_hex(8)
        end = time.monotonic() + self._deadline_s
        while time.monotonic() < end:
            client.set(self._key(str(self._rank)), mark, ex=HERE_S)
            if (told := client.get(self._key(mark))) is not None:
                client.delete(self._key(str(self._rank)))
                return told.decode()  # type: ignore[union-attr]
            time.sleep(_POLL_S)
        raise CannotGoOn(
            f"learner: node 0 of {self._nodes} did not come within {self._deadline_s:g} s; start it with the same "
            "--rdzv-id and --rdzv-conf rank=0"
        )

    def get_run_id(self) -> str:
        """What workers find in TORCHELASTIC_RUN_ID."""
        return self._group or self._name

    def is_closed(self) -> bool:
        return False

    def set_closed(self) -> None:
        """Nobody joins later."""

    def num_nodes_waiting(self) -> int:
        return 0

    def shutdown(self) -> bool:
        return True


def _meeting(asked: RendezvousParameters) -> RendezvousHandler:
    config = load_config(Path(asked.endpoint))
    return Meeting(config.redis.url, asked.run_id, asked.get_as_int("rank", 0) or 0, asked.max_nodes)


def main() -> None:
    from torch.distributed.run import main as torchrun

    rendezvous_handler_registry.register(BACKEND, _meeting)
    torchrun(["--rdzv-backend", BACKEND, *sys.argv[1:]])


if __name__ == "__main__":
    main()
