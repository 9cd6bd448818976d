"""A child gets the environment less what is known to harm it; long and unwritable folders are gone round."""

from __future__ import annotations

import os
import pwd
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import chorus
from chorus.protocol.runtime import environment
from chorus.protocol.runtime.environment import HARMFUL, PASSED, child_environment, socket_folder, with_caches
from chorus.protocol.runtime.exits import CannotGoOn

DOCUMENT = Path(__file__).parents[3] / "docs" / "operations.md"
SET_FOR_ALL = {"PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"}


def words(text: str) -> list[str]:
    return text.split()


# What clusters, launchers and shells are known to export, and what must be there for a run.
HARMS = words(
    """RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE GROUP_RANK GROUP_WORLD_SIZE ROLE_RANK ROLE_WORLD_SIZE MASTER_ADDR
MASTER_PORT TORCHELASTIC_RUN_ID TORCHELASTIC_RESTART_COUNT PET_NNODES PET_RDZV_ENDPOINT VLLM_DP_SIZE
VLLM_PORT ACCELERATE_USE_FSDP FSDP_CPU_RAM_EFFICIENT_LOADING PYTHONHOME PYTHONSTARTUP PYTHONOPTIMIZE PYTHONWARNINGS
PYTHONINSPECT PYTHONDEBUG PYTHONIOENCODING PYTHONVERBOSE PROMETHEUS_MULTIPROC_DIR"""
)
HELPS = words(
    """NCCL_SOCKET_IFNAME NCCL_IB_DISABLE NCCL_DEBUG GLOO_SOCKET_IFNAME TORCH_NCCL_BLOCKING_WAIT HF_HOME HF_TOKEN
HF_HUB_OFFLINE HF_ENDPOINT TRANSFORMERS_CACHE HTTP_PROXY https_proxy NO_PROXY no_proxy SSL_CERT_FILE REQUESTS_CA_BUNDLE
LD_LIBRARY_PATH LD_PRELOAD PATH HOME TMPDIR XDG_CACHE_HOME CUDA_VISIBLE_DEVICES CUDA_DEVICE_ORDER NVIDIA_VISIBLE_DEVICES
OMP_NUM_THREADS VLLM_LOGGING_LEVEL VLLM_ATTENTION_BACKEND VLLM_CACHE_ROOT VLLM_HOST_IP TRITON_CACHE_DIR WANDB_API_KEY
SLURM_JOB_ID SLURM_NTASKS KUBERNETES_SERVICE_HOST LANG TZ USER CHORUS_LOG CHORUS_REWARD_TOKEN PYTHONHASHSEED
PYTHONNOUSERSITE PYTHONUSERBASE PYTHONPYCACHEPREFIX PYTHONDONTWRITEBYTECODE RANKS MY_WORLD_SIZE"""
)
values = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=12)
harmless = st.dictionaries(
    st.sampled_from(HELPS) | st.text("ABCXYZabc_019", min_size=1, max_size=12), values, max_size=12
)


@given(kept=harmless, harmful=st.dictionaries(st.sampled_from(HARMS), values, max_size=12))
def test_any_mixture_of_harmless_variables_passes_unchanged_and_no_harmful_one(
    kept: dict[str, str], harmful: dict[str, str]
) -> None:
    assert child_environment(harmful | kept) == kept | SET_FOR_ALL
    assert child_environment(kept | harmful) == kept | SET_FOR_ALL


@given(rest=st.text("ABCXYZ_019", max_size=9), value=values)
def test_no_variable_of_the_interpreter_passes_that_is_not_on_the_list(rest: str, value: str) -> None:
    assume(f"PYTHON{rest}" not in (*PASSED, *SET_FOR_ALL))
    assert child_environment({f"PYTHON{rest}": value}) == SET_FOR_ALL


def test_the_document_lists_what_the_code_does() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    section = text.split("## What a service sees of the environment")[1].split("\n## ")[0]
    first, second = section.split("These pass")

    def named(part: str) -> set[str]:
        rows = [line.split("|")[1] for line in part.splitlines() if line.startswith("| `")]
        return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}

    assert named(first) == set(HARMFUL)
    assert named(second) == set(PASSED)


@pytest.mark.parametrize(
    ("given", "becomes"),
    [("", "chorus"), ("chorus", "chorus"), ("theirs", "theirs,chorus"), ("a,chorus,b", "a,chorus,b")],
)
def test_our_plugin_of_vllm_is_always_among_those_named(given: str, becomes: str) -> None:
    assert child_environment({"VLLM_PLUGINS": given})["VLLM_PLUGINS"] == becomes


def test_without_a_list_of_plugins_vllm_takes_all_and_none_is_named() -> None:
    assert "VLLM_PLUGINS" not in child_environment({})


@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        ("/opt/chorus", "/opt/chorus"),
        ("/opt/chorus:/opt/vllm", "/opt/chorus:/opt/vllm"),
        (":/opt/chorus", "/opt/chorus"),
        ("/opt/chorus:", "/opt/chorus"),
        (".:lib:/opt/chorus", "/opt/chorus"),
        ("", None),
        (".", None),
        ("/apps/lib/python2.7/site-packages:/opt/chorus", "/opt/chorus"),
        ("/opt/ros/lib/python3.6", None),
        (
            f"/a/python{sys.version_info[0]}.{sys.version_info[1]}/b",
            f"/a/python{sys.version_info[0]}.{sys.version_info[1]}/b",
        ),
    ],
)
def test_of_the_search_path_what_names_installed_packages_passes(
    given: str, becomes: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert child_environment({"PYTHONPATH": given}).get("PYTHONPATH") == becomes


def test_a_search_path_relative_to_the_sources_is_kept_as_an_absolute_one(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = Path(chorus.__file__).parents[1]
    monkeypatch.chdir(sources.parent)
    assert child_environment({"PYTHONPATH": sources.name})["PYTHONPATH"] == str(sources)


def test_a_module_of_the_working_folder_hides_nothing_from_a_child(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong one')")
    env = child_environment(os.environ | {"PYTHONPATH": os.pathsep, "PYTHONOPTIMIZE": "2", "PYTHONWARNINGS": "error"})
    program = "import json, sys; assert json.loads('1') == 1; sys.exit(sys.flags.optimize)"
    subprocess.run([sys.executable, "-c", program], env=env, cwd=tmp_path, check=True, timeout=30)


# Folders that can't be written even by root: a process's own, and one below a file.
@pytest.fixture(params=["/proc/nobody", "file"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param != "file":
        return Path(request.param)
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "home"


def test_where_the_home_can_not_be_written_caches_go_into_the_run_s_folder(home: Path, tmp_path: Path) -> None:
    env = with_caches({"HOME": str(home), "USER": "somebody", "OTHER": "1"}, tmp_path / "cache")
    assert (env["HOME"], env["OTHER"]) == (str(home), "1")
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TRITON_HOME", "FLASHINFER_WORKSPACE_BASE", "MPLCONFIGDIR"):
        assert Path(env[name]).is_relative_to(tmp_path / "cache")
        assert environment.can_be_written(Path(env[name]))


def test_a_home_that_can_be_written_changes_nothing(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "USER": "somebody"}
    assert with_caches(env, tmp_path / "cache") == env
    elsewhere = {"HOME": "/proc/nobody", "XDG_CACHE_HOME": str(tmp_path / "xdg"), "USER": "somebody"}
    assert with_caches(elsewhere, tmp_path / "cache") == elsewhere
    assert not (tmp_path / "cache").exists()


def test_what_the_user_set_stays_and_models_in_a_home_to_read_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "home" / ".cache" / "huggingface"
    models.mkdir(parents=True)
    real = environment.can_be_written
    monkeypatch.setattr(environment, "can_be_written", lambda folder: folder != models.parent and real(folder))
    given = {"HOME": str(tmp_path / "home"), "USER": "somebody", "TRITON_HOME": "/fast/disk"}
    env = with_caches(given, tmp_path / "cache")
    assert env["HF_HOME"] == str(models)
    assert env["TRITON_HOME"] == "/fast/disk"
    assert with_caches(given | {"HF_HOME": "/models"}, tmp_path / "cache")["HF_HOME"] == "/models"


def test_where_nothing_can_be_written_one_line_says_what_to_set() -> None:
    with pytest.raises(CannotGoOn, match=r"/proc/nobody/.cache nor /proc/run .* set XDG_CACHE_HOME to a folder"):
        with_caches({"HOME": "/proc/nobody", "USER": "somebody"}, Path("/proc/run"))


def test_a_user_whom_the_system_does_not_know_gets_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert with_caches({"HOME": str(tmp_path)}, tmp_path)["USER"] == "chorus"
    assert "USER" not in with_caches({"HOME": str(tmp_path), "LOGNAME": "me"}, tmp_path)


@settings(max_examples=25)
@given(length=st.integers(1, 200))
def test_sockets_fit_whatever_the_length_of_tmpdir(length: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    while len(str(folder)) < length:
        folder /= "x" * min(50, max(1, length - len(str(folder)) - 1))
    folder.mkdir(parents=True, exist_ok=True)
    chosen = socket_folder({"TMPDIR": str(folder)})
    base = chosen.get("VLLM_RPC_BASE_PATH", str(folder))
    assert (base == str(folder)) == (len(str(folder)) <= 107 - len("/12345678-1234-5678-1234-567812345678"))
    address = f"{base}/{'u' * 36}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
    os.unlink(address)


def test_a_short_folder_is_private_and_another_user_s_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("x" * 90)
    deep.mkdir()
    found = Path(socket_folder({"TMPDIR": str(deep)})["VLLM_RPC_BASE_PATH"])
    assert (found.stat().st_mode & 0o777, found.stat().st_uid) == (0o700, os.getuid())
    monkeypatch.setattr(environment, "_is_private", lambda _: False)
    with pytest.raises(CannotGoOn, match=r"TMPDIR .*: too long for the sockets of vLLM \(at most 70 bytes\)"):
        socket_folder({"TMPDIR": str(deep)})


def test_a_folder_that_the_user_chose_for_sockets_is_kept_where_it_is_short(tmp_path: Path) -> None:
    short = {"TMPDIR": "/" + "x" * 99, "VLLM_RPC_BASE_PATH": "/tmp"}
    assert socket_folder(short) == {}
    assert socket_folder({"VLLM_RPC_BASE_PATH": str(tmp_path / ("y" * 90))}) != {}
