"""The wheel, installed far from any checkout: it is whole and does what the README promises. And what images hold."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "chorus"
STAYS_HERE = ("benchmarks/", "deploy/docker/", "deploy/kubernetes/", "deploy/tools/")
pytestmark = pytest.mark.slow


def expected_files() -> set[str]:
    """What the wheel must hold of the package: all modules, and what they read beside them."""
    found = set()
    for folder, _, names in os.walk(SOURCE, followlinks=True):
        for name in names:
            path = (Path(folder) / name).relative_to(SOURCE).as_posix()
            kept = name.endswith((".py", ".toml", ".html", ".css", ".svg", ".js")) or name == "py.typed"
            if kept and not path.startswith((*STAYS_HERE, "deploy/grafana/")):
                found.add(f"chorus/{path}")
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the Makefile's own commands."""
    folder = tmp_path_factory.mktemp("dist")
    # -o: what runs these tests is installed.
    command = ["make", "-o", "install", f"BIN={Path(sys.executable).parent}", f"DIST={folder}", "dist"]
    run(command, cwd=ROOT)
    assert len(list(folder.glob("*.tar.gz"))) == 1
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def commands(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an environment's commands: the wheel, and the packages that are installed here but for Chorus.

    A path file adds packages without obeying those that lie among them, so that our editable install is none of it.
    """
    folder = tmp_path_factory.mktemp("elsewhere") / "env"
    run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    packages.joinpath("others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(folder / "bin" / "python")]
    run([*pip, "install", "--quiet", "--no-deps", "--no-index", "--ignore-installed", str(wheel)])
    return folder / "bin"


@pytest.fixture
def away(tmp_path: Path) -> Path:
    assert ROOT not in tmp_path.parents
    return tmp_path


def run(command: list[str], cwd: Path | None = None) -> str:
    result = subprocess.run(
        command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, f"{command}:\n{result.stdout}\n{result.stderr}"
    return result.stdout


def environment(**more: str) -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("CHORUS_", "PYTHON", "MAKE"))} | more


def test_the_wheel_holds_every_module_and_every_file_that_one_reads(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == expected_files()
    assert {"chorus/recipes/demo.toml", "chorus/reward_server/playground/index.html", "chorus/py.typed"} <= held


def test_the_package_is_imported_from_the_wheel_and_its_rooms_have_one_name(commands: Path, away: Path) -> None:
    code = "import chorus, importlib.util as u; print(chorus.__file__, u.find_spec('learner'), u.find_spec('protocol'))"
    place, *bare = run([str(commands / "python"), "-P", "-c", code], cwd=away).split()
    assert Path(place).is_relative_to(commands.parent)
    assert bare == ["None", "None"]


def test_recipes_are_listed_one_is_written_and_its_dry_run_works(commands: Path, away: Path) -> None:
    chorus = str(commands / "chorus")
    listed = run([chorus, "recipes"], cwd=away)
    assert all(path.stem in listed for path in (ROOT / "recipes").glob("*.toml"))
    assert "chorus run my.toml --dry-run" in run([chorus, "init", "my.toml"], cwd=away)
    assert "# optimizer steps" in (away / "my.toml").read_text()
    told = run([chorus, "run", "my.toml", "--dry-run"], cwd=away)
    assert '"path": "starter"' in told
    assert [path.name for path in away.iterdir()] == ["my.toml"]


def test_the_reward_server_grades_over_http_and_shows_its_page(commands: Path, away: Path) -> None:
    command = [str(commands / "chorus"), "reward-server", "--port", "0", "--workers", "1"]
    server = subprocess.Popen(command, cwd=away, env=environment(), stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        with httpx.Client(base_url=server.stdout.readline().split()[1], timeout=60) as http:
            item = {"completion": "<think>3 + 4</think> <answer>\\boxed{7}</answer>", "gold": "7"}
            grade = http.post("/v1/grade", json=item | {"template": "deepseek-r1"}).json()
            assert (grade["verdict"], grade["format"], grade["reward"]) == ("correct", 1.0, 2.0)
            assert "<html" in http.get("/").text
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)
    assert server.returncode == 0


def admitted(patterns: list[str], path: str) -> bool:
    """Whether .dockerignore lets a file into the image's build: the last pattern that matches it, or a folder above."""
    kept = True
    for pattern in patterns:
        parts = path.split("/")
        whole = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        glob = pattern.removeprefix("!")
        anywhere = glob.removeprefix("**/")
        if any(fnmatch(name, glob) and name.count("/") == glob.count("/") for name in whole) or (
            anywhere != glob and any(fnmatch(part, anywhere) for part in parts)
        ):
            kept = pattern.startswith("!")
    return kept


def test_images_are_built_from_all_that_the_package_needs(wheel: Path, away: Path) -> None:
    """`COPY . /src` and `pip install --no-deps --target /opt/chorus /src`, as the Dockerfiles have it."""
    ignore = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    tracked = run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT).splitlines()
    for name in filter(lambda name: admitted(ignore, name), tracked):
        target = away / "src" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target, follow_symlinks=False)
    assert not (away / "src" / "tests").exists()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index", "--no-deps"]
    run([*pip, "--no-build-isolation", "--target", str(away / "opt"), str(away / "src")], cwd=away)
    installed = {path.relative_to(away / "opt").as_posix() for path in (away / "opt" / "chorus").rglob("*")}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {name for name in installed if not (away / "opt" / name).is_dir() and "__pycache__" not in name} == held
    command = [sys.executable, "-P", "-c", "import chorus; print(chorus.__file__, len(chorus.load_templates()))"]
    told = subprocess.run(
        command, cwd=away, env=environment(PYTHONPATH=str(away / "opt")), capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == [str(away / "opt" / "chorus" / "__init__.py"), "13"]
    assert (away / "opt" / "bin" / "chorus").is_file()
