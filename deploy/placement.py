"""Which cores and GPUs the learner and each generator get.

Left out of the recipe, `[placement]` is chosen here. On the CPU the learner and the generators never share a
core where there are two or more: OpenMP teams that share one make steps up to ten times slower. On GPUs the
learner gets a quarter of the devices and each generator one of the others, since generating costs more than
training on what was generated; on a single GPU they share it.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chorus.protocol.config.run import Gpu, RunConfig
from chorus.protocol.runtime.exits import CannotGoOn

_MOST_GRADERS = 16
_UUID = re.compile(r"\(UUID: ([^)]+)\)")
_TRACES = ("/proc/driver/nvidia", "/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/dxg", "/dev/kfd")  # of a GPU's driver


@dataclass(frozen=True)
class Placement:
    """One entry a generator replica in the `generator_` lists. Without GPUs the `_gpus` are empty; `all_gpus` are those
    that there are, used or not."""

    learner_cpus: list[int]
    generator_cpus: list[list[int]]
    learner_gpus: list[Gpu]
    generator_gpus: list[list[Gpu]]
    learner_ranks: int
    all_gpus: list[Gpu] = field(default_factory=list)

    @property
    def replicas(self) -> int:
        return len(self.generator_cpus)

    @property
    def shares_gpus(self) -> bool:
        """Whether the learner and a generator are on one device."""
        return bool(set(self.learner_gpus) & {gpu for gpus in self.generator_gpus for gpu in gpus})

    @property
    def idle_gpus(self) -> list[Gpu]:
        used = {*self.learner_gpus, *(gpu for gpus in self.generator_gpus for gpu in gpus)}
        return [gpu for gpu in self.all_gpus if gpu not in used]

    def describe(self) -> str:
        """One line for people."""
        if self.learner_gpus:
            text = f"learner on GPU {_listed(self.learner_gpus)}, generators on GPU " + " | ".join(
                _listed(gpus) for gpus in self.generator_gpus
            )
            text += "; they share a device, so weights go through host memory (gloo)" if self.shares_gpus else ""
            return text + (f"; GPU {_listed(self.idle_gpus)} stays idle" if self.idle_gpus else "")
        return f"learner on core {_listed(self.learner_cpus)}, generators on core " + " | ".join(
            _listed(cpus) for cpus in self.generator_cpus
        )


def place(config: RunConfig, cores: list[int], gpus: Sequence[Gpu]) -> Placement:
    """The recipe's placement, completed for these cores and GPUs. Raises CannotGoOn where it does not fit."""
    wanted = config.placement
    learner_gpus, generator_gpus = _gpus(config, list(gpus))
    replicas = len(generator_gpus) or len(wanted.generator_cpus or ()) or config.generator.replicas
    if generator_gpus:
        # The GPU does the work; the cores only feed it.
        learner_cpus, generator_cpus = cores, [cores] * replicas
    else:
        learner_cpus, generator_cpus = _split(cores, replicas)
    learner_cpus = wanted.learner_cpus or learner_cpus
    generator_cpus = wanted.generator_cpus or generator_cpus
    _check("placement.learner_cpus", learner_cpus, cores, "core")
    _check("placement.generator_cpus", [core for group in generator_cpus for core in group], cores, "core")
    if len(generator_cpus) != replicas:
        raise CannotGoOn(
            f"placement.generator_cpus has {len(generator_cpus)} lists for {replicas} replicas; give one each"
        )
    ranks = wanted.learner_ranks or max(1, len(learner_gpus))
    return Placement(learner_cpus, generator_cpus, learner_gpus, generator_gpus, ranks, list(gpus))


def graders(config: RunConfig, placement: Placement) -> int:
    """Grader processes: the recipe's, else one on CPUs, and beside GPUs one for eight cores. A step's samples come at
    once when it ends with the slowest, and whoever grades them fast keeps no card waiting."""
    if "workers" in config.reward.model_fields_set or not placement.learner_gpus:
        return config.reward.workers
    return max(1, min(_MOST_GRADERS, len(placement.learner_cpus) // 8))


def visible_cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[Gpu]:
    """CUDA's names of the devices that this process would see, as CUDA_VISIBLE_DEVICES gives them (numbers, UUIDs of
    cards or of MIG instances), else the driver's numbers. Raises CannotGoOn for names that lead to no device.

    The driver's tool is asked: torch takes seconds.
    """
    text = environment.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return list(range(len([name for name in _driver_s_names() or [] if name.startswith("GPU-")])))
    wanted: list[Gpu] = []
    for name in filter(None, (part.strip() for part in text.split(","))):
        if name in ("-1", "NoDevFiles", "none", "void"):  # CUDA takes none from here on
            break
        if not name.isdecimal() and not name.startswith(("GPU-", "MIG-")):
            raise CannotGoOn(
                f"CUDA_VISIBLE_DEVICES={text}: {name!r} names no GPU; give numbers, GPU-UUIDs or MIG-UUIDs as "
                "`nvidia-smi -L` lists them, or nothing to run on the CPU"
            )
        wanted.append(int(name) if name.isdecimal() else name)
    if wanted:
        _check_visible(text, wanted)
    return wanted


def card_gib() -> float | None:
    """Memory of the smallest card here; None where no tool tells."""
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
        return min(float(line) for line in told.stdout.split()) / 1024
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def _check_visible(text: str, wanted: list[Gpu]) -> None:
    """CUDA itself passes in silence over what it does not know, and over everything after it."""
    names = _driver_s_names()
    if names is None:
        if any(Path(trace).exists() for trace in _TRACES):
            return  # a driver without its tool, as some images have it
        raise CannotGoOn(
            f"CUDA_VISIBLE_DEVICES={text}: there is no GPU driver on this machine; unset it to run on the CPU"
        )
    cards = sum(name.startswith("GPU-") for name in names)
    for n, name in enumerate(wanted):
        found = name < cards if isinstance(name, int) else any(known.startswith(name) for known in names)
        if not found:
            here = f"nvidia-smi lists {', '.join(names) or 'none'}"
            raise CannotGoOn(f"CUDA_VISIBLE_DEVICES={text}: there is no GPU {name} here ({here}); name one of these")
        if name in wanted[:n]:
            raise CannotGoOn(
                f"CUDA_VISIBLE_DEVICES={text}: {name} is named twice, and CUDA then sees none; name it once"
            )


def _driver_s_names() -> list[str] | None:
    """UUIDs of all cards and MIG instances; None where there is no tool that tells."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return _UUID.findall(listed.stdout)


def _gpus(config: RunConfig, gpus: list[Gpu]) -> tuple[list[Gpu], list[list[Gpu]]]:
    wanted = config.placement
    if wanted.learner_gpus is None and wanted.generator_gpus is None:
        return _choose_gpus(gpus, config)
    if wanted.learner_gpus is None or wanted.generator_gpus is None:
        raise CannotGoOn(
            "placement: learner_gpus and generator_gpus belong together; give both, or neither to have them chosen"
        )
    _check("placement.learner_gpus", wanted.learner_gpus, gpus, "GPU")
    _check("placement.generator_gpus", [gpu for group in wanted.generator_gpus for gpu in group], gpus, "GPU")
    return wanted.learner_gpus, wanted.generator_gpus


def _choose_gpus(gpus: list[Gpu], config: RunConfig) -> tuple[list[Gpu], list[list[Gpu]]]:
    if not gpus:
        return [], []
    if len(gpus) == 1:
        return gpus, [gpus] * config.generator.replicas
    learners = config.placement.learner_ranks or max(1, len(gpus) // 4)
    rest = gpus[learners:]
    if "replicas" in config.generator.model_fields_set:
        rest = rest[: config.generator.replicas]
    if not rest:
        raise CannotGoOn(f"placement.learner_ranks is {learners} and there are {len(gpus)} GPUs; leave one to generate")
    return gpus[:learners], [[gpu] for gpu in rest]


def _split(cores: list[int], replicas: int) -> tuple[list[int], list[list[int]]]:
    """The upper half for the learner, the lower shared out among the replicas."""
    if len(cores) == 1:
        return cores, [cores] * replicas
    half = (len(cores) + 1) // 2
    ours = cores[:half]
    if replicas >= half:
        return cores[half:], [[ours[n % half]] for n in range(replicas)]
    size = half // replicas
    return cores[half:], [ours[n * size : (n + 1) * size] for n in range(replicas)]


def _check(key: str, wanted: Sequence[Gpu], present: Sequence[Gpu], what: str) -> None:
    missing = [name for name in dict.fromkeys(wanted) if name not in present]
    if missing:
        raise CannotGoOn(
            f"{key}: no {what} {_listed(missing)} here; there are {_listed(present) or 'none'}: name these, or leave "
            "`[placement]` out"
        )


def _listed(names: Sequence[Gpu]) -> str:
    return ",".join(map(str, names))
