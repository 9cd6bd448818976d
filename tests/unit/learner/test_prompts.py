"""Prompts in a model's own chat format: nothing of a template is lost, and a prefill opens the answer once."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from chorus.problems.rendering import Renderer, load_tokenizer
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
