"""The compose files and Dockerfiles as far as they can be judged without an engine; `make compose-test` runs them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from compose_checks import problems_of
from compose_tools import HERE, ROOT, clean_environment, compose_command, hadolint_command

from chorus.protocol.config.load import load_config

DOCKERFILES = sorted((ROOT / "deploy" / "docker").glob("*.Dockerfile"))
STAND_INS = sorted(HERE.glob("*.Dockerfile"))
CPU, GPU, TEST = (ROOT / "docker-compose.yml", ROOT / "docker-compose.gpu.yml", HERE / "docker-compose.test.yml")
STACKS = [(CPU,), (CPU, GPU), (CPU, TEST)]
SERVICES = {"init", "redis", "reward-server", "generator", "learner", "prometheus", "grafana"}


def compose_config(*files: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    arguments = [word for file in files for word in ("--file", str(file))]
    return subprocess.run(
        [*compose_command(), "--project-directory", str(ROOT), *arguments, "config", "--format", "json"],
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def resolved(*files: Path, **environment: str) -> dict:
    result = compose_config(*files, **environment)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def hadolint(file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*hadolint_command(), str(file)], capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("file", DOCKERFILES + STAND_INS, ids=lambda file: file.name)
def test_a_dockerfile_is_clean(file: Path) -> None:
    result = hadolint(file)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("file", sorted((HERE / "broken").glob("*.Dockerfile")), ids=lambda file: file.name)
def test_a_broken_dockerfile_is_refused_for_the_rule_that_it_breaks(file: Path) -> None:
    result = hadolint(file)
    assert result.returncode == 1
    assert file.name.partition(".")[0] in result.stdout  # each is named after its rule


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_a_dockerfile_is_multi_stage_pinned_non_root_and_asks_for_no_frontend(file: Path) -> None:
    text = file.read_text()
    bases = re.findall(r"^FROM (\S+) AS (\S+)", text, re.MULTILINE)
    stages = {name for _, name in bases}
    assert len(bases) >= 3
    assert {base for base, _ in bases if base not in stages} <= {
        "python:3.11.15-slim-bookworm",
        f"vllm/vllm-openai:v{_vllm_version()}",
    }
    assert "# syntax=" not in text  # it would be pulled before anything can be built
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE)[-1] == "10001:10001"
    final = re.split(r"^FROM ", text, flags=re.MULTILINE)[-1]
    assert "HEALTHCHECK" in final
    assert "ENTRYPOINT" in text


def _vllm_version() -> str:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    return next(r.removeprefix("vllm==") for r in extras["gpu"] if r.startswith("vllm=="))


@pytest.mark.parametrize("files", STACKS, ids=lambda files: "+".join(file.name for file in files))
def test_a_stack_resolves_and_keeps_our_rules(files: tuple[Path, ...]) -> None:
    assert problems_of(resolved(*files)) == []


def test_the_stack_has_the_services_that_others_name() -> None:
    config = resolved(CPU)
    assert set(config["services"]) == SERVICES
    published = {n: [p["target"] for p in s["ports"]] for n, s in config["services"].items() if "ports" in s}
    assert published == {"reward-server": [8100], "prometheus": [9090], "grafana": [3000]}


@pytest.mark.parametrize("files", STACKS, ids=lambda files: "+".join(file.name for file in files))
def test_the_viewer_is_there_when_it_is_asked_for_and_reads_alone(files: tuple[Path, ...]) -> None:
    config = resolved(*files, COMPOSE_PROFILES="view", CHORUS_VIEW_TOKEN="secret")
    assert problems_of(config) == []
    view = config["services"]["view"]
    assert [(port["host_ip"], port["target"], port["published"]) for port in view["ports"]] == [
        ("127.0.0.1", 8200, "8200")
    ]
    assert view["environment"]["CHORUS_VIEW_TOKEN"] == "secret"
    assert view["command"][0] == "view"
    assert all(mount["read_only"] for mount in view["volumes"])


def test_the_reward_server_reads_the_recipe_that_the_run_is_prepared_from() -> None:
    services = resolved(CPU, CHORUS_RECIPE="recipes/mine.toml")["services"]
    command = services["reward-server"]["command"]
    assert command[command.index("--recipe") + 1] == "recipes/mine.toml"
    assert services["init"]["command"][1] == "recipes/mine.toml"
    mounted = [
        {v["target"] for v in services[name]["volumes"] if v["type"] == "bind"} for name in ("init", "reward-server")
    ]
    assert mounted == [{"/chorus/recipes"}] * 2


def test_every_path_that_is_mounted_from_the_repository_is_in_it() -> None:
    """Docker makes an empty folder of one that is missing, and the service starts with nothing."""
    mounts = [v for service in resolved(CPU)["services"].values() for v in service.get("volumes", [])]
    sources = {v["source"] for v in mounts if v["type"] == "bind"}
    assert sources
    missing = [source for source in sources if not Path(source).exists()]
    assert missing == []


@pytest.mark.parametrize("files", [(CPU,), (CPU, GPU)], ids=["cpu", "gpu"])
def test_volumes_are_mounted_where_the_image_has_a_folder_that_its_user_owns(files: tuple[Path, ...]) -> None:
    """Else a new volume belongs to root, and the service can't write to it."""
    ours = [service for service in resolved(*files)["services"].values() if service["image"].startswith("chorus-")]
    mounted = {
        (service["build"]["dockerfile"], mount["target"])
        for service in ours
        for mount in service.get("volumes", [])
        if mount["type"] == "volume"
    }
    assert {target for _, target in mounted} == {"/runs", "/models", "/kernels"}
    for dockerfile, target in mounted:
        (folders,) = re.findall(r"install -d -o 10001 -g 10001 (.+)", (ROOT / dockerfile).read_text())
        assert target in folders.split()


def test_on_gpus_nothing_is_bound_to_cpu_cores_and_each_role_has_its_devices() -> None:
    config = resolved(CPU, GPU, CHORUS_LEARNER_GPUS="0,1", CHORUS_GENERATOR_GPUS="[2],[3]")["services"]
    for name in ("learner", "generator"):
        [device] = config[name]["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["count"]) == ("nvidia", -1)
    assert config["learner"]["environment"]["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert config["init"]["environment"]["CHORUS_PLACEMENT__LEARNER_GPUS"] == "[0,1]"
    assert config["init"]["environment"]["CHORUS_PLACEMENT__GENERATOR_GPUS"] == "[[2],[3]]"
    assert "cpuset" not in config["learner"]
    assert "--cpus" not in " ".join(config["generator"]["command"])
    assert not {"OMP_NUM_THREADS", "VLLM_CPU_OMP_THREADS_BIND"} & set(config["generator"]["environment"])
    for name in ("init", "learner", "generator"):
        assert config[name]["build"]["dockerfile"] == "deploy/docker/gpu.Dockerfile"


@pytest.mark.parametrize(("learner", "generators"), [("0", "[0]"), ("0,1", "[2],[3]"), ("0", "[1,2],[3,4]")])
def test_the_devices_in_compose_are_a_placement_that_a_recipe_could_name(learner: str, generators: str) -> None:
    config = resolved(CPU, GPU, CHORUS_LEARNER_GPUS=learner, CHORUS_GENERATOR_GPUS=generators)["services"]
    told = {k: v for k, v in config["init"]["environment"].items() if k.startswith("CHORUS_PLACEMENT__")}
    placement = load_config(ROOT / "recipes" / "demo.toml", (), told).placement
    assert placement.learner_gpus == [int(gpu) for gpu in learner.split(",")]
    assert placement.generator_gpus == json.loads(f"[{generators}]")


def test_on_gpus_learner_ranks_go_under_torchrun_with_their_grace() -> None:
    learner = resolved(CPU, GPU)["services"]["learner"]
    assert learner["entrypoint"][:2] == ["tini", "--"]
    assert {"torch.distributed.run", "--nproc-per-node=gpu", "--shutdown-timeout=125"} <= set(learner["entrypoint"])
    assert learner["command"][0] == "learner"
    assert "--resume" in learner["command"]


def test_on_gpus_problem_files_are_where_a_recipe_s_paths_lead_and_are_not_made_up() -> None:
    services = resolved(CPU, GPU)["services"]
    for name in ("init", "learner"):
        [data] = [v for v in services[name]["volumes"] if v["target"] == "/chorus/data"]
        assert data["source"] == str(ROOT / "data")
        assert data["read_only"]
        assert data["bind"].get("create_host_path", False) is False


def test_each_generator_takes_devices_of_its_own_for_as_long_as_it_lives(tmp_path: Path) -> None:
    """The entrypoint itself, with a stand-in for chorus that says what it was given and waits to be ended."""
    if shutil.which("flock") is None:
        pytest.skip("there is no flock here (util-linux)")
    entry = resolved(CPU, GPU)["services"]["generator"]["entrypoint"][2:]
    script = entry[2].replace("$$", "$").replace("/kernels", str(tmp_path))
    chorus = tmp_path / "chorus"
    chorus.write_text('#!/bin/sh\necho "$CUDA_VISIBLE_DEVICES: $*"\nexec sleep 60\n')
    chorus.chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "GENERATOR_GPUS": "[2,3], [4]"}

    def start() -> subprocess.Popen[str]:
        command = [*entry[:2], script, entry[3], "generator", "--run-id", "demo"]
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def said(process: subprocess.Popen[str]) -> str:
        assert process.stdout
        return process.stdout.readline().strip()

    first, second = start(), start()
    try:
        assert {said(first), said(second)} == {"2,3: generator --run-id demo", "4: generator --run-id demo"}
        third = start()
        assert third.wait(10) == 3
        assert third.stderr
        assert "has no list of GPUs that is free; name more, or scale down" in third.stderr.read()
        first.kill()
        first.wait(10)
        again = start()
        assert said(again).endswith(": generator --run-id demo")
        again.kill()
        again.wait(10)
    finally:
        for process in (first, second):
            process.kill()
            process.wait(10)


@pytest.mark.parametrize("file", sorted((HERE / "broken").glob("compose-*.yml")), ids=lambda file: file.name)
def test_compose_refuses_a_broken_file(file: Path) -> None:
    result = compose_config(CPU, file)
    assert result.returncode != 0
    assert _first_comment(file) in result.stderr


@pytest.mark.parametrize("file", sorted((HERE / "broken").glob("ours-*.yml")), ids=lambda file: file.name)
def test_our_own_checks_refuse_what_compose_accepts(file: Path) -> None:
    assert problems_of(resolved(CPU, file)) == [_first_comment(file)]


def _first_comment(file: Path) -> str:
    return file.read_text().splitlines()[0].removeprefix("# ")
