"""Admission: what can't be learned from is left out and counted, or refused with its place."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from tinymodel import TEMPLATE

from chorus.learner.rollouts.admission import Admission
from chorus.problems.rendering import Renderer
from chorus.protocol.config.run import RunConfig
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.templates.template import Template
from chorus.reward_server.api.asking import Asking
from chorus.reward_server.api.schemas import GradeRequest
from chorus.reward_server.api.settings import Settings
from chorus.reward_server.graders.own import OwnGrader


def admission(
    model: Path, train: str, max_prompt_tokens: int = 150, template: str = TEMPLATE, **evaluation: Any
) -> Admission:
    sections: dict[str, Any] = {
        "model": {"path": str(model), "context": 400},
        "problems": {"train": [train], "heldout": [train], "max_prompt_tokens": max_prompt_tokens},
        "templates": {"names": [template]},
        "sampling": {"max_tokens": 16},
        "evaluation": evaluation,
    }
    return Admission(RunConfig.model_validate(sections), "run")


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    path = tmp_path / "problems.jsonl"
    rows = [{"problem": "1 + 1", "answer": "2"}, {"problem": "one more " * 40, "answer": "3"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_prompts_that_are_too_long_are_left_out_and_counted(
    tiny_model: Path, problems: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        some = admission(tiny_model, str(problems))
    assert (len(some.problems), some.too_long) == (1, 1)
    assert "1 problems are left out: their prompts exceed problems.max_prompt_tokens" in caplog.text


def test_what_a_test_set_holds_too_is_left_out_where_the_recipe_says_so(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [("Name a prime above 90.", "97"), ("What is 3 + 4 + 5?", "12"), ("What is 3 + 4 + 6?", "13")]
    for name, some in (("train", rows), ("test", [("what is $3+4 + 5$", "12"), ("Is it late?", "no")])):
        lines = [json.dumps({"problem": text, "answer": answer}) + "\n" for text, answer in some]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    sections: dict[str, Any] = {
        "model": {"path": str(tiny_model), "context": 400},
        "problems": {"train": [str(tmp_path / "train.jsonl")], "max_prompt_tokens": 150},
        "templates": {"names": [TEMPLATE]},
        "sampling": {"max_tokens": 16},
    }
    assert len(Admission(RunConfig.model_validate(sections), "run").problems) == 3
    sections["problems"]["exclude_overlap"] = [str(tmp_path / "test.jsonl")]
    with caplog.at_level(logging.WARNING):
        left = Admission(RunConfig.model_validate(sections), "run").problems
    assert [p.problem for p in left] == [rows[0][0], rows[2][0]]  # the third is a variant: another problem
    assert "1 problems are left out: they stand in problems.exclude_overlap too" in caplog.text
    sections["problems"]["exclude_overlap"] = sections["problems"]["train"]
    with pytest.raises(CannotGoOn, match=r"problems\.exclude_overlap leaves no problem to train on"):
        Admission(RunConfig.model_validate(sections), "run")


def test_a_source_of_which_nothing_fits_is_refused(tiny_model: Path, problems: Path) -> None:
    with pytest.raises(CannotGoOn, match=r"all 2 prompts are longer than problems.max_prompt_tokens = 3; raise it"):
        admission(tiny_model, str(problems), max_prompt_tokens=3)


def test_a_problem_without_an_answer_is_refused_with_file_and_line(tiny_model: Path, problems: Path) -> None:
    problems.write_text(problems.read_text() + '{"problem": "2 + 2"}\n')
    with pytest.raises(CannotGoOn, match=r"problems.jsonl:3: the row has no answer"):
        admission(tiny_model, str(problems))


@pytest.mark.parametrize(
    ("template", "sub_answers", "missing"),
    [
        (TEMPLATE, ["1"], "no template of templates.names asks for blocks"),
        ("interleaved", None, "no problem of problems.train has `sub_answers`"),
        ("interleaved", ["1"], None),
    ],
)
def test_paying_sub_answers_that_could_never_be_found_is_refused(
    tiny_model: Path, tmp_path: Path, template: str, sub_answers: list[str] | None, missing: str | None
) -> None:
    file = tmp_path / "hops.jsonl"
    row = {"problem": "1 + 1 + 1", "answer": "3"} | ({"sub_answers": sub_answers} if sub_answers else {})
    file.write_text(json.dumps(row) + "\n")
    sections: dict[str, Any] = {
        "model": {"path": str(tiny_model), "context": 900},
        "problems": {"train": [str(file)], "max_prompt_tokens": 800},
        "templates": {"names": [template]},
        "sampling": {"max_tokens": 16},
        "reward": {"interleaved": {}},
    }
    config = RunConfig.model_validate(sections)
    if missing is None:
        assert Admission(config, "run").task(0, 0).sub_answers == ["1"]
        return
    with pytest.raises(CannotGoOn, match=f"reward.interleaved pays sub-answers, and {missing}"):
        Admission(config, "run")


def test_an_unknown_template_is_refused_with_those_that_are_known(tiny_model: Path, problems: Path) -> None:
    with pytest.raises(CannotGoOn, match=r"templates.names: nobody unknown; known: .*qwen-math"):
        admission(tiny_model, str(problems), template="nobody")


def test_a_folder_without_a_tokenizer_or_with_a_broken_one_is_refused(
    tiny_model: Path, problems: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / "tokenizer.json").write_text("{")
    with pytest.raises(CannotGoOn, match="its tokenizer can't be loaded"):
        admission(model, str(problems))
    (model / "tokenizer.json").unlink()
    with pytest.raises(CannotGoOn, match=r"there is no tokenizer.json in it; save"):
        admission(model, str(problems))


def test_an_evaluation_asks_under_its_own_templates_in_equal_shares_and_else_under_the_runs(
    tiny_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "four.jsonl"
    path.write_text("".join(json.dumps({"problem": f"{k} + 1", "answer": "2"}) + "\n" for k in range(4)))
    other = ["abel", "formal"]
    asked = admission(tiny_model, str(path), 400 - 16, problems=4, samples=3, templates=other).evaluation_tasks(0, 0)
    assert [t.template for t in asked] == other * 4  # four problems sampled, the same four greedily
    usual = admission(tiny_model, str(path), problems=4).evaluation_tasks(0, 0)
    assert {t.template for t in usual} == {TEMPLATE}


def test_an_evaluation_renders_no_more_problems_than_it_asks(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = admission(tiny_model, "arithmetic:chain?split=heldout", problems=3)
    rendered: set[str] = set()
    ids = Renderer.ids

    def counted(renderer: Renderer, template: Template, text: str, begun: str = "") -> list[int]:
        rendered.add(text)
        return ids(renderer, template, text, begun)

    monkeypatch.setattr(Renderer, "ids", counted)
    assert len(some.evaluation_tasks(0, 0)) == 6  # each sampled, then greedily
    assert len(rendered) == 3


def test_an_unknown_evaluation_template_is_refused_with_its_key(tiny_model: Path, problems: Path) -> None:
    with pytest.raises(CannotGoOn, match=r"evaluation.templates: nobody unknown; known: "):
        admission(tiny_model, str(problems), templates=["nobody"])


def test_no_task_is_admitted_under_a_template_that_the_run_does_not_draw(tiny_model: Path, problems: Path) -> None:
    some = admission(tiny_model, str(problems), templates=["abel"])
    assert {some.task(k, 0).template for k in range(20)} == {TEMPLATE}


@pytest.mark.parametrize("validation", [[], ["arithmetic:chain?split=heldout"]])
def test_validation_asks_under_one_template_and_nothing_that_is_held_out(
    tiny_model: Path, validation: list[str]
) -> None:
    sections: dict[str, Any] = {
        "model": {"path": str(tiny_model), "context": 400},
        "problems": {
            "train": ["arithmetic:chain"],
            "heldout": ["arithmetic:chain?split=heldout"],
            "validation": validation,
            "max_prompt_tokens": 150,
        },
        "templates": {"names": ["abel", "qwen-math"]},
        "sampling": {"max_tokens": 16},
        "evaluation": {"problems": 400, "every": 5, "validation_problems": 20, "samples": 3},
    }
    some = Admission(RunConfig.model_validate(sections), "run")
    asked, held_out = some.validation_tasks(7, 5), some.evaluation_tasks(7, 5)
    assert len(asked) == 40
    assert {t.template for t in asked} == {"qwen-math"}
    assert {t.template for t in held_out} == {"abel", "qwen-math"}
    assert not {t.problem_id for t in asked} & {t.problem_id for t in held_out}
    assert [(t.index, t.min_version, t.group_size) for t in asked[:1]] == [(7, 5, 3)]
    assert [t.problem_id for t in some.validation_tasks(90, 6)] == [t.problem_id for t in asked]


def test_a_validation_set_that_the_held_out_one_uses_up_is_refused(tiny_model: Path, problems: Path) -> None:
    """At the start, and not when the first validation is due."""
    with pytest.raises(CannotGoOn, match=r"problems.validation leaves 0 problems that fit .*validation_problems is 1"):
        admission(tiny_model, str(problems), problems=1, every=5, validation_problems=1)


def test_too_few_held_out_problems_are_refused_at_the_start(tiny_model: Path, problems: Path) -> None:
    with pytest.raises(
        CannotGoOn, match=r"problems.heldout has \d+ problems that fit; evaluation.problems asks for 999"
    ):
        admission(tiny_model, str(problems), problems=999)


def test_the_columns_that_graders_name_go_from_the_file_to_the_function(tiny_model: Path, tmp_path: Path) -> None:
    """The row of each problem: what its kind's grader and the paid one ask for, and nothing else of it."""
    path = tmp_path / "problems.jsonl"
    rows = [
        {"problem": "On rain", "kind": "sonnet", "title": "Rain", "limit": 4, "notes": "kept at home"},
        {"problem": "1 + 1", "answer": "2", "title": "Sum", "limit": 8},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    function = tmp_path / "own.py"
    function.write_text(
        "def titled(completion, row):\n    return float(row == {'answers': [], 'title': 'Rain'})\n"
        "def short(completion, row):\n    return row['limit'] / 8\n"
    )
    graders = [
        {"name": "sonnet", "function": f"{function}:titled", "columns": ["title"]},
        {"name": "short", "function": f"{function}:short", "columns": ["limit"]},
    ]
    sections: dict[str, Any] = {
        "model": {"path": str(tiny_model), "context": 400},
        "problems": {"train": [str(path)], "max_prompt_tokens": 150},
        "templates": {"names": [TEMPLATE]},
        "sampling": {"max_tokens": 16},
        "reward": {"graders": graders, "terms": [{"grader": "short", "weight": 0.5}]},
    }
    config = RunConfig.model_validate(sections)
    some = Admission(config, "run")
    tasks = {task.kind: task for task in (some.task(k, 0) for k in range(2))}
    asked = {kind: task.grading() for kind, task in tasks.items()}
    assert asked["sonnet"]["row"] == {"title": "Rain", "limit": 4}
    assert asked["math"]["row"] == {"limit": 8}

    # What the generator sends, in the server's hands: each function gets its own columns.
    server = Asking(Settings(graders=config.reward.graders, reward=config.reward_spec), None, "")
    question = server.question(GradeRequest(completion="text", **asked["sonnet"]), None, "")
    functions = {spec.name: OwnGrader(spec) for spec in config.reward.graders}
    assert functions["sonnet"].run(question.grade).score == 1.0
    assert functions["short"].run(question.terms["short"]).score == 0.5


def test_a_row_without_a_column_that_a_grader_names_is_refused_with_its_place(tiny_model: Path, problems: Path) -> None:
    sections: dict[str, Any] = {
        "model": {"path": str(tiny_model), "context": 400},
        "problems": {"train": [str(problems)], "max_prompt_tokens": 150},
        "templates": {"names": [TEMPLATE]},
        "sampling": {"max_tokens": 16},
        "reward": {
            "graders": [{"name": "own", "function": "own.py:f", "columns": ["limit"]}],
            "terms": [{"grader": "own"}],
        },
    }
    with pytest.raises(CannotGoOn, match=r"problems\.jsonl:1: there is no column 'limit', which a grader's `columns`"):
        Admission(RunConfig.model_validate(sections), "run")


def test_every_task_says_which_tokens_end_an_answer(tiny_model: Path, problems: Path) -> None:
    asked = admission(tiny_model, str(problems), problems=1, samples=1)
    ends = sorted({asked.tokenizer.eos_token_id, 2})  # 2: a Llama's, in its generation config
    tasks = [asked.task(0, 0), *asked.evaluation_tasks(0, 0)]
    assert [task.sampling.stop for task in tasks] == [ends] * 3
