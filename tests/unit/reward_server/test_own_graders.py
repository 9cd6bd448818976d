"""A user's own grader: how it is found, what it may return, and how TRL's and verl's functions are called."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chorus.protocol.graders import GraderSpec
from chorus.reward_server.graders import own
from chorus.reward_server.graders.own import GraderError, OwnGrader, unusable
from chorus.reward_server.graders.task import GradeResult, GradeTask

COLUMNS = ("limit",)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Loading puts the file's folder on the path and its module among the loaded: in a worker of its own, not here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in ("my_graders", "helpers_of_mine", "poems"):
        sys.modules.pop(name, None)


def load(body: str, columns: tuple[str, ...] = COLUMNS, interface: Any = "chorus", name: str = "grade") -> OwnGrader:
    sys.modules.pop("my_graders", None)
    header = "from chorus.protocol.graders import Result\n"
    Path("my_graders.py").write_text(header + body)
    return OwnGrader(GraderSpec(name="mine", function=f"my_graders.py:{name}", columns=columns, interface=interface))


def returns(expression: str, term: bool = False, **fields: Any) -> GradeResult:
    grader = load(f"def grade(completion, row):\n    return {expression}\n")
    return grader.run(GradeTask("mine", "text", ("7",), row=json.dumps({"limit": 4}), term=term, **fields))


# --- what a function may return -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "accuracy", "verdict"),
    [
        ("1.0", 1.0, "correct"),
        ("0.5", 0.5, "wrong"),
        ("0", 0.0, "wrong"),
        ("True", 1.0, "correct"),
        ("row['limit'] / 8", 0.5, "wrong"),
        ("float(row['answers'] == ['7'])", 1.0, "correct"),
        ("__import__('numpy').float32(1)", 1.0, "correct"),
        ("Result(0.25, verdict='no_answer')", 0.25, "no_answer"),
        ("Result(1, {'a': 2})", 1.0, "correct"),
    ],
)
def test_a_number_decides_the_accuracy_of_a_problem_of_its_kind(expression, accuracy, verdict):
    result = returns(expression)
    assert (result.accuracy, result.verdict, result.score) == (accuracy, verdict, accuracy)


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("float('nan')", "mine: returned nan where it must be a finite number"),
        ("float('inf')", "mine: returned inf"),
        ("10 ** 400", "mine: returned inf"),
        ("None", "mine: returned None where it must be a number"),
        ("'0.5'", "mine: returned '0.5' (str) where it must be a number"),
        ("[1.0]", "mine: returned [1.0] (list)"),
        ("{'score': 1}", "mine: returned {'score': 1} (dict)"),
        ("1j", "mine: returned 1j (complex)"),
        ("2.0", "mine: returned 2, and decides accuracy: give 0 to 1, or make it a term"),
        ("-0.5", "mine: returned -0.5, and decides accuracy"),
        ("Result(float('nan'))", "mine: returned nan where its score must be a finite number"),
        ("Result(1, {'a': 'x'})", "mine: returned 'x' (str) where its part 'a' must be a number"),
        ("Result(1, [1])", "mine: returned parts that are a list"),
        ("Result(1, verdict='fine')", "mine: returned the verdict 'fine'; give one of correct, wrong, no_answer"),
        ("1 / 0", "mine: raised ZeroDivisionError: division by zero (my_graders.py:3)"),
        ("row['nothing']", "mine: raised KeyError: 'nothing' (my_graders.py:3)"),
        ("exit(0)", "mine: raised SystemExit: 0"),
        ("bytearray(1 << 62)", "mine: needed more memory than its limit"),
        ("grade(completion, row)", "mine: recurses"),
    ],
)
def test_what_is_no_grade_is_a_failure_with_one_reason_and_never_a_zero(expression, says):
    result = returns(expression)
    assert (result.verdict, result.accuracy, result.score) == ("error", None, None)
    assert result.reason is not None
    assert result.reason.startswith(says)
    assert "\n" not in result.reason


def test_a_term_may_be_any_finite_number():
    assert returns("-2.5", term=True).score == -2.5
    assert returns("float('nan')", term=True).score is None


def test_parts_a_verdict_and_a_reason_arrive_and_are_explained():
    result = returns("Result(0.5, {'rhyme': 1, 'metre': 0.25}, 'wrong', 'it limps', 'ode')", task="explain")
    assert result.parts == {"rhyme": 1.0, "metre": 0.25}
    assert (result.verdict, result.reason, result.extracted) == ("wrong", "it limps", "ode")
    assert result.explanation is not None
    assert result.explanation["comparisons"][0]["reason"] == "it limps"
    plain = returns("Result(0.5, {'rhyme': 1})", task="explain")
    assert plain.explanation is not None
    assert plain.explanation["comparisons"][0]["reason"] == "scores 0.5; rhyme 1"


# --- how it is found ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "name", "says"),
    [
        ("def other(a, b): ...\n", "grade", "there is no 'grade' in it; its functions are: other"),
        ("grade = 3\n", "grade", "is a int, and no function"),
        ("async def grade(completion, row): ...\n", "grade", "is async; a grader is a plain function"),
        ("class P:\n async def __call__(self, c, row): ...\ngrade = P()\n", "grade", "is async; a grader is a plain"),
        ("def grade(completion, row):\n    yield 1.0\n", "grade", "is a generator; write `return`"),
        ("class grade:\n    def __init__(self, c, row): ...\n", "grade", "is a class; give a function, or an instance"),
        ("def grade(prompts, completions, **kwargs): ...\n", "grade", 'for trl do; set interface = "trl"'),
        ("def grade(completions, ground_truth): ...\n", "grade", 'for trl do; set interface = "trl"'),
        ("def grade(data_source, solution_str, ground_truth, extra_info=None): ...\n", "grade", 'interface = "verl"'),
        ("def grade(solution_str, ground_truth): ...\n", "grade", 'interface = "verl"'),
        ("def grade(completion): ...\n", "grade", "must take two arguments"),
        ("import not_installed\n", "grade", "raised ModuleNotFoundError: No module named 'not_installed' (my_gr"),
        ("def grade(:\n", "grade", "raised SyntaxError"),
        ("raise SystemExit(3)\n", "grade", "raised SystemExit: 3"),
    ],
)
def test_a_function_that_can_not_be_used_is_refused_when_it_is_loaded(body, name, says):
    with pytest.raises(GraderError) as refusal:
        load(body, name=name)
    assert str(refusal.value).startswith("reward.graders: mine: my_graders.py:grade")
    assert says in str(refusal.value)


@pytest.mark.parametrize(
    "body",
    [
        "grade = lambda c, r: 1.0\n",
        "class P:\n    def __call__(self, c, row): return 1.0\ngrade = P()\n",
        "class P:\n    def method(self, c, row): return 1.0\ngrade = P().method\n",
        "from functools import partial\ndef three(a, b, c): return 1.0\ngrade = partial(three, 1)\n",
        "def grade(completion, row, ground_truth=None, *args, **kwargs): return 1.0\n",
    ],
)
def test_whatever_can_be_called_with_two_arguments_is_a_grader(body):
    assert load(body).run(GradeTask("mine", "text", ("7",), row="{}")).accuracy == 1.0


def test_a_file_or_an_entry_point_that_is_not_there_is_named_with_the_mend():
    with pytest.raises(GraderError, match=r"there is no file nowhere\.py in /.*relative to the folder"):
        OwnGrader(GraderSpec(name="mine", function="nowhere.py:f"))
    with pytest.raises(GraderError, match=r"no entry point of that name in the group chorus\.graders .*FILE\.py:FUN"):
        OwnGrader(GraderSpec(name="mine", function="nobodys"))


def test_an_installed_package_offers_a_grader_as_an_entry_point(tmp_path, monkeypatch):
    (tmp_path / "poems.py").write_text("def rhyme(completion, row):\n    return 0.75\n")
    info = tmp_path / "poems-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: poems\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[chorus.graders]\nrhyming = poems:rhyme\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    grader = OwnGrader(GraderSpec(name="mine", function="rhyming"))
    assert grader.run(GradeTask("mine", "text")).score == 0.75


def test_the_files_folder_is_importable_for_it(tmp_path):
    (tmp_path / "helpers_of_mine.py").write_text("HALF = 0.5\n")
    grader = load("def grade(completion, row):\n    from helpers_of_mine import HALF\n    return HALF\n")
    assert grader.run(GradeTask("mine", "text", row="{}")).score == 0.5


def test_graders_are_checked_in_a_process_that_ends_and_this_one_imports_nothing(monkeypatch):
    Path("my_graders.py").write_text("print('noise')\ndef grade(completion, row):\n    return 1.0\n")
    good = GraderSpec(name="mine", function="my_graders.py:grade")
    assert unusable([]) is None
    assert unusable([good]) is None
    why = unusable([good, GraderSpec(name="other", function="my_graders.py:none")])
    assert why is not None
    assert why.startswith("reward.graders: other: my_graders.py:none")
    assert "my_graders" not in sys.modules
    Path("my_graders.py").write_text("while True: pass\n")
    monkeypatch.setattr(own, "LOAD_LIMIT_S", 0.5)
    assert "not loaded after 0.5 s" in (unusable([good]) or "")


# --- TRL and verl ---------------------------------------------------------------------------------------------------


def call(body: str, interface: str, row: dict[str, Any], golds: tuple[str, ...] = ("7",), term: bool = False) -> Any:
    grader = load(body, tuple(row), interface)
    return grader.run(GradeTask("mine", "the text", golds, row=json.dumps(row), term=term))


def test_a_batch_function_of_trl_is_called_with_lists_of_one():
    body = "def grade(completions, **kwargs):\n    assert kwargs['limit'] == [8], kwargs\n"
    body += "    return [len(c) / limit for c, limit in zip(completions, kwargs['limit'])]\n"
    assert call(body, "trl", {"limit": 8}).score == 1.0


def test_prompts_are_given_where_the_problem_is_a_column():
    body = "def grade(prompts, completions, answers):\n    return [float((prompts, answers) == (['2+5?'], [['7']]))]\n"
    assert call(body, "trl", {"problem": "2+5?"}).score == 1.0
    with pytest.raises(GraderError, match=r"asks for 'prompts', which it is not given; add \"problem\" to its columns"):
        load(body, (), "trl")


def test_chat_functions_of_trl_get_messages():
    body = "def grade(prompts, completions, **_):\n"
    body += "    return [float(completions[0][0] == {'role': 'assistant', 'content': 'the text'} and "
    body += "prompts[0][-1]['content'] == '2+5?')]\n"
    assert call(body, "trl_chat", {"problem": "2+5?"}).score == 1.0


def test_none_of_trl_adds_nothing_as_a_term_and_decides_nothing():
    body = "def grade(completions, **_):\n    return [None]\n"
    assert call(body, "trl", {}, term=True).score == 0.0
    assert call(body, "trl", {}).verdict == "error"


@pytest.mark.parametrize("returned", ["1.0", "[]", "[1.0, 0.0]", "['x']"])
def test_what_is_no_list_of_one_number_fails(returned):
    assert call(f"def grade(completions, **_):\n    return {returned}\n", "trl", {}).verdict == "error"


def test_compute_score_of_verl_gets_its_four_arguments():
    body = "def grade(data_source, solution_str, ground_truth, extra_info=None):\n"
    body += "    told = (data_source, solution_str, ground_truth, extra_info)\n"
    body += "    return float(told == {!r})\n"
    told = ("gsm8k", "the text", "42", {"index": 3})
    verl_row = {"data_source": "gsm8k", "reward_model": {"ground_truth": "42"}, "extra_info": {"index": 3}}
    assert call(body.format(told), "verl", verl_row).score == 1.0
    assert call(body.format(("", "the text", "7", None)), "verl", {}).score == 1.0
    assert call(body.format(("", "the text", ["7", "8"], None)), "verl", {}, ("7", "8")).score == 1.0
    assert call(body.format(("", "the text", "5", None)), "verl", {"ground_truth": "5"}).score == 1.0


def test_a_dict_of_verl_is_a_score_and_its_parts():
    body = "def grade(data_source, solution_str, ground_truth, extra_info):\n    return {}\n"
    result = call(body.format("{'score': 0.5, 'acc': True, 'pred': 'x'}"), "verl", {})
    assert (result.score, result.parts) == (0.5, {"acc": 1.0})
    assert "without 'score': acc" in call(body.format("{'acc': 1}"), "verl", {}).reason
