"""The learner's end of weight syncs, to be run on a host of its own: `learner.py URL HOST`.

Asked on its standard input for `FAN_OUT REPLICAS` it waits for so many, sends them weights twice (the first time they
meet), and writes how long the second time took, in seconds.
"""

from __future__ import annotations

import os
import sys
import time

import redis
import torch
from replica import filled

from chorus.learner.weight_sync.broadcaster import Broadcaster
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import LearnerLedger
from chorus.protocol.metrics.processes import LearnerMetrics
from chorus.protocol.runtime.redis import RENDEZVOUS

MEGABYTES = 12
DEADLINE_S = 30.0


def sync(client: redis.Redis, host: str, fan_out: str, replicas: int, fence: int) -> float:
    config = RunConfig.model_validate(
        {
            "model": {"path": "any"},
            "problems": {"train": ["any"]},
            "templates": {"names": ["any"]},
            "learner": {"sync_deadline_s": DEADLINE_S, "bucket_bytes": 2**21, "host": host, "fan_out": fan_out},
        }
    )
    broadcaster = Broadcaster(config, client, "run", "gloo", torch.device("cpu"), LearnerMetrics())
    took_s = 0.0
    for step in (1, 2):
        end = time.monotonic() + DEADLINE_S
        while sum(link.waits for link in broadcaster.links.values()) < replicas:
            assert time.monotonic() < end, "they do not come"
            time.sleep(0.01)
        snapshot = filled(step, [(str(k), 2**18) for k in range(MEGABYTES)], 2**21, fence)
        began = time.monotonic()
        broadcaster.publish(snapshot)
        assert broadcaster.wait_synced(replicas, DEADLINE_S) == replicas
        took_s = time.monotonic() - began
    broadcaster.close()
    return took_s


if __name__ == "__main__":
    torch.set_num_threads(1)
    url, host = sys.argv[1:]
    os.environ[RENDEZVOUS] = f"run {url}"
    client = redis.Redis.from_url(url)
    LearnerLedger(client, "run")
    for fence, line in enumerate(sys.stdin, 1):
        fan_out, replicas = line.split()
        print(sync(client, host, fan_out, int(replicas), fence), flush=True)
