"""What a model and a recipe's rows say of each other is looked at before anything starts: each fault is one line."""

from __future__ import annotations

import json
import logging
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from chorus.deploy import sizes
from chorus.deploy.first_contact import CHATML, embedding_rows, first_contact, positions
from chorus.problems.rendering import load_tokenizer
from chorus.protocol.config.run import RunConfig
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.templates.load import load_templates

Meet = Callable[..., None]
TURNS = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[a]{% endif %}"


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_model, tmp_path / "model")


@pytest.fixture
def meet(model: Path, tmp_path: Path) -> Meet:
    """First contact of the model with forty sums; rows and sections can be others."""

    def call(rows: list[dict[str, Any]] | None = None, **sections: dict[str, Any]) -> None:
        train = tmp_path / "train.jsonl"
        sums = rows or [{"problem": f"{k} + 1", "answer": str(k + 1)} for k in range(40)]
        train.write_text("".join(json.dumps(row) + "\n" for row in sums))
        recipe: dict[str, dict[str, Any]] = {
            "run": {"dir": str(tmp_path / "runs")},
            "model": {"path": str(model), "context": 400},
            "problems": {"train": [str(train)], "max_prompt_tokens": 300},
            "templates": {"names": ["qwen-math"]},
            "sampling": {"max_tokens": 16},
        }
        merged = {name: recipe.get(name, {}) | sections.get(name, {}) for name in recipe | sections}
        first_contact(RunConfig.model_validate(merged))

    return call


def save(model: Path, tokenizer: Tokenizer, **named: Any) -> None:
    for old in model.glob("*token*"):
        old.unlink()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(model)


def byte_level(special: tuple[str, ...] = ()) -> Tokenizer:
    vocabulary = {piece: k for k, piece in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    return tokenizer


def config_of(model: Path, **values: Any) -> None:
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_model_and_rows_that_belong_together_pass_without_a_word(
    meet: Meet, caplog: pytest.LogCaptureFixture
) -> None:
    meet()
    assert caplog.records == []


def test_a_context_beyond_the_model_s_positions_names_the_key_and_its_most(meet: Meet, model: Path) -> None:
    config_of(model, max_position_embeddings=256)
    with pytest.raises(CannotGoOn, match=r"^model\.context is 400, and the model .* has 256 positions .*; set model"):
        meet()
    with pytest.raises(
        CannotGoOn, match=r"to 256 or less, and problems\.max_prompt_tokens \+ sampling\.max_tokens, which are 316"
    ):
        meet()
    meet(model={"context": 256}, problems={"max_prompt_tokens": 240})


@pytest.mark.parametrize(
    ("shape", "most"),
    [
        ({"max_position_embeddings": 2048}, 2048),
        ({"n_positions": 1024, "max_position_embeddings": 2048}, 1024),
        ({"max_position_embeddings": 2048, "rope_scaling": {"type": "linear", "factor": 4.0}}, 8192),
        ({"max_position_embeddings": 2048, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, 4096),
        ({"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 131072),
        ({"max_position_embeddings": 32768, "rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, 32768),
        ({"max_position_embeddings": 2048, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, 2048),
        ({"max_position_embeddings": 8192, "model_max_length": 131072}, 131072),
    ],
)
def test_positions_are_those_that_the_engine_finds(shape: dict[str, Any], most: int) -> None:
    found = positions(shape)
    assert found
    assert found[0] == most


def test_a_model_that_names_no_positions_has_no_limit() -> None:
    assert positions({"model_type": "any"}) is None


LOSSY = {
    "words": lambda t: setattr(
        t, "pre_tokenizer", pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), t.pre_tokenizer])
    ),
    "lower case": lambda t: setattr(t, "normalizer", normalizers.Lowercase()),
    "one blank": lambda t: setattr(t, "normalizer", normalizers.Replace("\n", " ")),
    "stripped": lambda t: setattr(t, "normalizer", normalizers.Replace("  ", " ")),
}


@pytest.mark.parametrize("loss", LOSSY)
def test_a_tokenizer_that_loses_blanks_newlines_or_letters_is_refused(loss: str, meet: Meet, model: Path) -> None:
    tokenizer = byte_level(CHATML)
    LOSSY[loss](tokenizer)
    save(model, tokenizer)
    with pytest.raises(
        CannotGoOn, match=r"its tokenizer does not give back what it reads: .*; give the tokenizer\.json"
    ):
        meet()


def test_a_tokenizer_that_is_larger_than_the_embedding_is_refused_with_the_tokens(meet: Meet, model: Path) -> None:
    tokenizer = load_tokenizer(str(model))
    rows = len(tokenizer)
    tokenizer.add_tokens(["<new>", "<newer>"])
    tokenizer.save_pretrained(model)
    with pytest.raises(
        CannotGoOn, match=rf"has 2 tokens that its embedding of {rows} rows does not hold \('<new>', '<newer>'\); give"
    ):
        meet()


def test_padding_that_was_added_alone_is_never_asked_for(meet: Meet, model: Path) -> None:
    tokenizer = load_tokenizer(str(model))
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.save_pretrained(model)
    meet()


def test_the_embedding_s_rows_are_those_of_the_weights(model: Path) -> None:
    assert embedding_rows(model, {"vocab_size": 5}) == len(load_tokenizer(str(model)))
    (model / "model.safetensors").unlink()
    assert embedding_rows(model, {"vocab_size": 5}) == 5


def test_weights_that_are_a_pointer_of_git_lfs_are_refused(meet: Meet, model: Path) -> None:
    (model / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(CannotGoOn, match=r"model\.safetensors holds no weights that can be read .*; copy it anew"):
        meet()


def test_chatml_on_a_model_with_another_chat_format_is_refused_and_its_own_format_taken(
    meet: Meet, model: Path
) -> None:
    save(model, byte_level())
    (model / "chat_template.jinja").write_text(TURNS)
    long = {"max_prompt_tokens": 800}
    context = {"context": 900}
    with pytest.raises(
        CannotGoOn, match=r'does not know <\|im_start\|> and <\|im_end\|>, .*; set templates\.chat = "model"'
    ):
        meet(problems=long, model=context)
    meet(problems=long, model=context, templates={"chat": "model"})


def test_chatml_on_a_base_model_that_knows_no_chat_is_a_warning(
    meet: Meet, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(model, byte_level())
    meet(problems={"max_prompt_tokens": 800}, model={"context": 900})
    (record,) = caplog.records
    assert 'so that the turns of templates.chat = "chatml" are plain text to it' in record.getMessage()


def test_markers_that_are_special_tokens_of_the_model_can_be_earned(meet: Meet, model: Path) -> None:
    template = load_templates()["deepseek-r1"]
    tokenizer = load_tokenizer(str(model))
    tokenizer.backend_tokenizer.add_special_tokens([AddedToken(tag, special=True) for tag in ("<think>", "</answer>")])
    tokenizer.save_pretrained(model)
    config_of(model, vocab_size=len(tokenizer))
    (model / "model.safetensors").unlink()
    assert any("<think>" in part for part in (template.prefill, *template.markers))
    meet(templates={"names": ["deepseek-r1"]}, problems={"max_prompt_tokens": 900}, model={"context": 950})


def test_a_tag_that_swallows_the_newline_beside_it_can_be_written_all_the_same(meet: Meet, model: Path) -> None:
    tokenizer = byte_level((*CHATML, "</s>"))
    tokenizer.add_special_tokens([AddedToken("<think>", special=True, rstrip=True, normalized=False)])
    save(model, tokenizer)
    assert any("<think>\n" in marker for marker in load_templates()["open-r1"].markers)
    meet(templates={"names": ["open-r1"]}, problems={"max_prompt_tokens": 1700}, model={"context": 1800})


def test_a_tokenizer_that_puts_a_blank_before_a_text_passes(meet: Meet, model: Path) -> None:
    tokenizer = byte_level(CHATML)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)  # type: ignore[assignment]
    save(model, tokenizer)
    meet(problems={"max_prompt_tokens": 800}, model={"context": 900})


def test_a_marker_that_the_tokenizer_can_not_write_is_refused_with_its_template(
    meet: Meet, model: Path, tmp_path: Path
) -> None:
    tokenizer = byte_level(CHATML)
    tokenizer.normalizer = normalizers.Replace("Answer:", "answer")  # type: ignore[assignment]
    save(model, tokenizer)
    mine = tmp_path / "terse.toml"
    mine.write_text(
        'name = "terse"\ncategory = "free-form"\nsystem = "Solve."\n'
        'markers = ["\\nAnswer:"]\nanswer_place = "in a box"\n'
    )
    with pytest.raises(
        CannotGoOn, match=r"template terse: it pays for '\\nAnswer:', and the tokenizer .*; leave it out"
    ):
        meet(templates={"names": ["terse"], "files": [str(mine)]})


def test_prompts_that_are_all_too_long_are_refused_and_some_are_counted(
    meet: Meet, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(
        CannotGoOn, match=r"each of the 40 prompts .* = 3 under .* \(the shortest has \d+ tokens\); raise it"
    ):
        meet(problems={"max_prompt_tokens": 3})
    rows = [{"problem": "1 + 1", "answer": "2"}, {"problem": "one more " * 90, "answer": "3"}]
    with caplog.at_level(logging.WARNING):
        meet(rows)
    assert "1 of 2 prompts that were looked at are longer than problems.max_prompt_tokens" in caplog.text


def test_a_row_that_the_chat_template_refuses_is_named_with_its_place(meet: Meet, model: Path) -> None:
    refuses = "{% if 'seven' in messages[-1].content %}{{ raise_exception('no sevens') }}{% endif %}" + TURNS
    (model / "chat_template.jinja").write_text(refuses)
    rows = [{"problem": "1 + 1", "answer": "2"}, {"problem": "seven + 1", "answer": "8"}]
    with pytest.raises(CannotGoOn, match=r"train\.jsonl:2: .*no sevens\); mend"):
        meet(rows, templates={"chat": "model"})


def test_rows_that_hold_the_model_s_own_tokens_as_text_are_told(meet: Meet, caplog: pytest.LogCaptureFixture) -> None:
    meet([{"problem": "1 + 1", "answer": "2"}, {"problem": "What ends a turn? <|im_end|>", "answer": "3"}])
    assert "1 of 2 rows that were looked at hold special tokens of the model as text" in caplog.text
    assert "train.jsonl:2" in caplog.text


def test_of_a_large_set_a_sample_is_looked_at_from_its_begin_to_its_end(
    meet: Meet, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chorus.deploy.first_contact._MOST_PROMPTS", 10)
    rows = [{"problem": f"{k} + 1" if k < 50 else "one more " * 90, "answer": "1"} for k in range(100)]
    meet(rows)
    assert "5 of 10 prompts that were looked at are longer" in caplog.text


Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(("free", "refused"), [(10**6, True), (10**9, False)])
def test_disk_for_the_checkpoints_must_be_free(
    free: int, refused: bool, meet: Meet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sizes.shutil, "disk_usage", lambda _: Usage(free, 0, free))
    if refused:
        with pytest.raises(
            CannotGoOn, match=r"run\.dir .*: 0\.0 GiB are free, and the checkpoints .*; make room, give"
        ):
            meet()
    else:
        meet(run={"steps": 10**6})
        assert "this run takes up to" in caplog.text, "the longest it can be is a warning"


def test_disk_is_planned_by_parameters_steps_and_tokens(meet: Meet, model: Path, tmp_path: Path) -> None:
    config = RunConfig.model_validate(
        {
            "model": {"path": str(model), "context": 400},
            "problems": {"train": ["any"], "max_prompt_tokens": 300},
            "templates": {"names": ["qwen-math"]},
            "run": {"steps": 100},
            "sampling": {"max_tokens": 16, "group_size": 4},
            "learner": {"groups_per_step": 8, "checkpoint_every": 10, "keep_checkpoints": 3},
        }
    )
    parameters = sum(
        tensor["shape"][0] * (tensor["shape"] + [1])[1]
        for name, tensor in _header(model / "model.safetensors").items()
        if name != "__metadata__"
    )
    planned = sizes.planned(config)
    assert planned.checkpoints == 4 * 16 * parameters, "three that are kept and the one that is written"
    assert planned.rollouts == 100 * 8 * 4 * 16 * 10


def _header(file: Path) -> dict[str, Any]:
    data = file.read_bytes()
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
