"""A model's files and tokenizer are the same by a folder and by a hub name; tags reach the grader, its end does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import AddedToken

from chorus.problems.rendering import load_tokenizer
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.runtime.model_folder import copy_text_files, model_folder
from chorus.protocol.runtime.model_folder import load_tokenizer as load_as_generators_do
from chorus.protocol.templates.decoding import CompletionDecoder
from chorus.protocol.templates.load import load_templates
from chorus.protocol.templates.template import Template

TEXT = "Tom has 3 apples.\n\n  a\tb = 12\n"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the hub's client keeps what it has; it asks nobody."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def put(hub: Path, name: str, folder: Path) -> Path:
    home = hub / f"models--{name.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("c0ffee")
    return shutil.copytree(folder, home / "snapshots" / "c0ffee")


@pytest.fixture
def mislabelled(tiny_model: Path, tmp_path: Path) -> Path:
    """As distilled models have it: a byte-level tokenizer.json under the name of another family's class."""
    folder = shutil.copytree(tiny_model, tmp_path / "mislabelled")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "LlamaTokenizerFast", "legacy": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_a_hub_name_reads_as_the_folder_does_whatever_class_its_label_names(mislabelled: Path, hub: Path) -> None:
    put(hub, "someone/distilled", mislabelled)
    by_name, by_folder = load_tokenizer("someone/distilled"), load_tokenizer(str(mislabelled))
    ids = by_folder.encode(TEXT, add_special_tokens=False)
    assert by_name.encode(TEXT, add_special_tokens=False) == ids
    assert by_name.decode(ids) == TEXT
    for generators in map(load_as_generators_do, ("someone/distilled", str(mislabelled))):
        assert generators.encode(TEXT, add_special_tokens=False).ids == ids
        assert generators.decode(ids, skip_special_tokens=False) == TEXT


def test_what_is_neither_a_folder_nor_the_hub_s_is_refused(hub: Path) -> None:
    with pytest.raises(CannotGoOn, match=r"model\.path no/body: the hub does not give it to us .*; give a"):
        model_folder("no/body")


def test_what_goes_with_weights_is_copied_and_the_weights_are_not(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    goes = (
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
        *("merges.txt", "tokenizer.model", "chat_template.jinja", "generation_config.json", "qwen.tiktoken"),
        "additional_chat_templates/tools.jinja",
    )
    stays = ("model.safetensors", "pytorch_model.bin", "config.json", "model.safetensors.index.json", "README.md")
    for name in (*goes, *stays):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    target.mkdir()
    copy_text_files(source, target)
    copied = {str(file.relative_to(target)) for file in target.rglob("*") if file.is_file()}
    assert copied == set(goes)


def template(**fields: object) -> Template:
    least = {"name": "mine", "category": "free-form", "system": "Solve.", "answer_place": "in a box"}
    return Template.model_validate(least | fields)


@pytest.mark.parametrize(
    ("asks", "read"),
    [
        ({"markers": ["<think>", "</think>"]}, "<think>1 + 1</think>2"),
        ({"markers": ["</think>\n"], "prefill": "<think>\n"}, "<think>1 + 1</think>2"),
        ({"system": "Think in <think> and </think>."}, "<think>1 + 1</think>2"),
        ({"markers": ["</think>"]}, "1 + 1</think>2"),
        ({}, "1 + 12"),
    ],
)
def test_tags_that_are_special_tokens_reach_the_grader_where_a_template_asks_for_them(
    asks: dict[str, object], read: str, tiny_model: Path
) -> None:
    tokenizer = load_as_generators_do(str(tiny_model))
    tokenizer.add_special_tokens([AddedToken(tag, special=True) for tag in ("<think>", "</think>")])
    ids = tokenizer.encode("<think>1 + 1</think>2<|im_end|><|endoftext|>").ids
    assert CompletionDecoder(tokenizer, [template(**asks)]).decode_batch([ids]) == [read]


def test_ordinary_tokens_and_those_that_steer_a_model_are_as_ever(tiny_model: Path) -> None:
    tokenizer = load_as_generators_do(str(tiny_model))
    ids = tokenizer.encode(f"{TEXT}<|im_end|>").ids
    decoder = CompletionDecoder(tokenizer, load_templates().values())
    assert decoder.decode_batch([ids, []]) == tokenizer.decode_batch([ids, []], skip_special_tokens=True) == [TEXT, ""]
