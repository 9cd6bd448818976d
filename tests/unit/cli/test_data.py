"""`chorus data`: what would be trained on, as people and as programs read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from publicforms import GSM8K, NUMINA

from chorus.cli.main import main


def jsonl(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_json_has_the_rows_the_unusable_ones_by_reason_and_three_examples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"id": f"x/{n}", "problem": f"p{n}", "answer": str(n), "level": n, "subject": "s", "more": 1} for n in range(19)
    ]
    spec = jsonl(tmp_path / "set.jsonl", [{"problem": "p", "answer": "proof"}, *rows])
    assert main(["data", spec, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "rows": 20,
        "usable": 19,
        "unusable": {"proof": 1},
        "examples": [
            {"id": f"x/{n}", "problem": f"p{n}", "answers": [str(n)], "level": n, "domain": "s"} for n in range(3)
        ],
    }


def test_a_source_that_is_refused_ends_with_3_one_line_and_the_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = jsonl(tmp_path / "gsm8k.jsonl", GSM8K)
    assert main(["data", f"{spec}?problem=question", "--json"]) == 3
    said = capsys.readouterr()
    assert json.loads(said.out) == {"rows": 3, "usable": 0, "unusable": {"worked solution": 3}, "examples": []}
    [line] = said.err.splitlines()
    assert "these look like worked solutions: add `?answer=answer|after:####`" in line
    assert main(["data", f"{spec}?problem=questions"]) == 3
    said = capsys.readouterr()
    assert (said.out, len(said.err.splitlines())) == ("", 1)


def test_people_see_counts_levels_lengths_and_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = jsonl(tmp_path / "numina.jsonl", NUMINA) + "?preset=numina"
    assert main(["data", spec]) == 0
    text = capsys.readouterr().out
    assert "6 rows, 2 usable\n          4  left out by `where`\n" in text
    assert "domains    Number Theory 2" in text
    least, most = (len(NUMINA[k]["problem"]) for k in (5, 0))
    assert [line.split()[1:5] for line in text.splitlines() if line.startswith("characters")] == [
        [str(min(least, most)), str(max(least, most)), str(max(least, most)), str(max(least, most))]
    ]
    assert "numina.jsonl:6  " in text
    assert "Find $\\gcd(12, 18)$.\n── answer: 6" in text


def test_what_test_sets_share_is_counted_by_name_and_by_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["How many of the 30 apples in the basket are red?", "Which number is the sum of 17 and 25?", "Half of 9?"]
    train = jsonl(tmp_path / "train.jsonl", [{"problem": text, "answer": "4"} for text in texts])
    test = jsonl(
        tmp_path / "test.jsonl", [{"problem": texts[1], "answer": "4"}, {"problem": "Other words", "answer": "1"}]
    )
    assert main(["data", train, "--json", "--against", test]) == 0
    assert json.loads(capsys.readouterr().out)["shared"] == {test: {"problems": 2, "exact": 1, "near": 0, "variant": 0}}
    (tmp_path / "suite.toml").write_text('title = "t"\n[[benchmark]]\nname = "b"\ntitle = "B"\nfile = "test.jsonl"\n')
    assert main(["data", train, "--data", str(tmp_path), "--suite", f"{tmp_path}/suite.toml"]) == 0
    assert [line.split()[1:] for line in capsys.readouterr().out.splitlines() if line.startswith(test)] == [
        ["2", "1", "0", "0"]
    ]


@pytest.mark.parametrize(
    ("rows", "note"),
    [
        (
            [{"problem": f"What is {n} + 1? Let's think step by step.", "answer": str(n + 1)} for n in range(4)],
            'the problems hold an instruction of their own, "Let\'s think step by step."',
        ),
        (
            [{"problem": f"{n} + 1?\nReply with digits and nothing else.", "answer": str(n + 1)} for n in range(4)],
            "Reply with digits and nothing else.",
        ),
        ([{"problem": f"p{n}", "answer": "A"} for n in range(11)], "every answer is 'A'; is it the right column?"),
    ],
)
def test_what_is_no_fault_of_a_row_and_looks_wrong_is_noted(
    rows: list[Any], note: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", jsonl(tmp_path / "set.jsonl", rows), "--json"]) == 0
    said = capsys.readouterr()
    assert note in said.err
    assert json.loads(said.out)["usable"] == len(rows)


def test_a_good_set_has_no_notes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", jsonl(tmp_path / "gsm8k.jsonl", GSM8K) + "?preset=gsm8k"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--templates", "qwen-math"], "--templates: say with --model"),
        (["--model", "x", "--recipe", "y"], "--recipe and --model both name a model"),
        (["--data", "."], "benchmark aime24 has no eval_aime24.jsonl.gz there"),
        (["--against", "none.jsonl"], "no such file"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    options: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = jsonl(tmp_path / "set.jsonl", [{"problem": "p", "answer": "1"}])
    assert main(["data", spec, *options]) == 3
    assert named in capsys.readouterr().err


def test_tokens_are_counted_under_the_recipe_s_templates_and_prompts_are_shown_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from chorus.problems.rendering import load_tokenizer
    from chorus.protocol.templates.load import choose_templates
    from chorus.protocol.templates.template import render_chatml
    from chorus.starter.tokenizer import build_tokenizer

    templates = choose_templates(["qwen-math", "open-r1"])
    build_tokenizer(templates.values()).save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text("{}")
    spec = jsonl(tmp_path / "set.jsonl", [{"problem": f"What is {n} + {n}?", "answer": "2"} for n in ("1", "1 + 1")])
    lengths = {
        name: [
            len(load_tokenizer(str(tmp_path / "model")).encode(render_chatml(t, f"What is {n} + {n}?")))
            for n in ("1", "1 + 1")
        ]
        for name, t in templates.items()
    }
    recipe = tmp_path / "my.toml"
    recipe.write_text(
        f"""
model = {{ path = "{tmp_path}/model" }}
problems = {{ train = ["{spec}"], max_prompt_tokens = {lengths["qwen-math"][0]} }}
templates = {{ names = ["qwen-math", "open-r1"] }}
"""
    )
    assert main(["data", spec, "--recipe", str(recipe), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tokens"] == lengths
    assert main(["data", spec, "--recipe", str(recipe)]) == 0
    text = capsys.readouterr().out
    assert render_chatml(templates["qwen-math"], "What is 1 + 1 + 1 + 1?") in text
    assert "tokens, open-r1" in text
    assert f"longer than problems.max_prompt_tokens = {lengths['qwen-math'][0]}, and left out" in text
    assert main(["data", spec, "--model", str(tmp_path / "model"), "--templates", "open-r1", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["tokens"]) == ["open-r1"]
