"""Images that stand in for the official ones, under their names, where no registry of images can be reached.

    debootstrap ─▶ a tar, kept in the cache ─▶ docker import: the Python base ─▶ docker build: Redis, Prometheus

They prove the steps of our Dockerfiles and the stack as it runs, not the official images. The base also gets this
machine's certificates and what its pip is told of wheels, so that the Dockerfiles need no change.
"""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compose_tools import HERE, ROOT, clean_environment
from drive import NothingHereError
from engine import client

SUITE = "bookworm"
WHEELS_PORT = 18471
# The official image has a compiler's headers for Python, too.
INCLUDE = "ca-certificates,python3,python3-dev,python3-pip,python3-venv"
# As in the official image: apt leaves nothing in a layer but what it installs.
APT_KEEPS_NOTHING = """\
Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache "";
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb"; };
"""
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def python_base() -> str:
    """The name under which our Dockerfiles ask for Python."""
    found = re.findall(r"^FROM (python:\S+)", (ROOT / "deploy/docker/cpu.Dockerfile").read_text(), re.MULTILINE)
    return found[0]


def root_file_system(scratch: Path) -> Path:
    """A minimal Debian with Python as a tar; built once (a minute), then cached. Raises NothingHereError."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "chorus" / "compose-test"
    cache.mkdir(parents=True, exist_ok=True)
    recipe = hashlib.blake2b((INCLUDE + APT_KEEPS_NOTHING).encode(), digest_size=6).hexdigest()
    tar = cache / f"{SUITE}-{recipe}.tar"
    if tar.exists():
        return tar
    root = scratch / "root"
    try:
        _run(["debootstrap", "--variant=minbase", f"--include={INCLUDE}", SUITE, str(root)], deadline_s=1200)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        raise NothingHereError(f"no base image: {error}") from None
    for mount in ("proc", "sys"):  # debootstrap may leave them
        _run(["umount", str(root / mount)], may_fail=True)
    shutil.copy(_CERTIFICATES, root / _CERTIFICATES.lstrip("/"))
    (root / "etc/apt/apt.conf.d/docker-clean").write_text(APT_KEEPS_NOTHING)
    (root / "usr/bin/python").symlink_to("python3")
    shutil.rmtree(root / "var/cache/apt/archives")
    shutil.rmtree(root / "var/lib/apt/lists")
    for marker in root.glob("usr/lib/python3.*/EXTERNALLY-MANAGED"):
        marker.unlink()
    _run(
        ["tar", "--one-file-system", "--directory", str(root), "--create", "--file", f"{tar}.new", "."], deadline_s=300
    )
    Path(f"{tar}.new").rename(tar)
    return tar


def base_environment(wheels_url: str) -> list[str]:
    """Of the Python base: NAME=VALUE each."""
    certificates = [f"PIP_CERT={_CERTIFICATES}", f"SSL_CERT_FILE={_CERTIFICATES}"]
    wheels = [f"PIP_FIND_LINKS={wheels_url}"] if wheels_url else []
    return [f"PATH={_PATH}", *certificates, "PIP_ROOT_USER_ACTION=ignore", *wheels]


def import_python(tar: Path, docker: dict[str, str], wheels_url: str) -> None:
    """Make the Python base of the tar, unless the engine has it from an earlier time."""
    environment = " ".join(base_environment(wheels_url))
    inspect = [client(), "image", "inspect", "--format", '{{join .Config.Env " "}}', python_base()]
    if _run(inspect, docker, may_fail=True).strip() == environment:
        return
    _run([client(), "import", "--change", f"ENV {environment}", str(tar), python_base()], docker, deadline_s=300)


def build_stand_in(dockerfile: str, name: str, docker: dict[str, str]) -> None:
    """One of this folder's Dockerfiles, under the official name."""
    command = [client(), "build", "--quiet", "--network", "host", "--tag", name, "--file", str(HERE / dockerfile)]
    _run([*command, str(HERE)], docker, deadline_s=900)


@contextmanager
def served_wheels() -> Iterator[str]:
    """The folder of wheels that this machine's pip knows (`find-links`), as an address for pips in builds; or ""."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, timeout=60, check=False
    ).stdout
    words = {word for line in re.findall(r"find-links='(.*)'", listed) for word in line.split()}
    words |= set(os.environ.get("PIP_FIND_LINKS", "").split())
    folders = [word for word in sorted(words) if Path(word).is_dir()]
    if not folders:
        yield ""
        return
    handler = functools.partial(_Quiet, directory=folders[0])
    # Always the same port: the address is part of the base image, and another one would undo the build cache.
    with http.server.ThreadingHTTPServer(("127.0.0.1", WHEELS_PORT), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def _run(command: list[str], more: dict[str, str] | None = None, deadline_s: float = 60, may_fail: bool = False) -> str:
    """What the command prints. Raises RuntimeError."""
    result = subprocess.run(
        command,
        env=clean_environment(**(more or {})),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=deadline_s,
        check=False,
    )
    if result.returncode != 0 and not may_fail:
        raise RuntimeError(f"{' '.join(command[:3])} ... failed: {result.stdout[-2000:]}")
    return result.stdout
