"""Which variables of the environment a child process gets: all of them, less what is known to harm it.

A cluster's environment is made for other programs: a rank of another job's, a port of another vLLM's. What a run needs
of it (the network's interfaces, proxies, certificates, libraries) must come through. So both lists are here, by name or
by the beginning of a name; docs/operations.md shows the same two, with the reasons. What stands in neither passes.

    env = child_environment(os.environ)                     what a child is given
    env = with_caches(env, folder)                          the same, where a home can't be written
    env |= socket_folder(env)                               for vLLM, where TMPDIR is too long for a socket
"""

from __future__ import annotations

import os
import pwd
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from chorus.protocol.runtime.exits import CannotGoOn

# name, or beginning* -> what it does to a child
HARMFUL: dict[str, str] = {
    **dict.fromkeys(
        ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "NODE_RANK"),
        "another job's rank: the learner would wait for ranks that nobody starts",
    ),
    **dict.fromkeys(("ROLE_RANK", "ROLE_WORLD_SIZE", "ROLE_NAME"), "another job's role under torchrun"),
    **dict.fromkeys(("MASTER_ADDR", "MASTER_PORT"), "another job's rendezvous"),
    **dict.fromkeys(
        ("TORCHELASTIC_*", "PET_*"), "torchrun's own state and its options: ours would take them for its own"
    ),
    **dict.fromkeys(("ACCELERATE_*", "FSDP_*"), "accelerate's launcher: rank 0 alone would load the weights"),
    "VLLM_DP_*": "another engine's data-parallel group",
    "VLLM_PORT": "two replicas would race for one port, and a Kubernetes service called vllm sets it to an address",
    **dict.fromkeys(
        ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"), "metrics would go into another program's folder"
    ),
    "PYTHON*": "another interpreter's home, warnings as errors, assertions left out, other encodings of logs",
}
# These pass, whatever the list above says; so does all that stands in neither.
PASSED: dict[str, str] = {
    "PYTHONPATH": "where images (`/opt/chorus`) and module systems have packages; see below for what is left out of it",
    **dict.fromkeys(("PYTHONNOUSERSITE", "PYTHONUSERBASE"), "which packages of the user's own are seen"),
    **dict.fromkeys(("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"), "for folders that can't be written"),
    "PYTHONHASHSEED": "for runs that shall repeat",
    "VLLM_PLUGINS": "ours, `chorus`, is added: without it vLLM can't take weights",
    "VLLM_*": "vLLM's other settings",
    **dict.fromkeys(("NCCL_*", "TORCH_NCCL_*", "GLOO_*"), "which interfaces weights and gradients take"),
    **dict.fromkeys(("HF_*", "TRANSFORMERS_*"), "the hub's token, mirror and cache"),
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"), "the way out; also in lower case"),
    **dict.fromkeys(
        ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"), "certificates of a house's own"
    ),
    **dict.fromkeys(("PATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "CUDA_HOME"), "programs and libraries"),
    **dict.fromkeys(
        ("CUDA_*", "NVIDIA_*", "OMP_*", "MKL_*"), "devices and threads, where the placement sets no others"
    ),
    **dict.fromkeys(("TMPDIR", "HOME", "XDG_*", "TRITON_*", "TORCHINDUCTOR_*"), "where files may be written"),
    "WANDB_*": "the account of a tracker",
    "CHORUS_LOG": "how all of our processes log",
    "CHORUS_REWARD_TOKEN": "of the reward server",
}
ALWAYS = {"PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"}
OUR_PLUGIN = "chorus"
_PACKAGE = Path(__file__).parents[2]  # not resolved: where `chorus` is imported from
_SOCKET_LIMIT = 107  # bytes in the address of a Unix socket, without its final zero
_SOCKET_NAME = 1 + 36  # vLLM names a socket by a UUID


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What passes of an environment; harmless variables are unchanged. Two are always set: what a child says is seen at
    once, and no file of the working folder hides a module."""
    kept = {name: value for name, value in environment.items() if passes(name)}
    if "PYTHONPATH" in kept:
        kept["PYTHONPATH"] = _search_path(kept["PYTHONPATH"])
    if "VLLM_PLUGINS" in kept:
        named = [name for name in kept["VLLM_PLUGINS"].split(",") if name]
        kept["VLLM_PLUGINS"] = ",".join(named if OUR_PLUGIN in named else [*named, OUR_PLUGIN])
    if not kept.get("PYTHONPATH"):
        kept.pop("PYTHONPATH", None)
    return kept | ALWAYS


def passes(name: str) -> bool:
    """Whether a child gets this variable: the longest entry that fits decides."""
    return _longest(name, PASSED) >= _longest(name, HARMFUL)


def _longest(name: str, patterns: Mapping[str, str]) -> int:
    """The length of the longest pattern that fits; 0: none does."""
    return max(
        (len(p) for p in patterns if name == p or (p.endswith("*") and name.startswith(p[:-1]))),
        default=0,
    )


def _search_path(text: str) -> str:
    """Left out are folders of the working directory, whose files could hide a library's, unless this package is there;
    and another Python's packages."""
    kept = []
    for entry in text.split(os.pathsep):
        version = re.search(r"/python(\d+\.\d+)(/|$)", entry)
        if version and version[1] != f"{sys.version_info.major}.{sys.version_info.minor}":
            continue
        if os.path.isabs(entry) or _holds_this_package(Path(entry)):
            kept.append(os.path.abspath(entry))
    return os.pathsep.join(kept)


def _holds_this_package(folder: Path) -> bool:
    place = folder / "chorus"
    return place.is_dir() and place.samefile(_PACKAGE)


def with_caches(environment: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The same where `~/.cache` can be written; else with the caches of vLLM, Triton and others below `folder`.

    What the user set stays. Models that lie in the cache of a home that can only be read are still found there.
    Raises CannotGoOn where `folder` can't be written either.
    """
    env = dict(environment)
    if not _has_a_name(env):
        env["USER"] = "chorus"  # libraries name their folders by the user, and fail where the system knows none
    home = Path(env.get("HOME") or os.path.expanduser("~"))
    caches = Path(env.get("XDG_CACHE_HOME") or home / ".cache")
    if can_be_written(caches):
        return env
    if not can_be_written(folder):
        raise CannotGoOn(
            f"neither the home's {caches} nor {folder} can be written, and vLLM and Triton need a cache; set "
            "XDG_CACHE_HOME to a folder that can be written"
        )
    moved = {"XDG_CACHE_HOME": "", "XDG_CONFIG_HOME": "config", "TRITON_HOME": "", "CUDA_CACHE_PATH": "nv"}
    moved |= {"FLASHINFER_WORKSPACE_BASE": "", "MPLCONFIGDIR": "matplotlib"}
    env.pop("XDG_CACHE_HOME", None)
    models = caches / "huggingface"
    if "HF_HOME" not in env and models.is_dir():
        env["HF_HOME"] = str(models)
    return {name: str((folder / below).absolute()) for name, below in moved.items()} | env


def _has_a_name(environment: Mapping[str, str]) -> bool:
    if any(environment.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")):
        return True
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return True


def can_be_written(folder: Path) -> bool:
    """Tried, not asked: a quota, a read-only mount and a folder that can't be made look alike to a library."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(4096))
            probe.flush()
    except (OSError, RuntimeError):
        return False
    return True


def socket_folder(environment: Mapping[str, str]) -> dict[str, str]:
    """The variable that gives vLLM's sockets a short folder, where its own would be too long; else nothing.

    Raises CannotGoOn where no short folder can be written.
    """
    wanted = environment.get("VLLM_RPC_BASE_PATH") or _temporary(environment)
    if len(os.fsencode(wanted)) + _SOCKET_NAME <= _SOCKET_LIMIT and _is_usable(wanted):
        return {}
    for parent in ("/tmp", "/var/tmp", "/dev/shm"):
        folder = Path(parent) / f"chorus-{os.getuid()}"
        if _is_private(folder) and can_be_written(folder):
            return {"VLLM_RPC_BASE_PATH": str(folder)}
    raise CannotGoOn(
        f"TMPDIR {wanted}: too long for the sockets of vLLM (at most {_SOCKET_LIMIT - _SOCKET_NAME} bytes), and "
        "neither /tmp, /var/tmp nor /dev/shm can be written; set VLLM_RPC_BASE_PATH to a short folder"
    )


def _temporary(environment: Mapping[str, str]) -> str:
    """The folder that a child's `tempfile` takes."""
    for name in ("TMPDIR", "TEMP", "TMP"):
        if (folder := environment.get(name)) and _is_usable(folder):
            return os.path.abspath(folder)
    return "/tmp"


def _is_usable(folder: str) -> bool:
    return os.path.isdir(folder) and can_be_written(Path(folder))


def _is_private(folder: Path) -> bool:
    """Made here, or made by this user before: nobody else may put a socket where ours are looked for."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError:
        return False
    return status.st_uid == os.getuid() and not folder.is_symlink() and status.st_mode & 0o077 == 0
