"""Items of reasoning-gym: a score of exactly 1.0 is right, and no text of a model is evaluated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from scripted_gym import Sums, installed

from chorus.problems.sources import load_problems
from chorus.protocol.messages import Problem
from chorus.reward_server.graders.reasoning_gym import EQUALITY, EXPRESSION, grade_gym, gym_answer, is_arithmetic
from chorus.reward_server.graders.registry import cluster, run
from chorus.reward_server.graders.task import Asked, GradeResult, GradeTask


class Evaluating(Sums):
    """Hands the answer to Python, as some scorers of the library do."""

    def score_answer(self, answer: str | None, entry: dict[str, Any]) -> float:
        try:
            return 1.0 if eval(answer or "") == entry["metadata"]["sum"] else 0.1
        except Exception:
            return 0.01


class Stumbling(Sums):
    def score_answer(self, answer: str | None, entry: dict[str, Any]) -> float:
        return float(sum(map(int, (answer or "").split())) == entry["metadata"]["sum"])


@pytest.fixture(autouse=True)
def gym() -> Iterator[None]:
    with installed(countdown=Evaluating, spiral_matrix=Evaluating, stumbling=Stumbling):
        yield


def problem(task: str = "sums") -> Problem:
    return load_problems(f"reasoning-gym:{task}?seed=1&size=2")[0]


def verdict(completion: str, asked: Problem) -> str:
    return grade_gym(completion, asked.answers, "train").verdict


def total(asked: Problem) -> int:
    return int(asked.problem.rstrip("?").split()[-1])


def test_any_answer_that_the_scorer_gives_full_marks_is_right():
    asked = problem()
    assert verdict(rf"so \boxed{{1 {total(asked) - 1}}}", asked) == "correct"
    assert verdict(f"<answer>2 {total(asked) - 2}</answer>", asked) == "correct"
    assert verdict(f"Well.\n{asked.answers[1]}", asked) == "correct"


@pytest.mark.parametrize("answer", ["1 1", "anything"])
def test_a_part_of_the_score_is_wrong(answer: str):
    assert verdict(rf"\boxed{{{answer}}}", problem()) == "wrong"


def test_no_answer_is_no_answer():
    assert verdict("", problem()) == "no_answer"


def test_a_board_between_answer_tags_is_read_whole():
    board = "1 2 3\n4 5 6\n7 8 9"
    assert gym_answer(f"The answer is below.\n<answer>\n{board}\n</answer>", "train").text == board
    assert gym_answer(f"Two lines:\n\\boxed{{{board}}}", "train").text == board


def test_a_box_between_answer_tags_is_opened_and_text_in_a_box_is_unwrapped():
    assert gym_answer(r"<answer>It is \boxed{\text{north}}.</answer>", "train").text == "north"


def test_the_span_of_an_answer_is_where_it_stands():
    completion = "First.\n<answer> 3 4 </answer> And more."
    found = gym_answer(completion, "train")
    assert found.start is not None
    assert completion[found.start : found.end] == "3 4"


def test_arithmetic_reaches_a_scorer_that_evaluates():
    asked = problem("countdown")
    assert verdict(rf"\boxed{{{total(asked)} * 2 / (1 + 1)}}", asked) == "correct"
    assert verdict(rf"\boxed{{{total(asked)} + 1}}", asked) == "wrong"


@pytest.mark.parametrize(
    "hostile",
    [
        "__import__('os').system('true')",
        "().__class__",
        "x.y",
        "1 .real",
        "[1][0]",
        "{1}",
        "'a'",
        "lambda: 1",
        "exec(x)",
        "open",
        "_",
        "1 if 1 else 2",
        "5e5e5",
        "ｅｖａｌ(1)",
        "x" * 1001,
        "1 # 2",
        "a:=1",
        "factorial(9)",
    ],
)
def test_nothing_but_arithmetic_reaches_a_scorer_that_evaluates(hostile: str):
    assert not is_arithmetic(hostile)


@pytest.mark.parametrize("text", ["(5 + 3) * 20 - 4/2", "3.5*x**2 + C", "exp(x) + sin(2*x)/2", "-x^3", "7"])
def test_what_these_tasks_ask_for_is_arithmetic(text: str):
    assert is_arithmetic(text)


def test_hostile_text_is_wrong_and_has_no_effect(tmp_path: Any):
    trace = tmp_path / "trace"
    for task in ("countdown", "spiral_matrix"):
        completion = rf"<answer>open('{trace}', 'w') and {total(problem(task))}</answer>"
        assert verdict(completion, problem(task)) == "wrong"
    assert not trace.exists()


def test_where_equality_is_the_full_score_the_scorer_is_not_asked():
    asked = problem("spiral_matrix")
    assert verdict(rf"\boxed{{{total(asked)}}}", asked) == "wrong"  # it would evaluate to the sum
    assert verdict(f"<answer>{asked.answers[1]}</answer>", asked) == "correct"
    assert not EQUALITY & EXPRESSION


def test_a_task_that_compares_needs_no_item_of_its_own():
    asked = load_problems("reasoning-gym:coins?size=1")[0]  # the grader's item would be another question
    assert verdict(r"\boxed{heads}", asked) == "correct"
    assert verdict(r"\boxed{tails}", asked) == "wrong"


def test_an_answer_that_the_scorer_stumbles_over_is_wrong():
    assert verdict(r"\boxed{not two numbers}", problem("stumbling")) == "wrong"


def grade(completion: str, golds: list[str], asked: Asked = "grade") -> GradeResult:
    reply = run(GradeTask("reasoning_gym", completion, tuple(golds), task=asked))
    assert isinstance(reply, GradeResult)
    return reply


def test_an_item_that_cannot_be_made_is_the_verifiers_failure_not_the_answers():
    result = grade(r"\boxed{1 1}", ["reasoning-gym:sums#0@0123456789abcdef"])
    assert result.verdict == "error"
    assert "the same version of reasoning-gym" in result.reason


def test_the_service_names_the_scorer_and_explains_its_score():
    asked = problem()
    result = grade(rf"\boxed{{1 {total(asked)}}}", asked.answers, "explain")
    assert result.verdict == "wrong"
    assert result.verifier == "reasoning_gym: reasoning-gym"
    assert result.explanation["comparisons"][0]["reason"] == "sums scores it 0.5; 1 is right"


def test_answers_of_a_group_are_clustered_as_text():
    assert cluster(["1 2", "1  2", None, "2 1"], "reasoning_gym") == [0, 0, 1, 2]
