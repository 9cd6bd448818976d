"""What the overlays give, against the rules and against Chorus itself: its options, its configuration, its limits."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from manifest_rules import complaints, quantity
from manifests import KUBERNETES, Object, Pods, environment, expand, find, kustomized, pods, render

from chorus.cli.main import COMMANDS, main
from chorus.deploy.memory import host_bytes, verdict
from chorus.deploy.placement import place
from chorus.deploy.services import MARGIN_S
from chorus.deploy.shapes import model_of
from chorus.deploy.sizes import planned
from chorus.protocol.config.load import load_config
from chorus.protocol.config.run import PlacementSection as Ranks
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import Keys
from chorus.reward_server.main import DRAIN_GRACE_S

ROOT = Path(__file__).parents[3]
NAME = "app.kubernetes.io/name"
OVERLAYS = ["cpu", "gpu", "gpu-4", "gpu-7b", "keda"]
overlays = pytest.mark.parametrize("overlay", OVERLAYS)
BY_HAND = ["files.yaml", "results.yaml"]  # pods that somebody starts beside a run


def pods_of(objects: list[Object], name: str) -> Pods:
    return next(p for p in pods(objects) if p.labels[NAME] == name)


def configured(objects: list[Object], name: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> RunConfig:
    """The configuration as `name`'s main container gets it: the recipe, under the container's environment."""
    values = environment(objects, pods_of(objects, name), name)
    for key in [key for key in os.environ if key.startswith("CHORUS_")]:
        monkeypatch.delenv(key)
    for key, value in values.items():
        if key.startswith("CHORUS_"):
            monkeypatch.setenv(key, value if value is not None else "10.0.0.7")
    recipe = folder / str(values["RECIPE"])
    recipe.write_text(find(objects, "ConfigMap", "recipes")["data"][values["RECIPE"]])
    return load_config(recipe)


@overlays
def test_no_rule_is_broken(overlay: str) -> None:
    assert complaints(render(overlay)) == []


@pytest.mark.parametrize("file", BY_HAND)
def test_a_pod_for_files_breaks_no_rule_and_brings_no_image_of_its_own(file: str) -> None:
    pod = yaml.safe_load((KUBERNETES / file).read_text())
    assert complaints([*render("cpu"), pod]) == []
    assert pod["spec"]["containers"][0]["image"] == pods_of(render("cpu"), "redis").spec["containers"][0]["image"]


def test_problem_files_can_be_brought_in_while_the_learner_holds_the_volume_of_runs() -> None:
    """That volume is for one node at a time: a pod on another one would wait for it until the run has ended."""
    pod = yaml.safe_load((KUBERNETES / "files.yaml").read_text())
    claims = {v["persistentVolumeClaim"]["claimName"] for v in pod["spec"]["volumes"]}
    modes = {name: find(render("gpu"), "PersistentVolumeClaim", name)["spec"]["accessModes"] for name in claims}
    assert modes == {"models": ["ReadWriteMany"]}
    wish = yaml.safe_load((KUBERNETES / "results.yaml").read_text())["spec"]["affinity"]["podAffinity"]
    [term] = wish["preferredDuringSchedulingIgnoredDuringExecution"]
    learner = pods_of(render("gpu"), "learner").labels
    assert term["podAffinityTerm"]["labelSelector"]["matchLabels"].items() <= learner.items()


def test_the_evaluation_is_one_of_a_run_and_its_problems_that_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    job = yaml.safe_load((KUBERNETES / "eval.yaml").read_text())
    objects = render("gpu")
    assert complaints([*objects, job]) == []
    container = job["spec"]["template"]["spec"]["containers"][0]
    run = find(objects, "ConfigMap", "run")["data"]
    assert container["args"][1] == f"/runs/{run['RUN_ID']}"
    assert f"--data=/models/data/{run['FETCH']}" in container["args"]
    assert main(container["args"]) == 3
    assert "/runs/qwen2.5-math-1.5b" in capsys.readouterr().err, "every option is known, and the run is not here"


def test_all_manifests_are_named_in_the_readme() -> None:
    text = (ROOT / "deploy" / "README.md").read_text()
    ours = [path for path in (*KUBERNETES.iterdir(), *(KUBERNETES / "overlays").iterdir()) if path.name != "overlays"]
    assert {path.name for path in ours} >= {"files.yaml", "results.yaml", "eval.yaml", "gpu-7b"}
    assert [path.name for path in ours if f"`{path.name}`" not in text and f"/{path.name}/`" not in text] == []


@pytest.mark.parametrize("overlay", ["gpu", "gpu-4", "gpu-7b", "keda"])
def test_the_problems_are_fetched_before_learner_and_generators_want_them(
    overlay: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    objects = render(overlay)
    fetch = pods_of(objects, "data").containers[0]
    folder = re.findall(r'--to "(/models/data/)\$FETCH"', fetch["args"][0])[0] + "math"
    wanted = configured(objects, "learner", monkeypatch, tmp_path).problems
    assert all(f"/models/{source}".startswith(folder) for source in [*wanted.train, *wanted.heldout])
    for name in ("learner", "generator"):
        first, prepare, *_ = pods_of(objects, name).containers
        assert prepare["workingDir"] == "/models"
        monkeypatch.setenv("FETCH", "math")
        (tmp_path / "data" / "math").mkdir(parents=True, exist_ok=True)
        script = [*first["command"][2:], first["args"][0].replace("/models", str(tmp_path))]
        waiting = subprocess.Popen(script)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(0.1)
        waiting.kill()
        waiting.wait(10)
        (tmp_path / "data" / "math" / "README.md").write_text("all there")
        subprocess.run(script, timeout=10, check=True)
        monkeypatch.setenv("FETCH", "")
        (tmp_path / "data" / "math" / "README.md").unlink()
        subprocess.run(script, timeout=10, check=True)


@pytest.mark.parametrize(("overlay", "gpus"), [("gpu", 3), ("gpu-4", 8), ("gpu-7b", 8)])
def test_a_gpu_overlay_fits_cards_of_80_gb_by_the_dry_run(
    overlay: str, gpus: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    objects = render(overlay)
    learner, generator = pods_of(objects, "learner"), find(objects, "Deployment", "generator")
    ranks = int(learner.spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
    assert ranks + generator["spec"]["replicas"] == gpus
    config = configured(objects, "learner", monkeypatch, tmp_path)
    model = model_of(config.model.path)
    assert model is not None
    placement = place(config.model_copy(update={"placement": Ranks(learner_ranks=ranks)}), [0, 1], list(range(gpus)))
    assert verdict(config, model, placement, 80).as_is is None
    memory = quantity(learner.spec["containers"][0]["resources"]["requests"]["memory"])
    assert memory is not None
    assert memory > host_bytes(config, model, ranks)
    volume = find(objects, "PersistentVolumeClaim", "runs")["spec"]["resources"]["requests"]["storage"]
    assert (quantity(volume) or 0) > planned(config).most


def test_an_overlay_of_ones_own_works_as_the_readme_writes_it(tmp_path: Path) -> None:
    text = (ROOT / "deploy" / "README.md").read_text()
    (example,) = re.findall(r"```yaml\n(# my-cluster/kustomization.yaml\n.*?)```", text, re.DOTALL)
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    folder = tmp_path / "my-cluster"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(example)
    (folder / "my.toml").write_text((ROOT / "recipes" / "demo.toml").read_text())
    objects = list(yaml.safe_load_all(kustomized(folder)))
    assert complaints(objects) == []
    run = find(objects, "ConfigMap", "run")["data"]
    assert (run["RUN_ID"], run["RECIPE"], run["CHORUS_RUN__STEPS"]) == ("my-run", "my.toml", "200")
    assert run["FETCH"] == ""
    assert "my.toml" in find(objects, "ConfigMap", "recipes")["data"]
    assert find(objects, "Deployment", "generator")["spec"]["replicas"] == 6
    ours = {c["image"] for p in pods(objects) for c in p.containers if "chorus" in c["image"]}
    assert all(image.startswith("registry.example.com/chorus-") for image in ours)
    (example,) = re.findall(r"```yaml\n(# my-release/kustomization.yaml\n.*?)```", text, re.DOTALL)
    release = tmp_path / "my-release"
    release.mkdir()
    (release / "kustomization.yaml").write_text(example)
    pinned = {c["image"] for p in pods(list(yaml.safe_load_all(kustomized(release)))) for c in p.containers}
    assert len(pinned) == 4
    assert all(re.fullmatch(r"[^:]+@sha256:[0-9a-f]{64}", image) for image in pinned)


def test_generators_share_what_vllm_compiles() -> None:
    for overlay in ("cpu", "gpu"):
        generator = pods_of(objects := render(overlay), "generator")
        cached = environment(objects, generator, "generator")["VLLM_CACHE_ROOT"]
        mounts = {m["mountPath"]: m for m in generator.spec["containers"][0]["volumeMounts"]}
        claims = {v["name"]: v.get("persistentVolumeClaim", {}).get("claimName") for v in generator.spec["volumes"]}
        assert not mounts[cached or ""].get("readOnly")
        assert claims[mounts[cached or ""]["name"]] == "kernels"
    assert find(render("gpu"), "PersistentVolumeClaim", "kernels")["spec"]["accessModes"] == ["ReadWriteMany"]


def test_redis_is_the_same_as_in_compose() -> None:
    compose = ROOT / "docker-compose.yml"
    if not compose.exists():
        pytest.skip("there is no docker-compose.yml")
    (image,) = re.findall(r"^    image: (redis:\S+)$", compose.read_text(), re.MULTILINE)
    assert pods_of(render("cpu"), "redis").spec["containers"][0]["image"] == image


@overlays
def test_all_parts_are_there(overlay: str) -> None:
    objects = render(overlay)
    scaled = {"ScaledObject"} if overlay == "keda" else set()
    kinds = {o["kind"] for o in objects}
    assert (
        kinds >= {"HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy", "PersistentVolumeClaim"} | scaled
    )
    assert {p.owner for p in pods(objects)} == {
        "StatefulSet/redis",
        "Deployment/reward-server",
        "Deployment/generator",
        "Job/learner",
        *(["Job/data"] if overlay != "cpu" else []),
    }
    assert {o["metadata"]["namespace"] for o in objects if o["kind"] != "Namespace"} == {"chorus"}


@overlays
def test_the_recipe_is_the_one_of_the_repository(overlay: str) -> None:
    objects = render(overlay)
    name = find(objects, "ConfigMap", "run")["data"]["RECIPE"]
    text = find(objects, "ConfigMap", "recipes")["data"][name]
    assert tomllib.loads(text) == tomllib.loads((ROOT / "recipes" / name).read_text())


@overlays
@pytest.mark.parametrize("name", ["generator", "learner"])
def test_configuration_and_objects_agree(
    overlay: str, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    objects = render(overlay)
    config = configured(objects, name, monkeypatch, tmp_path)
    own = pods_of(objects, name)
    assert own.ports()["metrics"] == getattr(config, name).metrics_port
    for url in map(urlsplit, (config.redis.url, config.reward.url)):
        service = find(objects, "Service", str(url.hostname))
        assert [port["port"] for port in service["spec"]["ports"]] == [url.port]
    assert urlsplit(config.redis.url).password == "<REDIS_PASSWORD>", "from the Secret"
    if name == "learner":
        assert own.ports()["store"] == config.learner.store_port
        assert config.learner.host == "10.0.0.7", "the pod's own address"
        assert config.learner.grace_s + MARGIN_S <= own.spec["terminationGracePeriodSeconds"], "SIGTERM: a checkpoint"
    else:
        assert config.generator.group_deadline_s + 20 <= own.spec["terminationGracePeriodSeconds"], "SIGTERM drains"


@overlays
def test_learner_and_generators_differ_in_nothing_but_what_is_their_own(
    overlay: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    objects = render(overlay)
    learner, generator = (
        configured(objects, name, monkeypatch, tmp_path).model_dump(mode="json") for name in ("learner", "generator")
    )
    learner["learner"].pop("host"), generator["learner"].pop("host")
    learner.pop("placement"), generator.pop("placement")
    assert learner == generator


@overlays
def test_gpus_that_vllm_is_told_of_are_those_that_the_pod_gets(
    overlay: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    objects = render(overlay)
    config = configured(objects, "generator", monkeypatch, tmp_path)
    limits = pods_of(objects, "generator").spec["containers"][0]["resources"]["limits"]
    told = (config.placement.generator_gpus or [[]])[0]
    assert told == list(range(int(limits.get("nvidia.com/gpu", 0))))
    assert not config.shares_a_gpu
    assert not configured(objects, "learner", monkeypatch, tmp_path).shares_a_gpu, "weights would go through the host"


@overlays
def test_the_reward_server_drains_before_it_is_killed(overlay: str) -> None:
    own = pods_of(render(overlay), "reward-server")
    container = own.spec["containers"][0]
    sleep_s = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert sleep_s + 2 * 5.0 + DRAIN_GRACE_S < own.spec["terminationGracePeriodSeconds"]
    workers = int(container["args"][container["args"].index("--workers") + 1])
    assert workers <= math.ceil(quantity(container["resources"]["requests"]["cpu"]) or 0)


def test_every_command_knows_its_options(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is run for real, with a recipe that is not there: the complaint must be of that, not of an option."""
    objects = render("cpu")
    monkeypatch.setenv("CHORUS_REWARD_TOKEN", "token")
    ours = [(p, c) for p in pods(objects) for c in p.containers if c["image"].startswith("chorus-")]
    for p, container in ours:
        arguments = [expand(a, environment(objects, p, container["name"])) for a in container["args"]]
        assert arguments[0] in COMMANDS, f"{p.owner}: chorus has no command {arguments[0]}"
        main(arguments)
        said = capsys.readouterr().err
        assert "can't be read" in said, f"{p.owner}: {said}"


@overlays
def test_the_reward_server_reads_the_recipe_where_the_others_do(overlay: str) -> None:
    objects = render(overlay)
    own, learner = pods_of(objects, "reward-server"), pods_of(objects, "learner")
    [serve], prepare = own.containers, next(c for c in learner.containers if c["name"] == "model")
    recipe = expand(serve["args"][serve["args"].index("--recipe") + 1], environment(objects, own, "reward-server"))
    assert recipe == expand(prepare["args"][1], environment(objects, learner, "model"))
    assert serve["workingDir"] == prepare["workingDir"]
    read = {mount["mountPath"]: mount["name"] for mount in serve["volumeMounts"]}
    assert read.items() <= {mount["mountPath"]: mount["name"] for mount in prepare["volumeMounts"]}.items()


@pytest.mark.parametrize("name", ["generator", "learner"])
def test_the_init_container_leaves_the_configuration_that_the_service_reads(
    name: str, tiny_model: Path, tmp_path: Path
) -> None:
    """Its own command, lock included, on folders that stand for the volumes; the model is a folder that is there."""
    if shutil.which("flock") is None:
        pytest.skip("there is no flock here (util-linux)")
    objects = render("cpu")
    own = pods_of(objects, name)
    values = environment(objects, own, "model") | {"CHORUS_MODEL__PATH": str(tmp_path / "model"), "HF_TOKEN": ""}
    values |= {"CHORUS_MODEL__CONTEXT": "2000", "CHORUS_PROBLEMS__MAX_PROMPT_TOKENS": "1900"}  # its tokens are bytes
    for folder in ("models", "recipes", "prepared", "runs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "model").symlink_to(tiny_model)
    (tmp_path / "recipes" / str(values["RECIPE"])).write_text((ROOT / "recipes" / "demo.toml").read_text())
    (tmp_path / "chorus").write_text(f'#!/bin/sh\nexec {sys.executable} -m chorus.cli.main "$@"\n')
    (tmp_path / "chorus").chmod(0o755)

    def here(text: str) -> str:
        return re.sub(r"^/(models|recipes|prepared|runs)", rf"{tmp_path}/\1", expand(text, values))

    init, main_container = own.containers
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run([here(a) for a in (*init["command"], *init["args"])], env=values | path, check=True, timeout=120)
    arguments = [here(a) for a in main_container["args"]]
    config = load_config(Path(arguments[arguments.index("--config") + 1]))
    assert config.model.path == str(tmp_path / "model")
    assert config.reward.url == "http://reward-server:8100"
    mounts = {m["mountPath"]: m.get("readOnly", False) for m in main_container["volumeMounts"]}
    assert mounts["/prepared" if name == "generator" else "/runs"] == (name == "generator")


@overlays
def test_several_ranks_go_under_torchrun(overlay: str) -> None:
    container = pods_of(render(overlay), "learner").spec["containers"][0]
    gpus = int(container["resources"]["limits"].get("nvidia.com/gpu", 0))
    assert ("torch.distributed.run" in container.get("command", [])) == bool(gpus)
    assert "--resume" in container["args"], "a crash comes back at the newest checkpoint"


def test_keda_looks_at_the_queue_of_this_run() -> None:
    objects = render("keda")
    run_id = find(objects, "ConfigMap", "run")["data"]["RUN_ID"]
    triggers = next(o for o in objects if o["kind"] == "ScaledObject")["spec"]["triggers"]
    queues = [t["metadata"] for t in triggers if t["type"] == "redis-streams"]
    assert queues, json.dumps(triggers)
    for queue in queues:
        assert queue["stream"] == Keys(run_id).tasks
        assert queue["consumerGroup"] == "generators"
