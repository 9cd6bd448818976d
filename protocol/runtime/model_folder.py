"""A model's folder beside its weights: its files of text, its tokenizer, and what the weights' headers say.

A hub name is the folder of its snapshot, so that a model is read in one way by whatever name it is called. The
tokenizer is always what tokenizer.json says: transformers may force the class that a label names upon it, and then
blanks and newlines are gone from every prompt.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from chorus.protocol.runtime.exits import CannotGoOn, first_line

if TYPE_CHECKING:  # who only serves grades has none
    from tokenizers import Tokenizer

# Tokenizers of all kinds, chat templates, configurations: what goes with weights, never pickles.
TEXT_FILES = ("*.json", "*.txt", "*.jinja", "*.model", "*.tiktoken", "additional_chat_templates/*.jinja")
_OF_THE_WEIGHTS = ("config.json", "*.index.json", "trainer_state.json")
_LONGEST_HEADER = 100 * 2**20  # that safetensors reads


def model_folder(path: str) -> Path:
    """The folder of a model, or of what the hub has under this name, without weights. Raises CannotGoOn."""
    folder = Path(path)
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(path, allow_patterns=list(TEXT_FILES)))
    except Exception as error:  # hub clients raise what they like
        raise CannotGoOn(
            f"model.path {path}: the hub does not give it to us ({first_line(error)}), and there is no such folder; "
            "give a Hugging Face folder or a hub name, and set HF_TOKEN for one that is not public"
        ) from None


def tokenizer_file(path: str) -> Path:
    """The tokenizer.json of a folder or of a hub name. Raises CannotGoOn where there is none."""
    file = model_folder(path) / "tokenizer.json"
    if not file.is_file():
        raise CannotGoOn(f"model.path {path}: there is no tokenizer.json in it; save the model's fast tokenizer there")
    return file


def load_tokenizer(path: str) -> Tokenizer:
    """The model's own tokenizer, for those who only turn token ids into text. Raises CannotGoOn."""
    file = tokenizer_file(path)
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing more special
        raise CannotGoOn(f"model.path {path}: its tokenizer.json can't be read ({error}); save it anew") from None


def tensors_of(folder: Path) -> Iterator[tuple[str, list[int]]]:
    """Name and shape of every tensor in a folder's safetensors, by their headers. Raises CannotGoOn."""
    for file in sorted(folder.glob("*.safetensors")):
        yield from tensors_in(file)


def tensors_in(file: Path) -> list[tuple[str, list[int]]]:
    """Name and shape of every tensor in one file, by its header. Raises CannotGoOn."""
    try:
        with file.open("rb") as data:
            length = int.from_bytes(data.read(8), "little")
            header = json.loads(data.read(min(length, _LONGEST_HEADER)))
        return [(name, tensor["shape"]) for name, tensor in header.items() if name != "__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CannotGoOn(
            f"model.path {file.parent}: {file.name} holds no weights that can be read ({first_line(error)}); copy it "
            "anew (one of some 130 bytes is a pointer of Git LFS: `git lfs pull` fetches the file)"
        ) from None


def copy_text_files(source: Path, target: Path) -> None:
    """Everything that goes with weights, as it is: what a loader would write again may be another thing."""
    for pattern in TEXT_FILES:
        for file in source.glob(pattern):
            name = file.relative_to(source)
            if file.is_file() and not any(name.match(kept) for kept in _OF_THE_WEIGHTS):
                (target / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(file, target / name)
