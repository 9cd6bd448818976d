"""The commands and environments of a run's services."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from chorus.deploy.placement import place
from chorus.deploy.services import Chosen, reward_server_service, services_of, valkey_service
from chorus.protocol.config.run import RunConfig
from chorus.protocol.rewards import RewardSpec
from chorus.protocol.run_folder.folder import RunFolder
from chorus.reward_server import main

Configure = Callable[..., RunConfig]


def chosen(config: RunConfig, run_dir: Path, gpus: list[int] | None = None, resumed: bool = False) -> Chosen:
    return Chosen(config, RunFolder(run_dir), place(config, [0, 1], gpus or []), True, True, resumed)


def test_on_two_cores_threads_are_bound_by_role(configure: Configure, tmp_path: Path) -> None:
    generator, learner = services_of(chosen(configure(), tmp_path))
    assert generator.cpus == {0}
    assert learner.cpus == {1}
    assert generator.env["VLLM_CPU_OMP_THREADS_BIND"] == "0"
    assert generator.env["OMP_NUM_THREADS"] == learner.env["OMP_NUM_THREADS"] == "1"
    assert learner.env["OMP_WAIT_POLICY"] == "passive"
    assert generator.argv[-2:] == ("--cpus", "0")


def test_replicas_have_names_and_logs_of_their_own(configure: Configure, tmp_path: Path) -> None:
    services = services_of(chosen(configure(generator={"replicas": 2}), tmp_path))
    assert [service.name for service in services] == ["gen-0", "gen-1", "learner"]
    logs = [service.argv[service.argv.index("--log") + 1] for service in services[:2]]
    assert len(set(logs)) == 2


def test_only_a_restarted_or_resumed_learner_resumes(configure: Configure, tmp_path: Path) -> None:
    fresh = services_of(chosen(configure(), tmp_path))[-1]
    assert "--resume" not in fresh.argv
    assert fresh.again == ("--resume",)
    resumed = services_of(chosen(configure(), tmp_path, resumed=True))[-1]
    assert resumed.argv.count("--resume") == 1
    assert resumed.again == ()


def test_gpus_are_handed_out_by_placement(configure: Configure, tmp_path: Path) -> None:
    *generators, learner = services_of(chosen(configure(), tmp_path, gpus=list(range(8))))
    assert learner.env["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert [g.env["CUDA_VISIBLE_DEVICES"] for g in generators] == ["2", "3", "4", "5", "6", "7"]
    assert learner.argv[learner.argv.index("--nproc-per-node") + 1] == "2"


def test_services_do_not_see_the_overrides_that_config_json_already_holds(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHORUS_MODEL__PATH", "elsewhere")
    monkeypatch.setenv("CHORUS_REWARD_TOKEN", "kept")
    env = services_of(chosen(configure(), tmp_path))[0].env
    assert "CHORUS_MODEL__PATH" not in env
    assert env["CHORUS_REWARD_TOKEN"] == "kept"


def test_the_reward_server_gets_the_recipe_s_composition(configure: Configure, tmp_path: Path) -> None:
    template = tmp_path / "mine.toml"
    template.write_text('name = "mine"\ncategory = "free-form"\nsystem = "Solve."\nanswer_place = "in a box"\n')
    reward = {"url": "http://127.0.0.1:4321", "workers": 3, "timeout_s": 2.5, "compose": "format_gated"}
    config = configure(reward=reward, templates={"names": ["mine"], "files": [str(template)]})
    (tmp_path / "config.json").write_text(json.dumps(config.model_dump(mode="json")))
    argv = reward_server_service(chosen(config, tmp_path)).argv
    given = main.main.make_context("reward-server", list(argv[argv.index("reward-server") + 1 :])).params
    assert (given.pop("host"), given.pop("port")) == ("127.0.0.1", 4321)
    settings = main._settings(**given)
    assert (settings.workers, settings.timeout_s, settings.templates) == (3, 2.5, (template,))
    assert settings.reward == RewardSpec(compose="format_gated")


def test_the_embedded_redis_writes_down_what_it_acknowledges(configure: Configure, tmp_path: Path) -> None:
    config = configure(redis={"url": "redis://127.0.0.1:6390/0"})
    argv = valkey_service(chosen(config, tmp_path)).argv
    given = dict(pairwise(argv))
    assert (given["--bind"], given["--port"]) == ("127.0.0.1", "6390")
    assert (given["--appendonly"], given["--appendfsync"]) == ("yes", "everysec")
    assert given["--maxmemory-policy"] == "noeviction"
    assert Path(given["--dir"]) == tmp_path / "redis"


def test_services_get_the_environment_less_what_harms_them(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harmful = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "VLLM_DP_RANK", "PYTHONOPTIMIZE")
    for name in harmful:
        monkeypatch.setenv(name, "2")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "eth1")
    config = configure(redis={"url": "redis://127.0.0.1:6390/0"}, reward={"url": "http://127.0.0.1:4321"})
    run = chosen(config, tmp_path)
    for service in (*services_of(run), valkey_service(run), reward_server_service(run)):
        assert not set(harmful) & set(service.env)
        assert service.env["NCCL_SOCKET_IFNAME"] == "eth1"


def test_services_have_their_caches_in_the_run_s_folder_where_the_home_can_not_be_written(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/proc/nobody")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for service in services_of(chosen(configure(), tmp_path)):
        assert service.env["XDG_CACHE_HOME"] == str(tmp_path / "cache")


def test_gpus_named_by_uuid_are_handed_on_as_they_are(configure: Configure, tmp_path: Path) -> None:
    run = Chosen(configure(), RunFolder(tmp_path), place(configure(), [0, 1], ["GPU-1a", "MIG-2b"]), True, True, False)
    generator, learner = services_of(run)
    assert (learner.env["CUDA_VISIBLE_DEVICES"], generator.env["CUDA_VISIBLE_DEVICES"]) == ("GPU-1a", "MIG-2b")
