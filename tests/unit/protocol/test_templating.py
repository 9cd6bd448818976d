"""Templates: what they pay, how they render, how they are drawn, which files are refused."""

from collections import Counter
from pathlib import Path

import pytest

from protocol.templating import draw, format_score, load_templates, marker_counts, messages, render_chatml

TEMPLATES = load_templates()
CONSTANT = ["abel", "simplerl", "qwen-math", "formal", "lm_eval_prompt8"]

D = "<solution>\nx\n</solution>\n<check>\nLet's verify step by step: ok\n</check>\n\\boxed{4}"
F = "steps... The final answer is: \\boxed{4}"
COMPLETIONS = {
    "A": "<think>\nabc\n</think>\n<answer>\n\\boxed{4}\n</answer>",
    "B": "<think>abc</think> <answer>\\boxed{4}</answer>",
    "C": "abc\n</think>\n<answer>\n\\boxed{4}\n</answer>",
    "D": D,
    "E": D.replace("Let's verify step by step: ok", "ok"),
    "F": F,
    "G": "steps... " + "The final answer is: \\boxed{4} " * 2,
    "H": "\\boxed{4}",
}
COLUMNS = [
    ("open-r1",),
    ("open-r1-teacher",),
    ("deepseek-r1",),
    ("deepseek-r1-teacher",),
    ("lm_eval_prompt1", "lm_eval_prompt4"),
    ("reflective_prompt",),
    ("reflective_prompt-teacher",),
]
SCORES = {  # methods.md, 1.7; one number a column
    "A": [1, 1, 1, 1, 0, 0, 0],
    "B": [0, 0, 1, 1, 0, 0, 0],
    "C": [0.75, 1, 0.75, 1, 0, 0, 0],
    "D": [0, 0, 0, 0, 0, 1, 1],
    "E": [0, 0, 0, 0, 0, 0.75, 2 / 3],
    "F": [0, 0, 0, 0, 1, 0, 0],
    "G": [0, 0, 0, 0, 0, 0, 0],
    "H": [0, 0, 0, 0, 0, 0, 0],
}
EXPECTED = [
    (name, completion, score)
    for completion, row in SCORES.items()
    for names, score in zip(COLUMNS, row, strict=True)
    for name in names
] + [(name, completion, 1) for completion in SCORES for name in CONSTANT]

GOOD = 'name = "mine"\ncategory = "free-form"\nsystem = "Solve."\nanswer_place = "anywhere"\n'


def test_the_table_covers_all_thirteen_templates():
    assert {name for name, _, _ in EXPECTED} == set(TEMPLATES)
    assert len(TEMPLATES) == 13


@pytest.mark.parametrize(("name", "completion", "score"), EXPECTED)
def test_format_score_is_that_of_the_papers_table(name: str, completion: str, score: float):
    assert format_score(TEMPLATES[name], COMPLETIONS[completion]) == pytest.approx(score)


def test_a_marker_that_occurs_twice_pays_nothing():
    template = TEMPLATES["deepseek-r1"]
    assert format_score(template, "<think></think><answer></answer></answer>") == 0.75
    assert marker_counts(template, "<think><answer></answer></answer>") == {
        "<think>": 1,
        "</think>": 0,
        "<answer>": 1,
        "</answer>": 2,
    }


def test_a_prompt_is_chatml_in_the_order_system_user_assistant():
    template = TEMPLATES["lm_eval_prompt4"]
    assert template.user_suffix.startswith("\n")
    assert render_chatml(template, "What is 3 + 4?") == (
        f"<|im_start|>system\n{template.system}<|im_end|>\n"
        f"<|im_start|>user\nWhat is 3 + 4?{template.user_suffix}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert messages(template, "What is 3 + 4?") == [
        {"role": "system", "content": template.system},
        {"role": "user", "content": "What is 3 + 4?" + template.user_suffix},
    ]


@pytest.mark.parametrize(
    ("name", "prefill"),
    [
        ("abel", "Let's think step by step.\n"),
        ("open-r1-teacher", "<think>\n"),
        ("deepseek-r1-teacher", "<think>"),
        ("lm_eval_prompt1", "Let's think step by step"),
        ("lm_eval_prompt8", "Let's think step by step"),
        ("reflective_prompt-teacher", "<solution>\n"),
    ],
)
def test_a_prefill_ends_the_prompt_and_is_no_marker(name: str, prefill: str):
    template = TEMPLATES[name]
    assert render_chatml(template, "1 + 1?").endswith("<|im_start|>assistant\n" + prefill)
    assert not any(marker in prefill for marker in template.markers)


def test_the_other_seven_templates_have_no_prefill():
    assert sum(not template.prefill for template in TEMPLATES.values()) == 7


def test_every_template_asks_for_a_boxed_answer_with_one_backslash():
    for template in TEMPLATES.values():
        asked = template.system + template.user_suffix
        assert "\\boxed{" in asked, template.name
        assert "\\\\boxed" not in asked, template.name


def test_draws_are_uniform():
    names = sorted(TEMPLATES)
    n = 13_000
    counts = Counter(draw(42, epoch, f"math/{i}", names) for epoch in range(10) for i in range(n // 10))
    expected = n / len(names)
    chi_square = sum((counts[name] - expected) ** 2 / expected for name in names)
    assert chi_square < 32.91  # 12 degrees of freedom, p = 0.001


def test_a_draw_depends_on_seed_epoch_and_problem_but_not_on_the_order_of_names():
    names = sorted(TEMPLATES)
    problems = [f"math/{i}" for i in range(200)]
    first = [draw(42, 0, problem, names) for problem in problems]
    assert first == [draw(42, 0, problem, names[::-1]) for problem in problems]
    assert first != [draw(43, 0, problem, names) for problem in problems]
    assert first != [draw(42, 1, problem, names) for problem in problems]
    assert len(set(first)) == 13


def test_a_draw_is_the_same_on_every_machine():
    names = sorted(TEMPLATES)
    assert [draw(42, 0, f"math/{i}", names) for i in range(3)] == [
        "deepseek-r1-teacher",
        "formal",
        "open-r1-teacher",
    ]


def test_drawing_from_no_names_is_refused():
    with pytest.raises(ValueError, match="no template to draw from"):
        draw(42, 0, "math/0", [])


def test_extra_templates_come_from_a_file_or_a_folder(tmp_path: Path):
    (tmp_path / "mine.toml").write_text(GOOD)
    assert load_templates([tmp_path]) == load_templates([tmp_path / "mine.toml"])
    assert load_templates([tmp_path])["mine"].markers == []
    assert len(load_templates([tmp_path])) == 14


@pytest.mark.parametrize(
    ("file", "text", "named"),
    [
        ("mine.toml", GOOD + 'markers = ["a",,]\n', r"mine\.toml: not valid TOML: .*at line 5"),
        ("mine.toml", GOOD + "temperature = 1\n", r"mine\.toml: temperature \(line 5\): Extra inputs"),
        ("mine.toml", GOOD.replace("free-form", "poetry"), r"mine\.toml: category \(line 2\)"),
        ("mine.toml", GOOD + 'markers = [""]\n', r"mine\.toml: markers \(line 5\)"),
        (
            "mine.toml",
            'name = "mine"\ncategory = "reflection"\nsystem = ""\n',
            r"answer_place: Field required",
        ),
        ("other.toml", GOOD, r"other\.toml: name is 'mine', but the file is called 'other'"),
        (
            "abel.toml",
            GOOD.replace("mine", "abel"),
            r"abel\.toml: the name 'abel' is already taken by ",
        ),
    ],
)
def test_a_bad_file_is_refused_with_its_line_or_field(tmp_path: Path, file: str, text: str, named: str):
    (tmp_path / file).write_text(text)
    with pytest.raises(ValueError, match=named):
        load_templates([tmp_path])


def test_a_place_that_does_not_exist_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="no such file or folder"):
        load_templates([tmp_path / "nowhere"])
