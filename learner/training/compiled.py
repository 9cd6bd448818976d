"""`learner.compile`: each layer's forward as torch compiles it, in place; names and files know nothing of it.

All layers of one kind share a graph, of any number of rows and tokens. What the compiler merges is rounded otherwise:
losses and gradients are the same up to that, and so is a resumed or a replayed run.
"""

from __future__ import annotations

from shutil import which
from typing import Any

import torch

from chorus.learner.training.sharding import layers_of
from chorus.protocol.runtime.exits import CannotGoOn

_COMPILERS = ("g++", "clang++", "c++")
_GRAPHS = 64  # of one piece of code: kinds of layers, with a gradient and without, in each precision


def compile_layers(hf: Any, device: torch.device) -> None:
    """Raises CannotGoOn where there is no compiler for what torch writes."""
    asked = _COMPILERS if device.type == "cpu" else ("gcc", "clang", "cc")
    if not any(map(which, asked)):
        raise CannotGoOn(
            f"learner.compile: torch writes programs for a compiler, and there is none of {', '.join(asked)} here; "
            "install one where the learner runs, or set learner.compile = false"
        )
    config: Any = torch._dynamo.config  # pyright: ignore[reportAttributeAccessIssue]
    config.recompile_limit = _GRAPHS  # beyond it layers would run uncompiled, without a word
    config.fail_on_recompile_limit_hit = True
    for layer in layers_of(hf):
        layer.forward = torch.compile(layer.forward, dynamic=True)
