"""The starter's folder: built once, loadable, deterministic, and named after all that determines it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from chorus.protocol.templates.load import load_templates
from chorus.starter.build import build_starter
from chorus.starter.courses import CHAINS


def build(cache: Path, names: list[str], seed: int = 0, steps: int = 3) -> tuple[Path, list[str]]:
    lines: list[str] = []
    return build_starter(cache, names, seed, steps=steps, log=lines.append), lines


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("cache"), ["qwen-math", "open-r1"])[0]


def test_the_folder_is_a_checkpoint_of_a_small_float32_llama(built: Path):
    model = AutoModelForCausalLM.from_pretrained(built)
    tokenizer = AutoTokenizer.from_pretrained(built)
    assert model.config.architectures == ["LlamaForCausalLM"]
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert 0.5e6 <= sum(p.numel() for p in model.parameters()) <= 3e6
    assert model.config.tie_word_embeddings
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.eos_token_id == tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert sorted(path.name for path in built.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_a_second_call_finds_the_folder_and_builds_nothing(built: Path):
    folder, lines = build(built.parent, ["open-r1", "qwen-math"])
    assert folder == built
    assert lines == []
    assert list(built.parent.iterdir()) == [built]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(built: Path, tmp_path: Path):
    again, _ = build(tmp_path, ["qwen-math", "open-r1"])
    other, _ = build(tmp_path, ["qwen-math", "open-r1"], seed=1)
    weights = (built / "model.safetensors").read_bytes()
    assert again.name == built.name
    assert (again / "model.safetensors").read_bytes() == weights
    assert other.name != built.name
    assert (other / "model.safetensors").read_bytes() != weights


def test_all_templates_can_be_warmed_up(tmp_path: Path):
    folder, lines = build(tmp_path, list(load_templates()), steps=1)
    assert folder.is_dir()
    assert "step 1 of 1" in lines[-1]


def test_a_build_that_fails_leaves_nothing_behind(tmp_path: Path):
    def fail(line: str) -> None:
        raise RuntimeError(line)

    with pytest.raises(RuntimeError):
        build_starter(tmp_path, ["qwen-math"], steps=1, log=fail)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_template_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"unknown templates \['open-r2'\]; use some of abel"):
        build(tmp_path, ["open-r2"])


def test_who_solves_what_is_shown_goes_on_to_the_slips(tmp_path: Path):
    lines: list[str] = []
    easy, hard = (replace(CHAINS, learned=learned) for learned in (99.0, 1e-9))
    build_starter(tmp_path, ["qwen-math"], steps=100, log=lines.append, course=easy)
    assert "starter: step 20 of 100, it solves them; on to step 70" in lines
    lines.clear()
    build_starter(tmp_path / "other", ["qwen-math"], steps=22, log=lines.append, course=hard)
    assert not any("solves" in line for line in lines)
