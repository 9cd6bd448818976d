"""A policy as a Hugging Face folder that its own family loads, and the check that it is one.

weights, config.json      of this policy, as its class saves them
everything else           of the model that the run began with, file by file: its tokenizer, its chat template, its
                          generation config
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, GenerationConfig

from chorus.learner.training.architecture import file_tensors
from chorus.learner.training.lora import adapter_parameters, merged
from chorus.learner.training.policy import Policy, Sent, as_files_have_it, file_parameters
from chorus.problems.rendering import load_tokenizer
from chorus.protocol.run_folder.files import read_json, write_json
from chorus.protocol.runtime.adapters import DOWN, UP
from chorus.protocol.runtime.exits import CannotGoOn, first_line
from chorus.protocol.runtime.model_folder import copy_text_files, model_folder, tensors_of

_FILE_BYTES = 2**30
_SHOWN = 3  # names of tensors in a message
_TEXT = "Tom has 3 apples.\n\n  a\tb = 12 + x^2\n    return\nHe"


class Export:
    """One that is about to be written: what it will hold is settled now, its weights come later.

    Making it and `write` are collectives: ranks gather one tensor after another, and rank 0 holds one file's at a time.
    """

    def __init__(self, policy: Policy, path: Path) -> None:
        self._policy = policy
        self._path = path
        self._files = _files([*file_parameters(policy), *_buffers(policy)])
        self._adapters = dict(adapter_parameters(policy.hf)) if policy.lora else {}
        if not dist.is_initialized() or dist.get_rank() == 0:
            _write_settings(policy, path)
            _write_index(self._files, path)
            copy_text_files(model_folder(policy.hf.config.name_or_path), path)

    @torch.no_grad()
    def write(self, whole: Callable[[torch.Tensor], torch.Tensor], first: bool) -> None:
        """`whole`: a parameter of all ranks as it is to be written. `first`: this rank writes."""
        for name, held in self._files.items():
            tensors: dict[str, torch.Tensor] = {}
            for part in held:
                full = whole(part.parameter)
                layer = part.name.removesuffix(".weight")
                if self._policy.lora and layer + DOWN in self._adapters:
                    down, up = (whole(self._adapters[layer + half]) for half in (DOWN, UP))
                    full = merged(full, down, up, self._policy.lora.scaling)
                if first:
                    tensors |= _apart(as_files_have_it(self._policy, part, full))
            if first:
                save_file(tensors, self._path / name, metadata={"format": "pt"})


def _apart(found: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """On the host; several that are views of one tensor, as a layer's experts are, each with memory of its own."""
    if len(found) == 1:
        return {name: tensor.cpu().contiguous() for name, tensor in found.items()}
    return {name: tensor.cpu().clone(memory_format=torch.contiguous_format) for name, tensor in found.items()}


def _buffers(policy: Policy) -> list[Sent]:
    """Those that files hold."""
    hf = policy.hf
    kept = hf.state_dict().keys()
    return [Sent(name, b, file_tensors(hf, name, b.to("meta"))) for name, b in hf.named_buffers() if name in kept]


def _files(parts: list[Sent]) -> dict[str, list[Sent]]:
    """Which parts stand in which file, by its name."""
    held: list[list[Sent]] = [[]]
    room = _FILE_BYTES
    for part in parts:
        size = part.parameter.numel() * part.parameter.element_size()
        if held[-1] and size > room:
            held.append([])
            room = _FILE_BYTES
        held[-1].append(part)
        room -= size
    if len(held) == 1:
        return {"model.safetensors": held[0]}
    return {f"model-{k:05}-of-{len(held):05}.safetensors": some for k, some in enumerate(held, 1)}


def _write_index(files: Mapping[str, list[Sent]], path: Path) -> None:
    """Which tensor stands in which file, where they are several."""
    if len(files) > 1:
        where = {tensor: name for name, held in files.items() for part in held for tensor in part.tensors}
        size = sum(p.parameter.numel() * p.parameter.element_size() for held in files.values() for p in held)
        write_json(path / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": where})


def _write_settings(policy: Policy, path: Path) -> None:
    """config.json and generation_config.json, as `save_pretrained` writes them."""
    hf = policy.hf
    try:
        hf.generation_config.validate(strict=True)
    except ValueError:  # transformers would refuse to write it; the model's own file follows, as it is
        hf.generation_config = GenerationConfig()
    hf.config.dtype = str(hf.dtype).removeprefix("torch.")
    hf.config.architectures = [type(hf).__name__]
    hf.config.save_pretrained(path)
    hf.generation_config.save_pretrained(path)


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
