"""Public data sets in the form in which they are downloaded: one line each loads them, as the documents say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from publicforms import ARC, BIGMATH, FORMS, GPQA, GSM8K, MATH, MMLU, NUMINA, SKYWORK

from chorus.problems.adapters.presets import preset_names
from chorus.problems.sources import Refused, load_problems, load_source

PAGE = (Path(__file__).parents[3] / "docs" / "problems.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"^\| [^|]+ \| `(\w+)\.parquet(\?[^`]+)` \|", PAGE, re.MULTILINE)


def jsonl(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


# By form: (problem, answers, level, domain) of each usable row.
SEES: dict[str, list[tuple[str, list[str], int | None, str | None]]] = {
    "gsm8k": [
        ("Ida bakes 12 rolls and sells a third of them. How many are left?", ["8"], None, None),
        ("A pen costs $3 and a book $9. What do 2 pens and 3 books cost?", ["33"], None, None),
        ("A hall has 40 rows of 30 seats. How many seats?", ["1,200"], None, None),
    ],
    "math": [
        ("What is $\\frac{1}{2} + \\frac{1}{3}$?", ["\\frac{5}{6}"], 2, "Prealgebra"),
        ("Which $x > 0$ solves $x^2 = 49$?", ["7"], None, "Algebra"),
    ],
    "dapo": [
        ("What is the third prime above 20?", ["31"], None, "MATH"),
        ("Let $n = 6$.\n\nFind $n!$ modulo $7$.", ["6"], None, "MATH"),
    ],
    "skywork": [
        ("Which digit follows $3$ in $\\pi$?", ["1"], None, "math"),
        ("Half of $\\sqrt{2}$?", ["\\frac{\\sqrt{2}}{2}", "\\frac{1}{\\sqrt{2}}"], None, "math"),
    ],
    "verl": [
        ("Tom has 3 apples and buys 4. How many has he?", ["7"], None, "math"),
        ("What is $2^{10}$?", ["1024"], None, "math"),
    ],
    "openr1": [("How many diagonals has a hexagon?", ["9"], None, "Geometry")],
    "numina": [
        ("Find the last digit of $3^4$.", ["1"], None, "Number Theory"),
        ("Find $\\gcd(12, 18)$.", ["6"], None, "Number Theory"),
    ],
    "bigmath": [
        (
            "A train goes 60 km in 40 minutes. How fast is it, in km/h?",
            ["90"],
            None,
            "Mathematics -> Applied Mathematics -> Math Word Problems",
        ),
        ("Simplify $\\sqrt{12}$.", ["2\\sqrt{3}"], None, "Mathematics -> Algebra"),
    ],
    "deepscaler": [
        ("What is the sum of the first 10 odd numbers?", ["100"], None, None),
        ("Solve $3x = 2$.", ["\\frac{2}{3}"], None, None),
    ],
    "aime": [("Find $9 \\cdot 9$.", ["81"], None, None), ("Find $2^8$.", ["256"], None, None)],
    "mmlu": [
        ("Which is prime?\n\n(A) 21\n(B) 22\n(C) 23\n(D) 24", ["C"], None, "number_theory"),
        ("Which is even?\n\n(A) 8\n(B) 9\n(C) 11\n(D) 13", ["A"], None, "number_theory"),
    ],
    "arc": [
        ("What melts at 0 degrees Celsius?\n\n(A) iron\n(B) ice\n(C) sand", ["B"], None, None),
        ("Which one flies?\n\n(A) a trout\n(B) a mole\n(C) a swift\n(D) a fox", ["C"], None, None),
    ],
}


@pytest.mark.parametrize("form", SEES)
def test_a_preset_reads_a_public_form_from_parquet_and_from_json_lines(form: str, tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(FORMS[form]), tmp_path / "set.parquet")
    for spec in (str(tmp_path / "set.parquet"), jsonl(tmp_path / "set.jsonl", FORMS[form])):
        found = load_problems(f"{spec}?preset={form}")
        assert [(p.problem, p.answers, p.level, p.domain) for p in found] == SEES[form]
        assert {p.kind for p in found} == {"choice" if form in ("mmlu", "arc") else "math"}


def test_the_documents_show_every_preset_and_each_line_loads_its_form(tmp_path: Path) -> None:
    assert len(SHOWN) >= 10
    assert {form for form, _ in SHOWN} == set(preset_names()) == set(FORMS)
    for form, options in SHOWN:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(FORMS[form]), tmp_path / f"{form}.parquet")
        assert load_problems(f"{tmp_path}/{form}.parquet{options}"), form


def test_verl_s_preset_also_reads_its_relatives(tmp_path: Path) -> None:
    for form in ("dapo", "skywork"):
        spec = jsonl(tmp_path / f"{form}.jsonl", FORMS[form][:2])
        assert [(p.problem, p.answers) for p in load_problems(f"{spec}?preset=verl")] == [see[:2] for see in SEES[form]]


def test_the_right_answer_of_columns_is_shuffled_into_a_fixed_order(tmp_path: Path) -> None:
    spec = jsonl(tmp_path / "gpqa.jsonl", GPQA) + "?preset=gpqa"
    problems = load_problems(spec)
    for row, problem in zip(GPQA, problems, strict=True):
        assert f"({problem.answers[0]}) {row['Correct Answer'].strip()}\n" in problem.problem + "\n"
        assert (problem.solution, problem.domain) == ("Multiply.", "Physics")
    assert {problem.answers[0] for problem in problems} == set("ABCD")
    assert load_problems(spec) == problems


def test_reference_solutions_are_kept_for_hints_without_the_answer_line_and_calculator_marks(tmp_path: Path) -> None:
    first = load_problems(jsonl(tmp_path / "gsm8k.jsonl", GSM8K) + "?preset=gsm8k")[0]
    assert first.solution == "She sells 12/3 = 4 rolls.\nSo 12 - 4 = 8 are left."


def test_what_a_preset_leaves_out_is_counted(tmp_path: Path) -> None:
    loaded = load_source(jsonl(tmp_path / "numina.jsonl", NUMINA) + "?preset=numina")
    assert (loaded.rows, len(loaded.placed), dict(loaded.unusable)) == (6, 2, {"left out by `where`": 4})


BY_HAND = [
    ("gsm8k", GSM8K, "problem=question&answer=answer|after:####"),
    ("math", MATH, "answer=solution|boxed&domain=type"),
    (
        "skywork",
        SKYWORK[:1],
        "problem=prompt&answer=reward_model.ground_truth|first&domain=ability&cut=\\n\\nPlease.*$",
    ),
    ("bigmath", BIGMATH, "domain=domain|first"),
    ("mmlu", MMLU, "problem=question&choices=choices"),
    ("arc", ARC, "problem=question&choices=choices&answer=answerKey"),
]


@pytest.mark.parametrize(("form", "rows", "options"), BY_HAND)
def test_the_pieces_of_a_preset_do_the_same_by_hand(form: str, rows: list[Any], options: str, tmp_path: Path) -> None:
    found = load_problems(f"{jsonl(tmp_path / 'set.jsonl', rows)}?{options}")
    assert [(p.problem, p.answers, p.level, p.domain) for p in found] == SEES[form][: len(rows)]


# As they come, without an option: what is wrong, and the option that mends it.
REFUSALS = [
    ("gsm8k", "", r"the row has no problem.*\?preset=gsm8k`: it reads"),
    ("gsm8k", "?problem=question", r"these look like worked solutions: add `\?answer=answer\|after:####`"),
    ("math", "", r"the row has no answer.*\?preset=math`: it reads"),
    ("math", "?answer=solution", r"these look like worked solutions: add `\?answer=solution\|boxed`"),
    ("dapo", "", r"\?preset=verl`: it reads"),
    ("dapo", "?problem=prompt&answer=reward_model", r"answer is an object; name one of answer=...ground_truth"),
    ("skywork", "?problem=prompt&answer=reward_model.ground_truth", r"is a list.*\|several` where each is right"),
    ("numina", "", r"is a proof, no answer.*add `\?where=answer!=proof&where=answer!=notfound`"),
    ("bigmath", "", r"domain is a list of 2; add `domain=domain\|first`"),
    ("aime", "", r"\?problem=Problem&answer=Answer`: it reads"),
    ("mmlu", "", r"\?preset=mmlu`: it reads"),
    ("arc", "", r"\?preset=arc`: it reads"),
    ("gpqa", "", r"\?preset=gpqa`: it reads"),
]


@pytest.mark.parametrize(("form", "options", "named"), REFUSALS)
def test_a_form_that_is_read_otherwise_is_refused_with_the_mend(
    form: str, options: str, named: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=named) as caught:
        load_problems(jsonl(tmp_path / f"{form}.jsonl", FORMS[form]) + options)
    assert "\n" not in str(caught.value)
    assert f"{form}.jsonl:1" in str(caught.value) or "numina.jsonl:2" in str(caught.value)


def test_the_mend_of_a_refusal_is_a_source_that_loads(tmp_path: Path) -> None:
    for form in ("gsm8k", "math", "dapo", "aime", "mmlu", "arc", "gpqa"):
        with pytest.raises(Refused) as caught:
            load_problems(jsonl(tmp_path / f"{form}.jsonl", FORMS[form]))
        found = re.search(r"`([^`]+)`: it reads", str(caught.value))
        assert found is not None
        assert load_problems(found[1])


def test_options_are_left_aside_where_the_source_says_so(tmp_path: Path) -> None:
    spec = jsonl(tmp_path / "mmlu.jsonl", [row | {"answer": "23"} for row in MMLU]) + "?problem=question&choices="
    first = load_problems(spec)[0]
    assert (first.kind, first.problem, first.answers) == ("math", "Which is prime?", ["23"])


@pytest.mark.parametrize(
    "row",
    [
        {"problem": "Which?", "options": ["x", "y"], "answer": "B", "kind": "math"},
        {"problem": "Which?", "options": "a ) x , b ) y", "answer": "b"},
        {"problem": "Which?", "A": "x", "B": "y", "C": "z", "D": "w", "answer": "B"},
    ],
)
def test_a_gold_that_names_an_option_is_not_taken_without_the_options(row: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the row has options in .*add `\?choices=") as caught:
        load_problems(jsonl(tmp_path / "set.jsonl", [{k: v for k, v in row.items() if k != "kind"}]))
    name = re.search(r"\?choices=([\w,]+)`", str(caught.value))
    assert name is not None
    [problem] = load_problems(f"{tmp_path}/set.jsonl?choices={name[1]}")
    assert (problem.kind, problem.answers) == ("choice", ["B"])


@pytest.mark.parametrize(
    ("more", "columns", "problem"),
    [
        ({"input": "What is 3 + 4?"}, "instruction,input", "Work it out.\nWhat is 3 + 4?"),
        ({"input": ""}, "instruction,input", "Work it out."),
        ({}, "instruction", "Work it out."),
    ],
)
def test_alpaca_s_input_is_part_of_the_problem(
    tmp_path: Path, more: dict[str, str], columns: str, problem: str
) -> None:
    source = jsonl(tmp_path / "alpaca.jsonl", [{"instruction": "Work it out.", **more, "output": "7"}])
    mend = f"{source}?problem={columns}&answer=output"
    with pytest.raises(Refused, match=re.escape(f"try `{mend}`")):
        load_problems(source)
    assert load_problems(mend)[0].problem == problem
