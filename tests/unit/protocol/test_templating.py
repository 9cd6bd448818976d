"""Templates: what they pay, how they render, how they are drawn, which files are refused."""

import hashlib
import re
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest

from chorus.protocol.templates.load import load_templates
from chorus.protocol.templates.sampling import draw
from chorus.protocol.templates.score import contract_faults, format_score, marker_counts
from chorus.protocol.templates.template import Template, messages, render_chatml

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


STEP = "Let's think step by step"
CHECK = "\n<check>\nLet's verify step by step"
# methods.md, 1.3: category, what opens the assistant's turn, what each must occur once.
TABLE: dict[str, tuple[str, str, list[str]]] = {
    "abel": ("explicit-cot", STEP + ".\n", []),
    "simplerl": ("free-form", "", []),
    "qwen-math": ("free-form", "", []),
    "open-r1": ("deepseek", "", ["<think>\n", "\n</think>\n", "\n<answer>\n", "\n</answer>"]),
    "open-r1-teacher": ("deepseek", "<think>\n", ["\n</think>\n", "\n<answer>\n", "\n</answer>"]),
    "deepseek-r1": ("deepseek", "", ["<think>", "</think>", "<answer>", "</answer>"]),
    "deepseek-r1-teacher": ("deepseek", "<think>", ["</think>", "<answer>", "</answer>"]),
    "formal": ("free-form", "", []),
    "lm_eval_prompt1": ("explicit-cot", STEP, ["The final answer is:"]),
    "lm_eval_prompt4": ("free-form", "", ["The final answer is:"]),
    "lm_eval_prompt8": ("explicit-cot", STEP, []),
    "reflective_prompt": ("reflection", "", ["<solution>\n", "\n</solution>\n", CHECK, "\n</check>"]),
    "reflective_prompt-teacher": ("reflection", "<solution>\n", ["\n</solution>\n", CHECK, "\n</check>"]),
}
LAYOUTS = {  # which the system message shows
    "open-r1": "<think>\n{}\n</think>\n<answer>\n{}\n</answer>",
    "deepseek-r1": "<think> {} </think> <answer> {} </answer>",
    "reflective_prompt": "<solution>\n{}\n</solution>\n<check>\nLet's verify step by step ...\n</check>",
}


def test_the_package_holds_the_thirteen_of_the_table_and_no_other():
    assert set(TEMPLATES) == set(TABLE)
    assert len(TABLE) == 13


@pytest.mark.parametrize("name", TABLE)
def test_category_prefill_and_markers_are_those_of_the_table(name: str):
    template = TEMPLATES[name]
    assert (template.category, template.prefill, template.markers) == TABLE[name]
    assert template.contract == "count"


@pytest.mark.parametrize("name", TABLE)
def test_only_simplerl_and_lm_eval_prompt4_add_to_the_problem_from_a_new_line(name: str):
    suffix = TEMPLATES[name].user_suffix
    assert bool(suffix) == (name in ("simplerl", "lm_eval_prompt4"))
    assert not suffix or suffix.startswith("\n")


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_system_message_shows_the_layout_word_for_word(name: str):
    parts = [re.escape(part) for part in LAYOUTS[name].split("{}")]
    for variant in (name, f"{name}-teacher"):
        assert re.search(r"[^<>]+".join(parts), TEMPLATES[variant].system), variant
    assert TEMPLATES[name].system == TEMPLATES[f"{name}-teacher"].system


@pytest.mark.parametrize("name", ["lm_eval_prompt1", "lm_eval_prompt4"])
def test_the_final_phrase_is_asked_for_with_a_boxed_answer(name: str):
    template = TEMPLATES[name]
    assert "The final answer is: \\boxed{answer}" in template.system + template.user_suffix


STRICT = Template(
    name="strict",
    category="deepseek",
    system="",
    markers=["<think>", "</think>", "<answer>", "</answer>"],
    contract="strict",
    answer_place="",
)
STRICT_TEACHER = STRICT.model_copy(
    update={"prefill": "<think>\n", "markers": ["\n</think>\n", "\n<answer>\n", "\n</answer>"]}
)


@pytest.mark.parametrize(
    ("completion", "fault"),
    [
        ("<think>a</think> <answer>4</answer>", None),
        ("so: <think>a</think> then <answer>4</answer>.", None),
        ("<answer>4</answer><think>a</think>", "'<answer>' stands before '</think>'"),
        ("</think><think> <answer>4</answer>", "'</think>' stands before '<think>'"),
        ("<think>a<answer></think>4</answer>", "'<answer>' stands before '</think>'"),
        ("<think>a</think> <answer>4", "'</answer>' occurs 0 times, not once"),
        ("<think><think>a</think> <answer>4</answer>", "'<think>' occurs 2 times, not once"),
    ],
)
def test_a_strict_contract_pays_all_or_nothing_for_order_and_nesting(completion: str, fault: str | None):
    assert format_score(STRICT, completion) == (0.0 if fault else 1.0)
    assert contract_faults(STRICT, completion) == ([fault] if fault else [])


@pytest.mark.parametrize(
    ("completion", "fault"),
    [
        (COMPLETIONS["C"], None),  # neighbouring markers share a line break
        ("a <b> c\n</think>\n\n<answer>\n4\n</answer>", None),  # a tag that the contract does not name
        ("a\n</think>\n\n<answer>\n<think>4</think>\n</answer>", "</think> occurs 2 times, not once"),
        ("<answer>\na\n</think>\n\n<answer>\n4\n</answer>", "</think> closes what is not open there"),
        ("a\n</think>\n<think>\n<answer>\n4\n</answer>", "<think> occurs 2 times, not once"),
    ],
)
def test_a_strict_contract_counts_the_prefills_tag_and_other_writings_of_its_tags(completion: str, fault: str | None):
    assert format_score(STRICT_TEACHER, completion) == (0.0 if fault else 1.0)
    assert fault is None or fault in " ".join(contract_faults(STRICT_TEACHER, completion))


def test_the_same_disorder_costs_nothing_under_a_counting_contract():
    counting = STRICT.model_copy(update={"contract": "count"})
    assert format_score(counting, "</answer><answer></think><think>") == 1.0


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


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row[1]])
def test_a_prefill_ends_the_prompt_and_is_no_marker(name: str):
    template = TEMPLATES[name]
    assert render_chatml(template, "1 + 1?").endswith("<|im_start|>assistant\n" + template.prefill)
    assert not any(marker in template.prefill for marker in template.markers)


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


def test_a_weighted_draw_is_the_point_of_the_hash_on_the_line_of_weights_in_the_order_of_names():
    weights = {"c": 0.5, "a": 1.0, "b": 0.0, "d": 2.5}
    for problem in (f"math/{i}" for i in range(300)):
        digest = hashlib.blake2b(f"42\0{0}\0{problem}".encode(), digest_size=16).digest()
        point = Fraction(int.from_bytes(digest, "little"), 2**128) * 4
        expected = "a" if point < 1 else "c" if point < Fraction(3, 2) else "d"
        assert draw(42, 0, problem, list(weights), weights) == expected
        assert draw(42, 0, problem, sorted(weights), weights) == expected


def test_drawing_from_no_names_is_refused():
    with pytest.raises(ValueError, match="no template to draw from"):
        draw(42, 0, "math/0", [])


def test_extra_templates_come_from_a_file_or_a_folder(tmp_path: Path):
    (tmp_path / "mine.toml").write_text(GOOD)
    assert load_templates([tmp_path]) == load_templates([tmp_path / "mine.toml"])
    assert load_templates([tmp_path])["mine"].markers == []
    assert len(load_templates([tmp_path])) == 14


PLACES = ["{problem}", "{{problem}}", "{{ question }}", "{ Prompt }", "{input}", "{{query}}"]
PATTERNS = ["<a>.*</a>", ".+?", r"\\d+", r"Answer:\\s", r"[\\s\\S]", "(?:a|b)"]


@pytest.mark.parametrize("field", ["system", "user_suffix", "prefill"])
@pytest.mark.parametrize("place", PLACES)
def test_a_place_for_the_problem_is_refused_since_the_problem_follows_by_itself(field: str, place: str, tmp_path: Path):
    fields = {"system": "Solve.", field: f"Solve {place} now."}
    text = GOOD.replace('system = "Solve."\n', "") + "".join(f'{k} = "{v}"\n' for k, v in fields.items())
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(ValueError, match=rf"mine\.toml: {field}: '{re.escape(place)}' would reach .*; remove it"):
        load_templates([tmp_path])
    for written in (place.strip("{} "), "{answer}", "\\\\\\\\boxed{input}", "{" + place.strip("{} ") + "s}"):
        (tmp_path / "mine.toml").write_text(text.replace(place, written))
        assert "mine" in load_templates([tmp_path])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_regular_expression_is_no_marker(pattern: str, tmp_path: Path):
    (tmp_path / "mine.toml").write_text(GOOD + f'markers = ["a", "{pattern}"]\n')
    with pytest.raises(ValueError, match=r"mine\.toml: markers\[1\]: .* a marker is looked for letter by letter; list"):
        load_templates([tmp_path])


@pytest.mark.parametrize("marker", ["**The end.**", r"\\dfrac", "f(x) = ...", "(1)", r"\\boxed{", "a.b", "1 + 2"])
def test_marks_of_latex_and_markdown_are_markers(marker: str, tmp_path: Path):
    (tmp_path / "mine.toml").write_text(GOOD + f'markers = ["{marker}"]\n')
    assert load_templates([tmp_path])["mine"].markers == [marker.replace("\\\\", "\\")]


def test_a_byte_order_mark_before_a_template_is_passed_over(tmp_path: Path):
    (tmp_path / "mine.toml").write_text(GOOD, encoding="utf-8-sig")
    assert load_templates([tmp_path])["mine"].system == "Solve."


BAD_FILES = [
    ("mine", GOOD + 'markers = ["a",,]\n', r"mine\.toml:5: not valid TOML: Invalid value \(column 16\)"),
    ("mine", GOOD + "temperature = 1\n", r"mine\.toml: temperature: not a known key; known: name, category, "),
    ("mine", GOOD.replace("free-form", "poetry"), r"mine\.toml: category: Input should be 'deepseek', .*'poetry'"),
    ("mine", GOOD + 'markers = [\n  "a",\n  "",\n]\n', r"mine\.toml: markers\[1\]: String should have at least 1 "),
    ("mine", GOOD + 'markers = ["a", ""]\n', r"mine\.toml: markers\[1\]: String should have at least 1 "),
    (
        "mine",
        GOOD + 'markers = [ # "]"\n"a", "b",\n\n# ,\n5]\n',
        r"mine\.toml: markers\[2\]: Input should be a valid s",
    ),
    ("mine", GOOD + 'markers = [\n"""\na",\n""", "b", "<|c|>",\n]\n', r"mine\.toml: markers\[2\]: '<\|c\|>' belongs"),
    ("mine", GOOD + 'markers = [\n  "a",\n  "b",\n  "a",\n]\n', r"mine\.toml: markers: 'a' is listed twice"),
    ("mine", GOOD + 'prefill = "<t>"\nmarkers = [\n"a",\n"<t>"]\n', r"mine\.toml: markers: '<t>' stands in the pref"),
    ("mine", GOOD + 'markers = ["a", "a"]\n', r"mine\.toml: markers: 'a' is listed twice"),
    ("mine", GOOD + 'prefill = "<t>"\nmarkers = ["<t>"]\n', r"mine\.toml: markers: '<t>' stands in the prefill"),
    (
        "mine",
        GOOD + 'contract = "loose"\n',
        r"mine\.toml: contract: Input should be 'count', 'strict' or 'interleaved'",
    ),
    (
        "mine",
        GOOD + 'contract = "strict"\nmarkers = []\n',
        r"mine\.toml: contract: a contract that is strict needs markers",
    ),
    (
        "mine",
        GOOD.replace("Solve.", "Solve.<|im_end|>"),
        r"mine\.toml: system: '<\|im_end\|>' belongs to a chat format",
    ),
    ("mine", GOOD.replace('"Solve."', "5"), r"mine\.toml: system: Input should be a valid string \(got 5\)"),
    ("mine", "".join(GOOD.splitlines(True)[:3]), r"mine\.toml: answer_place: missing; every template needs it"),
    ("mine", GOOD + 'prefill = """\n', r"mine\.toml(:\d+)?: not valid TOML: "),
    ("my template", GOOD.replace("mine", "my template"), r"my template\.toml: name: String should match pattern"),
    ("other", GOOD, r"other\.toml: name is 'mine', but the file is called 'other'; make them equal"),
    ("abel", GOOD.replace("mine", "abel"), r"abel\.toml: the name 'abel' is already taken by .*abel\.toml; rename"),
]


@pytest.mark.parametrize(("file", "text", "named"), BAD_FILES)
def test_a_bad_file_is_refused_with_the_field_that_is_wrong(tmp_path: Path, file: str, text: str, named: str):
    (tmp_path / f"{file}.toml").write_text(text)
    with pytest.raises(ValueError, match=r"^template .*" + named):
        load_templates([tmp_path])


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path):
    (tmp_path / "mine.toml").write_text('name = "mine"\ncategory = "poetry"\nsystem = 5\nplace = 1\n')
    with pytest.raises(ValueError, match=r"mine\.toml: category.*mine\.toml: system.*answer_place.*toml: place"):
        load_templates([tmp_path])


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path):
    (tmp_path / "mine.toml").write_bytes(GOOD.encode() + b"# \xe9\n")
    with pytest.raises(ValueError, match=r"mine\.toml: not UTF-8 \(byte \d+\)"):
        load_templates([tmp_path])


def test_a_place_that_does_not_exist_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="no such file or folder"):
        load_templates([tmp_path / "nowhere"])
