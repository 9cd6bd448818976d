"""`chorus templates`: listed, shown to the last character, and tried marker by marker."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from chorus.cli.main import main
from chorus.problems.rendering import load_tokenizer
from chorus.protocol.runtime.exits import CANNOT_GO_ON
from chorus.protocol.templates.load import load_templates
from chorus.protocol.templates.template import render_chatml

TEMPLATES = load_templates()
TERSE = r"""
name = "terse"
category = "free-form"
answer_place = "after 'Answer:'"
system = 'Solve the problem in a few words. End with a line "Answer: \boxed{...}".'
markers = ["\nAnswer:"]
"""


@pytest.fixture
def terse(tmp_path: Path) -> Path:
    path = tmp_path / "terse.toml"
    path.write_text(TERSE)
    return path


def chorus(*arguments: object) -> int:
    return main(["templates", *map(str, arguments)])


def test_all_templates_are_listed_with_ones_own_among_them(
    terse: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert chorus("--files", terse) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in TEMPLATES)
    assert "terse" in listed
    assert "⏎Answer:" in listed


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_shown_prompt_is_what_the_model_sees_to_the_last_character(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chorus("show", name, "--problem", "What is 3 + 4?") == 0
    assert capsys.readouterr().out == render_chatml(TEMPLATES[name], "What is 3 + 4?")


def test_a_prompt_is_shown_as_the_tokens_of_a_model(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert chorus("show", "qwen-math", "--problem", "What is 3 + 4?", "--model", tiny_model) == 0
    shown = capsys.readouterr()
    assert shown.out == render_chatml(TEMPLATES["qwen-math"], "What is 3 + 4?")
    assert " tokens in the format 'chatml': <|im_start|> " in shown.err


def test_a_text_that_keeps_the_contract_is_paid_in_full(terse: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = terse.with_name("answer.txt")
    text.write_text("3 + 4 = 7\nAnswer: \\boxed{7}\n")
    assert chorus("try", terse, "--completion", text) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ok      ⏎Answer:  occurs once",
        "format  1  (1 of 1 markers occur exactly once, contract count)",
    ]


def test_each_missed_marker_is_told_and_the_exit_status_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "<think>\na\n</think>\n\n</answer>\n</answer>"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert chorus("try", "open-r1", "--completion", "-") == 1
    assert capsys.readouterr().out.splitlines() == [
        "ok      <think>⏎  occurs once",
        "ok      ⏎</think>⏎  occurs once",
        "missed  ⏎<answer>⏎  does not occur",
        "missed  ⏎</answer>  occurs 2 times; once is paid",
        "format  0.5  (2 of 4 markers occur exactly once, contract count)",
    ]


def test_a_strict_contracts_fault_is_told(terse: Path, capsys: pytest.CaptureFixture[str]) -> None:
    terse.write_text(TERSE.replace('["\\nAnswer:"]', '["Work:", "Answer:"]\ncontract = "strict"'))
    text = terse.with_name("answer.txt")
    text.write_text("Answer: 7 Work: 3 + 4")
    assert chorus("try", terse, "--completion", text) == 1
    out = capsys.readouterr().out
    assert "missed  'Answer:' stands before 'Work:'" in out
    assert "format  0  (2 of 2 markers occur exactly once, contract strict)" in out


def test_a_text_with_the_prefill_in_it_is_graded_with_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "answer.txt"
    text.write_text("<think>a</think> <answer>\\boxed{4}</answer>")
    assert chorus("try", "deepseek-r1-teacher", "--completion", text) == 0
    assert "note: the text begins with <think>" in capsys.readouterr().err


@pytest.mark.usefixtures("inline_graders")
def test_with_a_gold_the_answer_is_graded_and_the_reward_composed(
    terse: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = terse.with_name("answer.txt")
    text.write_text("3 + 4 = 7\nAnswer: \\boxed{7}\n")
    assert chorus("try", terse, "--completion", text, "--gold", "7") == 0
    out = capsys.readouterr().out
    assert "answer  correct: '7' against '7'" in out
    assert "reward  2.0" in out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["show", "open-r2", "--problem", "p"], "NAME: open-r2 unknown; known: abel, deepseek-r1"),
        (["show", "nowhere.toml", "--problem", "p"], "nowhere.toml: no such file or folder"),
        (["try", "abel", "--completion", "nowhere.txt"], "--completion nowhere.txt: No such file or directory"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chorus(*arguments) == CANNOT_GO_ON
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1


def test_a_bad_file_is_refused_with_its_field(terse: Path, capsys: pytest.CaptureFixture[str]) -> None:
    terse.write_text(TERSE + 'contract = "loose"\n')
    assert chorus("show", terse, "--problem", "p") == CANNOT_GO_ON
    assert "terse.toml: contract: Input should be 'count', 'strict' or 'interleaved'" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(load_templates()))
def test_as_a_chat_template_it_writes_the_prompt_that_is_trained_under(
    name: str, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["templates", "jinja", name]) == 0
    written = capsys.readouterr().out
    tokenizer = load_tokenizer(str(tiny_model))
    problem = r'Is \frac{1}{2} < "x"?' + "\nSay {{ why }}: 日本 😀"
    turns = [{"role": "system", "content": "Speak Latin."}, {"role": "user", "content": problem}]
    asked = tokenizer.apply_chat_template(turns, chat_template=written, tokenize=False, add_generation_prompt=True)
    assert asked == render_chatml(load_templates()[name], problem)
    later = [*turns[1:], {"role": "assistant", "content": "No."}, {"role": "user", "content": "Sure?"}]
    text = str(tokenizer.apply_chat_template(later, chat_template=written, tokenize=False))
    assert text.count("<|im_start|>assistant\nNo.<|im_end|>\n<|im_start|>user\nSure?") == 1
    assert text.endswith("<|im_end|>\n")
