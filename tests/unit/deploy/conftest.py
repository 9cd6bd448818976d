"""A configuration that says only what a recipe must say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from chorus.protocol.config.run import RunConfig


@pytest.fixture
def configure() -> Callable[..., RunConfig]:
    def build(**sections: dict[str, Any]) -> RunConfig:
        least = {"model": {"path": "any"}, "problems": {"train": ["any"]}, "templates": {"names": ["qwen-math"]}}
        return RunConfig(**(least | sections))  # type: ignore[arg-type]

    return build
