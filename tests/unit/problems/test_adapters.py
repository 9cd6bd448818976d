"""The pieces that presets are made of: paths, steps, conditions, choices, caps; and presets of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chorus.problems.sources import Refused, load_placed, load_problems, load_source


def jsonl(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def one(path: Path, query: str, /, **row: Any) -> Any:
    [problem] = load_problems(jsonl(path / "set.jsonl", row) + f"?{query}")
    return problem


@pytest.mark.parametrize(
    ("row", "column", "gold"),
    [
        ({"a": {"b": {"c": 5}}}, "a.b.c", "5"),
        ({"a.b": "4", "a": {"b": "5"}}, "a.b", "4"),
        ({"a": {"Qwen-1.5B": 3}}, "a.Qwen-1.5B", "3"),
        ({"a": '{"b": "5"}'}, "a.b", "5"),
        ({"a": "{'b': '5', 'c': None}"}, "a.b", "5"),
        ({"a": [{"v": "4"}, {"v": "5"}]}, "a.-1.v", "5"),
        ({"a": '[{"v": "4"}]'}, "a.0.v", "4"),
        ({"Correct Answer": "5"}, "Correct Answer", "5"),
        ({"a": "so \\boxed{1}, no: \\fbox{\\{1, 2\\}}"}, "a|boxed", "\\{1, 2\\}"),
        ({"a": "\\boxed{\\frac{1}{\n2}}"}, "a|boxed", "\\frac{1}{ 2}"),
        ({"a": "so $\\boxed 7$."}, "a|boxed", "7"),
        ({"a": "1 #### 2 #### 1,000 "}, "a|after:####", "1,000"),
        ({"a": "5 apples, that is"}, "a|before: apples", "5"),
        ({"a": "x = 1, so x = 12"}, "a|match:x = \\d%2B", "x = 12"),
        ({"a": "<answer>3</answer>"}, "a|match:<answer>(.*?)</answer>", "3"),
        ({"a": "3 or 4|5"}, "a|cut: or (3|4).5", "3"),
        ({"a": ["1", "2"]}, "a|first", "1"),
        ({"a": '["\\\\frac{1}{2}", "2"]'}, "a|first", "\\frac{1}{2}"),
        ({"a": "['1', '2']"}, "a|joined", "1, 2"),
        ({"a": [1, 2]}, "a|joined", "1, 2"),
        ({"a": "[3]"}, "a|first", "3"),
        ({"a": ["so \\boxed{3}"]}, "a|first|boxed", "3"),
        ({"a": "[1, 2]"}, "a|several?", "[1, 2]"),
        ({"a": ["7"]}, "a", "7"),
        ({"a": 72.0}, "a", "72"),
    ],
)
def test_a_path_and_its_steps_find_the_gold(row: dict[str, Any], column: str, gold: str, tmp_path: Path) -> None:
    assert one(tmp_path, f"answer={column}", problem="p", **row).answers == [gold]


def test_each_gold_of_a_list_is_right_where_the_source_says_so(tmp_path: Path) -> None:
    for given in (["1", "2"], '["1", "2"]'):
        assert one(tmp_path, "answer=a|several", problem="p", a=given).answers == ["1", "2"]
        assert one(tmp_path, "answers=a|several", problem="p", a=given).answers == ["1", "2"]
        assert one(tmp_path, "", problem="p", answers=given).answers == ["1", "2"]
    assert one(tmp_path, "answers=a", problem="p", a=["1", "2"], answer="not meant").answers == ["1", "2"]


@pytest.mark.parametrize(
    ("row", "options", "named"),
    [
        ({"a": ["1", "2"]}, "answer=a", r"is a list.*add `\?answer=a\|several` where each is right"),
        ({"a": '["1"]'}, "answer=a", r"the gold '\[\"1\"\]' is a list"),
        ({"a": "['1' '2']"}, "answer=a|first", r"can't be read as a list"),
        ({"a": "so 5"}, "answer=a|boxed", r"a 'so 5' has no \\boxed"),
        ({"a": "\\boxed{5"}, "answer=a|boxed", r"never closes"),
        ({"a": "5"}, "answer=a|after:####", r"a '5' has no '####'"),
        ({"a": "5"}, "answer=a|match:x", r"nothing that matches 'x'"),
        ({"a": ["5"]}, "answer=a|boxed", r"set\.jsonl:1: a is a list where `boxed` needs a text; put `first`"),
        ({"a": {"b": 1}}, "answer=a", r"answer is an object; name one of answer=\.\.\.b"),
        ({"a": {"b": 1}}, "answer=a.c", r"no column 'a\.c', which the spec names; the row has problem, a\.b"),
        ({"a": "5"}, "answer=a|boxd", r"the step 'boxd' is not understood; use one of boxed"),
        ({"a": "5"}, "answer=a|cut:(", r"the pattern '\(' can't be read"),
        ({"a": "5"}, "answer=a&answer=b", r"answer stands there twice"),
        ({"a": "5"}, "answer=a&where=a", r"where=a: give a column, one of ="),
        ({"a": "5"}, "answer=a&where=b=5", r"where=b=5: there is no column 'b'; the row has problem, a"),
        ({"a": "five"}, "answer=a&where=a>3", r"where=a>3: 'five' is no number"),
        ({"a": "5"}, "answer=a&where=a>x", r"where=a>x: 'x' is no number"),
        ({"a": "5"}, "answer=a&where=a=6", r"`where` leaves none of its 1 rows"),
        ({"a": "5"}, "answer=a&rows=0", r"rows=0: give a whole number, at least 1"),
        ({"a": "5"}, "answer=a&unusable=2", r"unusable=2: give the share"),
        ({"a": "5"}, "preset=none", r"preset=none: there is no such preset; use one of .*gsm8k"),
        ({"a": "5"}, "answer=a&level=a|first|boxed", r"no closed|has no \\boxed|level"),
        ({"a": "5", "domain": ["x", "y"]}, "answer=a", r"domain is a list of 2; add `domain=domain\|first`"),
        ({"a": "5", "solution": {"x": 1}}, "answer=a", r"solution is an object; name a column within it"),
        ({"a": "5", "level": 2.5}, "answer=a", r"level: '2\.5' is no whole number.*leave it out with `level=`"),
    ],
)
def test_what_can_not_be_read_so_is_refused_with_the_mend(
    row: dict[str, Any], options: str, named: str, tmp_path: Path
) -> None:
    if options.endswith("level=a|first|boxed"):
        assert one(tmp_path, options, problem="p", **row).level is None, "of a level it is no fault"
        return
    with pytest.raises(ValueError, match=named):
        one(tmp_path, options, problem="p", **row)


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ([{"role": "system", "content": "s"}, {"role": "user", "content": "q?"}], "q?"),
        (
            [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}, {"role": "user", "content": "3"}],
            "3",
        ),
        ([{"from": "human", "value": "q?"}, {"from": "gpt", "value": "a"}], "q?"),
        ([{"role": "user", "content": [{"type": "text", "text": "q?"}]}], "q?"),
        ('[{"role": "user", "content": "q?"}]', "q?"),
        ("[1, 2] is an interval?", "[1, 2] is an interval?"),
    ],
)
def test_of_messages_the_last_turn_of_the_user_is_the_problem(prompt: Any, text: str, tmp_path: Path) -> None:
    assert one(tmp_path, "problem=prompt", prompt=prompt, answer="1").problem == text


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ([{"role": "system", "content": "s"}], "without a turn of the user's"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}], "holds more than text"),
        ("<|im_start|>user\nq?<|im_end|>", r"holds <\|im_start\|>: it is a whole prompt"),
        ({"text": "q?"}, r"problem is an object; name one of problem=\.\.\.text"),
        (["q?", "r?"], "is a list without a turn of the user's"),
    ],
)
def test_a_prompt_that_is_no_problem_is_refused(prompt: Any, named: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=named):
        one(tmp_path, "problem=prompt", prompt=prompt, answer="1")


def test_a_problem_with_a_picture_is_left_out(tmp_path: Path) -> None:
    assert one(tmp_path, "", problem="p", answer="1", image=None).problem == "p"
    with pytest.raises(ValueError, match="1 a problem with a picture"):
        one(tmp_path, "", problem="p", answer="1", image={"path": "1.png"})


def test_columns_are_put_together_left_out_and_cut(tmp_path: Path) -> None:
    row = {"Body": "Ann has 3.", "Question": "And now? Think hard.", "answer": "3", "level": "hard", "domain": {"x": 1}}
    problem = one(tmp_path, "problem=Body,Question&level=&domain=&cut=\\s*Think hard\\.$&cut=^Ann", **row)
    assert (problem.problem, problem.level, problem.domain) == ("has 3.\nAnd now?", None, None)


@pytest.mark.parametrize(
    ("level", "number"),
    [("Level 5", 5), ("5", 5), (5, 5), (4.0, 4), ("grade 12", 12), ("L3", 3), ("Level ?", None), ("", None)],
)
def test_levels_may_be_texts(level: Any, number: int | None, tmp_path: Path) -> None:
    assert one(tmp_path, "answer=a", problem="p", a="1", level=level).level == number


ROWS = [
    {
        "problem": f"p{n}",
        "answer": str(n),
        "level": f"Level {n}",
        "share": n / 10,
        "ok": n % 2 == 0,
        "tags": ["all", f"t{n}"],
    }
    for n in range(1, 8)
] + [{"problem": "p8", "answer": "8", "level": "", "share": None, "ok": None, "tags": []}]


@pytest.mark.parametrize(
    ("where", "taken"),
    [
        ("answer=3", "3"),
        ("answer!=3", "1245678"),
        ("level>=5", "567"),
        ("share<0.3", "12"),
        ("share=0.5", "5"),
        ("ok=true", "246"),
        ("ok=True&where=answer>3", "46"),
        ("level=", "8"),
        ("level!=", "1234567"),
        ("tags=t2", "2"),
        ("tags!=t2", "1345678"),
        ("problem~[37]$", "37"),
        ("problem!~[37]$", "124568"),
        ("gone?=1", "12345678"),
    ],
)
def test_conditions_choose_the_rows(where: str, taken: str, tmp_path: Path) -> None:
    loaded = load_source(jsonl(tmp_path / "set.jsonl", *ROWS) + f"?where={where}")
    assert "".join(placed.problem.answers[0] for placed in loaded.placed) == taken
    assert loaded.rows == 8 == len(taken) + loaded.unusable["left out by `where`"]


def test_a_cap_takes_the_first_rows_and_with_a_seed_others_in_the_file_s_order(tmp_path: Path) -> None:
    spec = jsonl(tmp_path / "set.jsonl", *({"problem": f"p{n}", "answer": str(n)} for n in range(100)))

    def answers(options: str) -> list[int]:
        return [int(problem.answers[0]) for problem in load_problems(spec + options)]

    assert answers("?rows=5") == [0, 1, 2, 3, 4]
    drawn = answers("?rows=20&seed=1")
    assert len(set(drawn)) == 20
    assert drawn == sorted(drawn) != list(range(20))
    assert answers("?rows=20&seed=1") == drawn != answers("?rows=20&seed=2")
    assert len(answers("?rows=200&seed=1")) == 100
    assert load_source(f"{spec}?rows=20&seed=1").unusable["not drawn"] == 80


@pytest.mark.parametrize(
    ("options", "answer", "letter"),
    [
        (["x", "y", "z"], 2, "C"),
        (["x", "y", "z"], "b", "B"),
        (["x", "y", "z"], "(B)", "B"),
        (["x", "y", "z"], "1", "B"),
        (["x", "y", "z"], "z", "C"),
        (["x", "y", "z"], "C. z", "C"),
        (["10", "20", "30"], 1, "B"),
        (["10", "20", "30"], "20", "B"),
        (["A) 1", "B) 0", "C) 2"], "B", "B"),
        (["(1) 5", "(2) 6"], "2", "B"),
        ('["x", "y"]', "B", "B"),
        ({"A": "x", "B": "y"}, "B", "B"),
        ({"A": "x", "B": "y", "C": None}, "y", "B"),
        ({"text": ["x", "y"], "label": ["1", "2"]}, "1", "A"),
        ([{"label": "A", "text": "x"}, {"label": "B", "text": "y"}], "B", "B"),
        ([{"text": "x"}, {"text": "y"}], "B", "B"),
        ([[{"aoVal": "A", "content": "x"}], [{"aoVal": "B", "content": "y"}]], "B", "B"),
        ("a ) rs . 400 , b ) 1 , 200 , c ) none", "c", "C"),
    ],
)
def test_an_answer_names_its_option_by_label_letter_index_or_text(
    options: Any, answer: Any, letter: str, tmp_path: Path
) -> None:
    problem = one(tmp_path, "choices=options", problem="Which?", options=options, answer=answer)
    assert (problem.kind, problem.answers) == ("choice", [letter])
    assert problem.problem.startswith("Which?\n\n(A) ")


@pytest.mark.parametrize(
    ("options", "answer", "step", "letter"),
    [
        (["2", "1", "0"], "1", "|index", "B"),
        (["2", "1", "0"], "2", "|index:1", "B"),
        (["2", "1", "0"], "2", "|text", "A"),
        (["B", "A"], "A", "|letter", "A"),
        (["B", "A"], "A", "|text", "B"),
    ],
)
def test_the_source_says_which_is_meant_where_it_is_not_clear(
    options: Any, answer: str, step: str, letter: str, tmp_path: Path
) -> None:
    row = {"problem": "Which?", "options": options, "answer": answer}
    assert one(tmp_path, f"choices=options&answer=answer{step}", **row).answers == [letter]
    if answer != "1":
        with pytest.raises(ValueError, match=r"may be the .* or the text; add `\?answer=answer\|index`"):
            one(tmp_path, "choices=options", **row)


@pytest.mark.parametrize(
    ("options", "answer", "named"),
    [
        (["x", "y"], "C", "none of the options' letters"),
        (["x", "y"], 2, "count from 1\\? add `\\?answer=answer\\|index:1`"),
        (["x", "y"], None, "the row has no answer"),
        (["x", "y"], [0, 1], "is a list where one choice is meant"),
        (["x", "x"], "A", "are the same"),
        (["x"], "A", "are not 2 to 26 texts"),
        ("x or y", "A", "can't be told apart"),
        ([{"name": "x"}, {"name": "y"}], "A", "are no texts"),
        (4, "A", "the options 4 are no list"),
    ],
)
def test_an_answer_that_names_no_option_is_refused(options: Any, answer: Any, named: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=named):
        one(tmp_path, "choices=options", problem="Which?", options=options, answer=answer)


def test_of_a_row_without_options_the_answer_stands_for_itself(tmp_path: Path) -> None:
    for empty in ([], "[]", "", None):
        problem = one(tmp_path, "choices=options", problem="Half of 8?", options=empty, answer="4")
        assert (problem.kind, problem.problem, problem.answers) == ("math", "Half of 8?", ["4"])


def test_what_check_data_writes_is_read_as_it_was(tmp_path: Path) -> None:
    spec = (
        jsonl(tmp_path / "set.jsonl", {"question": "Which?", "choices": ["x", "y"], "answer": 1}) + "?problem=question"
    )
    [placed] = load_placed(spec)
    written = placed.row | placed.problem.model_dump(exclude_none=True)
    assert load_problems(jsonl(tmp_path / "written.jsonl", written)) == [placed.problem]


def test_a_kind_that_is_named_is_that_of_all_rows(tmp_path: Path) -> None:
    assert one(tmp_path, "kind=text", problem="p", answer="proof", kind="math").kind == "text"
    assert one(tmp_path, "kind=form", problem="p", answer="1", form="text").kind == "text"


def test_a_row_may_be_a_list_of_turns(tmp_path: Path) -> None:
    spec = jsonl(tmp_path / "set.jsonl", [{"from": "human", "value": "q?"}, {"ground_truth": {"value": "36"}}])
    [problem] = load_problems(f"{spec}?problem=0.value&answer=1.ground_truth.value")
    assert (problem.problem, problem.answers) == ("q?", ["36"])


def test_a_preset_of_one_s_own_goes_on_from_another_and_the_source_goes_before_both(tmp_path: Path) -> None:
    preset = tmp_path / "mine.toml"
    preset.write_text(
        """
title = "Ours"
base = "verl"
where = ["split=train"]
cut = ['!+$']
[columns]
answer = ["final", "reward_model.ground_truth|first"]
level = "extra.level"
"""
    )
    rows = [
        {"prompt": "q1!!", "reward_model": {"ground_truth": ["1"]}, "split": "train", "extra": {"level": 2}},
        {"prompt": "q2", "final": "2", "split": "train"},
        {"prompt": "q3", "final": "3", "split": "test"},
    ]
    spec = f"{jsonl(tmp_path / 'set.jsonl', *rows)}?preset={preset}"
    found = load_placed(spec)
    assert [(p.problem.problem, p.problem.answers, p.problem.level) for p in found] == [
        ("q1", ["1"], 2),
        ("q2", ["2"], None),
    ]
    over = load_placed(f"{spec}&answer=split&where=final?=2")
    assert [p.problem.answers for p in over] == [["train"], ["train"]]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("title = 1", r"mine\.toml: title: .*; mend the file"),
        ("[columns\n", r"mine\.toml: .*mend the file"),
        ('title = "x"\nsteps = 1\n', r"mine\.toml: steps: "),
    ],
)
def test_a_preset_that_can_not_be_read_is_refused_with_its_file(text: str, named: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(ValueError, match=named):
        load_problems(f"{tmp_path}/set.jsonl?preset={tmp_path}/mine.toml")


def test_sub_answers_are_a_list_of_texts_under_their_own_or_a_named_column(tmp_path: Path) -> None:
    row = {"problem": "1 + 2 + 3?", "answer": 6}
    rows = [row | {"sub_answers": [3]}, row | {"sub_answers": '["3", "5"]'}, row | {"id": "none"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert [p.sub_answers for p in load_problems(str(tmp_path / "rows.jsonl"))] == [["3"], ["3", "5"], None]
    (tmp_path / "named.jsonl").write_text(json.dumps(row | {"steps": ["3"]}) + "\n")
    [problem] = load_problems(f"{tmp_path}/named.jsonl?sub_answers=steps")
    assert problem.sub_answers == ["3"]
    (tmp_path / "bad.jsonl").write_text(json.dumps(row | {"sub_answers": 3}) + "\n")
    with pytest.raises(ValueError, match=r"sub_answers is 3, not a list; name another column"):
        load_problems(str(tmp_path / "bad.jsonl"))


WRITTEN = "Which is prime? (A) 21 (B) 23"
LINES = "Which is prime?\n\n(A) 21\n(B) 23 apples"


@pytest.mark.parametrize(
    ("problem", "gold", "usable"),
    [
        *(
            (problem, gold, True)
            for problem in (WRITTEN, LINES)
            for gold in ("B", "b", "(B)", "B.", "$B$", r"\text{B}")
        ),
        (LINES, "23 apples", True),
        (WRITTEN, "B) 23", True),
        ("Which is prime?\nA. 21\nB. 23", "B", True),
        ("Which of F and G?", "G", True),
        *((problem, gold, False) for problem in (WRITTEN, LINES) for gold in ("1", "E", "23", "C")),
        (WRITTEN, "23 apples", False),
        ("Which is prime?\nA. 21\nB. 23", "C", False),
        ("Which?", "A cat", False),
    ],
)
def test_a_gold_of_a_choice_that_no_answer_can_match_can_not_be_used(
    tmp_path: Path, problem: str, gold: str, usable: bool
) -> None:
    rows = [{"problem": problem, "answer": gold, "kind": "choice"}]
    source = tmp_path / "set.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if usable:
        assert load_problems(str(source))[0].problem == problem
        return
    with pytest.raises(Refused, match=r"1 of 1 rows can't be used \(1 a gold that is no option's letter\)"):
        load_problems(str(source))


def test_a_column_of_choices_is_shown_also_where_the_kind_is_said(tmp_path: Path) -> None:
    source = tmp_path / "set.jsonl"
    row = {"problem": "Which is prime?", "choices": ["21", "23"], "answer": "23"}
    asked = "Which is prime?\n\n(A) 21\n(B) 23"
    for told in (
        row,
        row | {"kind": "choice"},
        {"problem": asked, "kind": "choice", "answer": "B", "choices": ["21", "23"]},
    ):
        source.write_text(json.dumps(told) + "\n")
        [problem] = load_problems(str(source))
        assert (problem.problem, problem.answers, problem.kind) == (asked, ["B"], "choice")
