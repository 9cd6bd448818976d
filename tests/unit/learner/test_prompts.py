"""Prompts in a model's own chat format: nothing of a template is lost, and a prefill opens the answer once."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from chorus.problems.rendering import Renderer, load_tokenizer, stop_tokens
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.templates.load import load_templates
from chorus.protocol.templates.template import render_chatml

TEMPLATES = load_templates()
PROBLEM = "What is 3 + 4?"
TURNS = "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}[/]{% endfor %}"
HEADER = "{% if add_generation_prompt %}[assistant]{% endif %}"
PLAIN = "{{ '<s>' }}" + TURNS + HEADER
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + PLAIN
DROPS_SYSTEM = TURNS.replace("messages", "messages if m.role != 'system'") + HEADER
THINKS = TURNS + HEADER.replace("[assistant]", "[assistant]<think>\n")


@pytest.fixture
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerFast:
    return load_tokenizer(str(tiny_model))


def render(tokenizer: PreTrainedTokenizerFast, chat_template: str, name: str) -> str:
    tokenizer.chat_template = chat_template
    renderer = Renderer(tokenizer, "model")
    text = renderer.text(TEMPLATES[name], PROBLEM)
    assert tokenizer.decode(renderer.ids(TEMPLATES[name], PROBLEM)) == text
    return text


def test_chatml_is_written_whatever_the_models_own_format_is(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = PLAIN
    text = Renderer(tokenizer, "chatml").text(TEMPLATES["abel"], PROBLEM)
    assert text == render_chatml(TEMPLATES["abel"], PROBLEM)


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_models_format_holds_system_problem_and_prefill_in_their_places(
    tokenizer: PreTrainedTokenizerFast, name: str
) -> None:
    template = TEMPLATES[name]
    user = (PROBLEM + template.user_suffix).strip()
    expected = f"<s>[system]{template.system.strip()}[/][user]{user}[/][assistant]{template.prefill}"
    assert render(tokenizer, PLAIN, name) == expected


@pytest.mark.parametrize("chat_template", [NO_SYSTEM, DROPS_SYSTEM])
def test_where_there_is_no_system_role_its_text_goes_before_the_problem(
    tokenizer: PreTrainedTokenizerFast, chat_template: str
) -> None:
    text = render(tokenizer, chat_template, "open-r1-teacher")
    system = TEMPLATES["open-r1-teacher"].system.strip()
    assert text.removeprefix("<s>") == f"[user]{system}\n\n{PROBLEM}[/][assistant]<think>\n"


@pytest.mark.parametrize("name", ["open-r1-teacher", "deepseek-r1-teacher"])
def test_a_prefill_that_the_chat_template_writes_itself_is_not_written_twice(
    tokenizer: PreTrainedTokenizerFast, name: str
) -> None:
    assert render(tokenizer, THINKS, name).endswith("[/][assistant]<think>\n")
    assert render(tokenizer, THINKS, name).count("<think>\n") == TEMPLATES[name].system.count("<think>\n") + 1


def test_a_marker_that_the_chat_template_takes_away_is_told_once(
    tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer.chat_template = THINKS
    renderer = Renderer(tokenizer, "model")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            renderer.text(TEMPLATES["open-r1"], PROBLEM)
            renderer.text(TEMPLATES["open-r1-teacher"], PROBLEM)
    assert len(caplog.records) == 1
    assert "template open-r1 pays for '<think>\\n', but the model's chat template opens" in caplog.text


def test_a_model_without_a_chat_template_is_refused_with_the_mend(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(CannotGoOn, match=r"has no chat template; set templates.chat = 'chatml'"):
        Renderer(tokenizer, "model")


THINKING = PLAIN + "{% if add_generation_prompt and enable_thinking is false %}<think></think>{% endif %}"


def test_arguments_reach_the_chat_template(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = THINKING
    without = Renderer(tokenizer, "model", {"enable_thinking": False}).text(TEMPLATES["qwen-math"], PROBLEM)
    assert without.endswith("[assistant]<think></think>")
    assert Renderer(tokenizer, "model").text(TEMPLATES["qwen-math"], PROBLEM).endswith("[assistant]")


def test_an_argument_that_the_chat_template_never_reads_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = THINKING
    with pytest.raises(CannotGoOn, match=r"chat_arguments: the chat template \(model\) never reads 'enable_thinkin'"):
        Renderer(tokenizer, "model", {"enable_thinkin": False})


def test_a_chat_template_of_ones_own_is_a_file_and_needs_none_of_the_model(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    tokenizer.chat_template = None
    own = tmp_path / "own.jinja"
    own.write_text("{{ bos_token }}" + TURNS + "{% if shout %}!{% endif %}" + HEADER)
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    text = Renderer(tokenizer, str(own), {"shout": True}).text(TEMPLATES["qwen-math"], PROBLEM)
    assert text == f"<s>[system]{TEMPLATES['qwen-math'].system}[/][user]{PROBLEM}[/]![assistant]"


@pytest.mark.parametrize(
    ("written", "words"),
    [(None, "can't be read"), ("{% if %}", "no Jinja template"), (b"\xff", "can't be read")],
)
def test_a_chat_template_that_is_none_is_refused(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, written: str | bytes | None, words: str
) -> None:
    own = tmp_path / "own.jinja"
    if written is not None:
        own.write_bytes(written if isinstance(written, bytes) else written.encode())
    with pytest.raises(CannotGoOn, match=f"templates.chat {own}: {words}"):
        Renderer(tokenizer, str(own))


def test_a_chat_template_that_takes_no_user_turn_alone_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = "{{ raise_exception('tools only') }}"
    with pytest.raises(CannotGoOn, match=r"templates.chat model: the chat template refuses one user turn .*tools only"):
        Renderer(tokenizer, "model").text(TEMPLATES["qwen-math"], PROBLEM)


EACH = "{% for m in messages %}"


@pytest.mark.parametrize(
    ("chat_template", "says"),
    [
        ("hello", "makes 'hello' of 'Tom has"),
        ("", "templates.chat model: the chat template makes '' of 'Tom"),
        (EACH + "{{ m.content[:5] }}{% endfor %}", "does not hold it as it is; write the messages' `content`"),
        (EACH + "{{ m.content | upper }}{% endfor %}", "does not hold it"),
        (EACH + "{{ m.content | e }}{% endfor %}", "does not hold it"),
        (EACH + "{% if m.role == 'system' %}{{ m.content }}{% endif %}{% endfor %}", "does not hold it"),
        (EACH + "{{ m.content + 1 }}{% endfor %}", "templates.chat model: the chat template can't be used"),
    ],
)
def test_a_chat_template_that_does_not_hold_the_problem_is_refused_at_once(
    tokenizer: PreTrainedTokenizerFast, chat_template: str, says: str
) -> None:
    tokenizer.chat_template = chat_template or "{# #}"
    with pytest.raises(CannotGoOn) as refusal:
        Renderer(tokenizer, "model")
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)
    Renderer(tokenizer, "chatml")


@pytest.mark.parametrize("chat", ["chatml", "model"])
def test_a_template_without_a_system_text_has_no_system_turn(tokenizer: PreTrainedTokenizerFast, chat: str) -> None:
    tokenizer.chat_template = PLAIN
    template = TEMPLATES["qwen-math"].model_copy(update={"system": ""})
    text = Renderer(tokenizer, chat).text(template, PROBLEM)
    assert (
        text
        == {
            "chatml": f"<|im_start|>user\n{PROBLEM}<|im_end|>\n<|im_start|>assistant\n",
            "model": f"<s>[user]{PROBLEM}[/][assistant]",
        }[chat]
    )


def test_the_token_that_begins_a_text_is_there_once_though_the_tokenizer_adds_it_too(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    begin = tokenizer.convert_tokens_to_ids("<s>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", begin)])
    assert tokenizer.encode("1")[0] == begin
    tokenizer.chat_template = PLAIN
    ids = Renderer(tokenizer, "model").ids(TEMPLATES["qwen-math"], PROBLEM)
    assert (ids[0], ids.count(begin)) == (begin, 1)


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        ([5, 6], 9, [4, 5, 6]),  # all of the generation config's, and the tokenizer's
        (5, 9, [4, 5]),
        (None, 9, [4, 9]),  # no such file: what the model's config says
        (None, None, [4]),
        ([5, 10_000], 9, [4, 5]),  # the head has no such row
    ],
)
def test_an_answer_ends_at_every_end_token_of_generation_config_and_tokenizer(
    tiny_model: Path,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    generation: int | list[int] | None,
    config: int | None,
    expected: list[int],
) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / "generation_config.json").unlink(missing_ok=True)
    if generation is not None:
        (model / "generation_config.json").write_text(json.dumps({"eos_token_id": generation}))
    written = json.loads((model / "config.json").read_text()) | {"eos_token_id": config}
    (model / "config.json").write_text(json.dumps(written))
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(4)
    assert stop_tokens(str(model), tokenizer, vocabulary=100) == expected
