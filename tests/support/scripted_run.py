"""A whole `chorus run` whose engines are scripted: real launcher, Valkey, reward server, learner and agents.

    python tests/support/scripted_run.py RECIPE [--resume RUN] [--real N] [--set KEY=VALUE ...]

The first N generators are real ones, with vLLM. CHORUS_TEST_PROXIES: ports of proxies to Redis, one a generator, in
order. CHORUS_TEST_ENGINE: the program beside this one that is the other generators, receiving.py if it is not set.
CHORUS_TEST_LEARNER: the program beside this one that is the learner, instead of the command itself.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

RECIPE = """
[run]
dir = "{runs}"
steps = {steps}
[model]
path = "{model}"
dtype = "float32"
context = 96
[problems]
train = ["arithmetic:chain?max=4&split=train"]
max_prompt_tokens = 80
[templates]
names = ["qwen-math"]
[sampling]
group_size = 4
max_tokens = 16
[staleness]
target = 1
max = 4
[learner]
groups_per_step = 4
lr = 1e-3
checkpoint_every = 5
keep_checkpoints = 3
sync_deadline_s = 4.0
head_deadline_s = 20.0
bucket_bytes = 65536
[generator]
replicas = {replicas}
lease_s = 3.0
group_deadline_s = 120.0
[reward]
workers = 1
deadline_s = 90.0
"""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--real", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    args = parser.parse_args(argv)

    from chorus.deploy import supervisor
    from chorus.deploy.launcher import run
    from chorus.deploy.services import Chosen, services_of
    from chorus.deploy.supervisor import Service
    from chorus.protocol.config.load import load_config
    from chorus.protocol.runtime.exits import CANNOT_GO_ON, CannotGoOn

    supervisor.MAX_RESTARTS = 10_000  # here a death is no sign of a fault in the service
    supervisor.RESTART_DELAY_S = 0.3
    proxies = [int(port) for port in os.environ.get("CHORUS_TEST_PROXIES", "").split(",") if port]
    here = Path(__file__).parent
    program = str(here / os.environ.get("CHORUS_TEST_ENGINE", "receiving.py"))

    def scripted(service: Service) -> Service:
        if service.role == "learner" and (learner := os.environ.get("CHORUS_TEST_LEARNER")):
            return replace(service, argv=(sys.executable, str(here / learner), *_arguments(service)))
        if service.role != "generator":
            return service
        n = int(service.name.removeprefix("gen-"))
        argv = service.argv if n < args.real else (sys.executable, program, *_arguments(service))
        if proxies:
            argv += ("--set", f"redis.url=redis://127.0.0.1:{proxies[n]}/0")
        return replace(service, argv=argv)

    def services(chosen: Chosen) -> list[Service]:
        return [scripted(service) for service in services_of(chosen)]

    source = args.resume / "config.json" if args.resume else args.recipe
    config = load_config(source, args.overrides)
    try:
        return run(config, str(args.recipe), resume=args.resume, services=services)
    except CannotGoOn as error:
        print(f"chorus run: {error}", file=sys.stderr)
        return CANNOT_GO_ON


def _arguments(service: Any) -> tuple[str, ...]:
    """What follows the module of the command line: the role and its options."""
    return service.argv[service.argv.index("chorus.cli.main") + 1 :]


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.exit(main(sys.argv[1:]))
