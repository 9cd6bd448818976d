"""The starter's tokenizer: exact on any text, short on the demo's prompts, and the same in every loader."""

from pathlib import Path
from random import Random
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from chorus.problems.arithmetic import chain_operands, chain_text
from chorus.protocol.templates.load import load_templates
from chorus.protocol.templates.template import render_chatml
from chorus.starter.build import build_starter
from chorus.starter.solutions import sloppy_solution
from chorus.starter.tokenizer import build_tokenizer

TEMPLATES = load_templates()
DEMO = ["qwen-math", "deepseek-r1", "open-r1-teacher", "lm_eval_prompt4"]
TOKENIZER = build_tokenizer(TEMPLATES.values())
TEXTS = [
    "",
    " leading, trailing and  double spaces \n\n\t",
    "naïve Größe 数学 🎼 \u200b e\u0301",
    "3 + 4 = 7, so 7 - 5 = 2; 007 and 1234567",
    "<think>\nx\n</think>\n<answer>\n\\boxed{4}\n</answer>\n</think>",
    "Ġ Ċ are letters too, and don't get tidied , are they ?",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_starter(tmp_path_factory.mktemp("cache"), DEMO, steps=1, log=lambda _: None)


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_any_text_round_trips(text: str):
    assert TOKENIZER.decode(TOKENIZER(text).input_ids) == text


@pytest.mark.parametrize("text", TEXTS)
def test_a_saved_tokenizer_round_trips_through_auto_tokenizer(folder: Path, text: str):
    loaded = AutoTokenizer.from_pretrained(folder)
    ids = loaded(text).input_ids
    assert loaded.decode(ids) == text
    assert ids == build_tokenizer([TEMPLATES[name] for name in DEMO])(text).input_ids


def test_vllm_loads_the_same_tokenizer(folder: Path):
    get_tokenizer = pytest.importorskip("vllm.tokenizers").get_tokenizer
    loaded = get_tokenizer(str(folder))
    for text in TEXTS:
        assert loaded.decode(loaded.encode(text)) == text


@pytest.mark.parametrize("names", [DEMO, list(TEMPLATES)], ids=["the demo's", "all thirteen"])
def test_prompts_of_the_demo_are_short(names: list[str]):
    tokenizer = build_tokenizer([TEMPLATES[name] for name in names])
    lengths = [
        len(tokenizer(render_chatml(TEMPLATES[name], chain_text(*numbers))).input_ids)
        for name in names
        for numbers in list(chain_operands("heldout"))[:50]
    ]
    assert median(lengths) <= 40


def test_a_number_is_one_token():
    for number in range(100):
        assert len(TOKENIZER(str(number)).input_ids) == 1
    ids = TOKENIZER("12 + 3 = 15, so 15 - 7 = 8").input_ids
    assert TOKENIZER.batch_decode([[i] for i in ids]) == [
        *["12", " + ", "3", " = ", "15"],
        *[", so ", "15", " - ", "7", " = ", "8"],
    ]


def test_chat_markers_are_special_and_end_of_turn_ends():
    assert TOKENIZER.eos_token == "<|im_end|>"
    ids = TOKENIZER("<|im_start|>x<|im_end|>").input_ids
    assert len(ids) == 3
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == "x"


def test_a_completion_has_few_tokens_and_prompt_and_completion_meet_at_a_token_border():
    random = Random(0)
    for template in TEMPLATES.values():
        prompt = render_chatml(template, chain_text(3, 4, 5))
        completion = sloppy_solution(template, (3, 4, 5), random, slip=0.3, garble=0)
        apart = TOKENIZER(prompt).input_ids + TOKENIZER(completion).input_ids
        assert apart == TOKENIZER(prompt + completion).input_ids
        assert len(TOKENIZER(completion).input_ids) <= 32


def test_ids_do_not_depend_on_the_order_of_the_templates():
    backwards = build_tokenizer(reversed(TEMPLATES.values()))
    assert backwards.get_vocab() == TOKENIZER.get_vocab()
