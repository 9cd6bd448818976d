"""One name for every module, and a package that costs nothing until something is asked of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import chorus

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "src" / "chorus"
ROOMS = sorted(path.name for path in SOURCE.iterdir() if (path / "__init__.py").is_file())


def python(code: str, *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("CHORUS_", "PYTHON"))}
    return subprocess.run(
        [sys.executable, *arguments, "-c", code],
        cwd=cwd,
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_rooms_are_the_folders_that_the_package_links_to() -> None:
    assert {"protocol", "learner", "generator", "reward_server", "cli", "deploy"} <= set(ROOMS)
    for room in ROOMS:
        assert (SOURCE / room).resolve() == ROOT / room


def test_no_room_can_be_imported_by_its_bare_name_even_beside_the_repository_s_folders() -> None:
    code = f"""
import importlib
for room in {ROOMS!r}:
    for name in (room, room + ".main"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            print(error)
        else:
            raise SystemExit(name + " was imported")
"""
    result = python(code, cwd=ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    words = [f"import chorus.{room} instead of {room}, or modules would exist twice" for room in ROOMS for _ in "ab"]
    assert result.stdout.splitlines() == words


def test_a_benchmark_runs_from_a_clone_by_its_path() -> None:
    code = """
import runpy, sys
sys.argv = ["-m", "--help"]
try:
    runpy.run_module("benchmarks.experiments.questa", run_name="__main__")
except SystemExit as ended:
    assert ended.code == 0, ended.code
twice = sorted(name for name in sys.modules if name.startswith("benchmarks"))
assert twice == ["benchmarks", "benchmarks.experiments"], twice  # both hold nothing
"""
    result = python(code, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert "usage: python -m chorus.benchmarks.experiments.questa" in result.stdout


def test_the_package_has_no_second_name_either() -> None:
    result = python("import src.chorus", cwd=ROOT)
    assert result.returncode == 1
    assert "ImportError: src.chorus: import chorus instead" in result.stderr


def test_importing_the_package_imports_nothing_else() -> None:
    code = """
import sys
before = set(sys.modules)
import chorus
assert set(sys.modules) - before == {"chorus"}, set(sys.modules) - before
assert set(chorus.__all__) <= set(dir(chorus))
assert set(sys.modules) - before == {"chorus"}
chorus.compose
assert "chorus.protocol.rewards" in sys.modules and "chorus.reward_server" not in sys.modules
"""
    result = python(code, cwd=ROOT)
    assert result.returncode == 0, result.stderr


def test_the_process_guard_does_not_pass_through_the_package() -> None:
    """It is run as a file, without site-packages: whatever the package imports one day, the guard can't feel it."""
    from chorus.protocol.runtime import guard

    code = f"""
import runpy, sys
runpy.run_path({guard.__file__!r}, run_name="guard")
assert not [name for name in sys.modules if name.startswith("chorus")]
"""
    assert python(code, "-I", "-S", cwd=ROOT).returncode == 0


@pytest.mark.parametrize("name", chorus.__all__)
def test_every_name_that_is_offered_is_there_with_a_docstring(name: str) -> None:
    offered = getattr(chorus, name)
    assert offered.__name__ == name
    assert (offered.__doc__ or "").strip()
    assert offered is getattr(sys.modules[offered.__module__], name)


def test_a_name_that_is_not_offered_is_an_attribute_error_that_says_what_is() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'grades'; it offers .*grade"):
        chorus.grades  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


# Contract (or how its name begins) to a file and a line that breaks it.
PLANTED = {
    "services and libraries stand in layers": ("learner/loop.py", "import chorus.generator.agent"),
    "the reward server and the generator do not know the problems": (
        "generator/agent.py",
        "import chorus.problems.levels",
    ),
    "learner, starter and evaluation do not import vLLM": ("starter/courses.py", "import vllm"),
    "the API process of the reward server does not import sympy": ("reward_server/api/app.py", "import sympy"),
    "the generator's agent does not import torch or vLLM": ("generator/agent.py", "import torch"),
    "the process guard is plain Python": ("protocol/runtime/guard.py", "import pydantic"),
    "protocol/runtime knows nothing of ours": ("protocol/runtime/logs.py", "import chorus.protocol.rewards"),
    "the rooms of protocol/ stand in layers": ("protocol/rewards/spec.py", "import chorus.protocol.messages"),
    "the rooms of learner/ stand in layers": ("learner/validation.py", "import chorus.learner.loop"),
    "training knows nothing of rollouts": ("learner/training/batch.py", "import chorus.learner.rollouts.window"),
    "objectives are pure functions": ("learner/objectives/kl.py", "import redis"),
    "the rooms of reward_server/ stand in layers": (
        "reward_server/graders/text.py",
        "import chorus.reward_server.api.app",
    ),
}


def test_planted_forbidden_imports_break_every_contract(tmp_path: Path) -> None:
    """A contract over modules that are not looked at is kept for ever. Add a line to PLANTED for a new one."""
    shutil.copytree(SOURCE, tmp_path / "chorus", ignore=shutil.ignore_patterns("__pycache__", "kubernetes", "grafana"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    names = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert _broken(tmp_path) == set()
    for file, line in PLANTED.values():
        path = tmp_path / "chorus" / file
        text = path.read_text()
        head = '"""\n\n'  # the end of the module's docstring
        assert head in text
        path.write_text(text.replace("\nfrom __future__ import annotations\n", "").replace(head, f"{head}{line}\n", 1))
    assert _broken(tmp_path) == {contract["name"] for contract in names}


def _broken(folder: Path) -> set[str]:
    code = """
from importlinter.cli import lint_imports
import sys
sys.exit(lint_imports(no_cache=True))
"""
    result = python(code, cwd=folder, PYTHONPATH=str(folder), COLUMNS="300")
    assert "Contracts: " in result.stdout, result.stdout + result.stderr
    return {line.removesuffix(" BROKEN") for line in result.stdout.splitlines() if line.endswith(" BROKEN")}
