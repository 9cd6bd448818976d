"""A policy as a Hugging Face folder that its own family loads, and the check that it is one.

weights, config.json      of this policy, as its class saves them
everything else           of the model that the run began with, file by file: its tokenizer, its chat template, its
                          generation config
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, GenerationConfig

from chorus.learner.training.policy import Policy
from chorus.problems.rendering import load_tokenizer
from chorus.protocol.run_folder.files import read_json, write_json
from chorus.protocol.runtime.exits import CannotGoOn, first_line
from chorus.protocol.runtime.model_folder import copy_text_files, model_folder, tensors_of

_SHOWN = 3  # names of tensors in a message
_TEXT = "Tom has 3 apples.\n\n  a\tb = 12 + x^2\n    return\nHe"


def export(policy: Policy, full: Mapping[str, Any], path: Path) -> None:
    """Write the folder; `full` are the policy's tensors, unsharded."""
    hf = policy.hf
    try:
        hf.generation_config.validate(strict=True)
    except ValueError:  # transformers would refuse to write it; the model's own file follows, as it is
        hf.generation_config = GenerationConfig()
    hf.save_pretrained(path, state_dict={name.removeprefix("hf."): tensor for name, tensor in full.items()})
    copy_text_files(model_folder(hf.config.name_or_path), path)


def to_dtype(path: Path, dtype: str) -> None:
    """Rewrite an export's weights in this dtype, file by file, each whole or not at all."""
    wanted: torch.dtype = getattr(torch, dtype)
    for file in sorted(path.glob("*.safetensors")):
        tensors = load_file(file)
        if all(tensor.dtype == wanted for tensor in tensors.values() if tensor.is_floating_point()):
            continue
        smaller = {k: t.to(wanted) if t.is_floating_point() else t for k, t in tensors.items()}
        partial = file.with_name(file.name + ".partial")
        save_file(smaller, partial, metadata={"format": "pt"})
        partial.replace(file)
    config = read_json(path / "config.json")
    write_json(path / "config.json", config | {key: dtype for key in ("dtype", "torch_dtype") if key in config})


def check_export(policy: Policy, path: Path) -> None:
    """Raises CannotGoOn where the family's own loader would not take this folder as the policy that it is."""
    _check_weights(policy, path)
    _check_tokenizer(policy.hf.config.name_or_path, path)


def _check_weights(policy: Policy, path: Path) -> None:
    """Names and shapes, by the family's own loader on the meta device: no tensor is read."""
    tensors = {name: torch.empty(shape, device="meta") for name, shape in tensors_of(path)}
    try:
        with torch.random.fork_rng(devices=[]):
            _, found = type(policy.hf).from_pretrained(
                None,
                config=AutoConfig.from_pretrained(path),
                state_dict=tensors,
                device_map="meta",
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise _refused(path, first_line(error)) from None
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if names := sorted(map(str, found[what])):
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            raise _refused(path, f"{what.replace('_', ' ')}: {', '.join(names[:_SHOWN])}{more}")


def _check_tokenizer(source: str, path: Path) -> None:
    ours, theirs = load_tokenizer(str(path)), load_tokenizer(source)
    text = _TEXT + "".join(theirs.all_special_tokens)
    ids = theirs.encode(text, add_special_tokens=False)
    if ours.encode(text, add_special_tokens=False) != ids or ours.decode(ids) != theirs.decode(ids):
        raise _refused(path, f"its tokenizer does not read as that of {source} does")
    if ours.chat_template != theirs.chat_template or ours.eos_token_id != theirs.eos_token_id:
        raise _refused(path, f"its chat template or its end of a turn is not that of {source}")


def _refused(path: Path, why: str) -> CannotGoOn:
    return CannotGoOn(
        f"{path}: this export can't be loaded as the model that it is ({why}); put the folder of model.path back as it "
        "was when the run began, or install the transformers that it was saved with, then go on with --resume"
    )
