"""reasoning-gym itself: its items are the same in two processes, and its own answers are right for its scorers."""

from __future__ import annotations

import ast
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from chorus.problems.sources import load_problems
from chorus.protocol.reasoning_gym import REFUSED, item, items
from chorus.reward_server.graders.reasoning_gym import EQUALITY, EXPRESSION, grade_gym, is_arithmetic

pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed: pip install 'chorus-rl[gym]'")
from reasoning_gym.factory import DATASETS

EVALUATORS = {"eval", "exec", "parse_expr", "sympify", "compile", "literal_eval"}
TASKS = ["chain_sum", "countdown", "n_queens", "spiral_matrix", "word_ladder", "game_of_life_halting", "tower_of_hanoi"]
PRINT_IDS = """
import json, sys
from chorus.problems.sources import load_problems
print(json.dumps({t: [p.id for p in load_problems(f"reasoning-gym:{t}?seed=7&size=2")] for t in sys.argv[1:]}))
"""


def test_every_scorer_that_evaluates_text_is_known():
    """The pinned version's; a newer one with another evaluating scorer fails here before it is released."""
    evaluating = set()
    for task, (dataset, *_) in DATASETS.items():
        scorer = ast.parse("class A:\n" + inspect.getsource(dataset.score_answer))
        calls = {ast.unparse(node.func).split(".")[-1] for node in ast.walk(scorer) if isinstance(node, ast.Call)}
        if calls & EVALUATORS:
            evaluating.add(task)
    own_answer_only = {"number_sorting"}
    assert evaluating - REFUSED.keys() - own_answer_only == EQUALITY - {"game_of_life_halting"} | EXPRESSION


def test_another_process_makes_the_same_items():
    environment = os.environ | {"PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, "-c", PRINT_IDS, *TASKS], env=environment, capture_output=True, text=True, timeout=120
    )
    there = json.loads(run.stdout)
    assert there == {t: [p.id for p in load_problems(f"reasoning-gym:{t}?seed=7&size=2")] for t in TASKS}


@pytest.mark.parametrize("task", TASKS)
def test_the_answer_that_the_library_holds_is_right_and_another_one_is_wrong(task: str):
    for problem in load_problems(f"reasoning-gym:{task}?seed=7&size=2"):
        found, entry = item(problem.answers[0])
        assert grade_gym(f"<answer>{entry['answer']}</answer>", problem.answers, "train").verdict == "correct"
        assert found.dataset.score_answer(str(entry["answer"]), entry) == 1.0
        assert grade_gym("<answer>no idea</answer>", problem.answers, "train").verdict == "wrong"


def test_another_way_to_the_target_is_right_too():
    problem = load_problems("reasoning-gym:countdown?seed=7&size=1")[0]
    _, entry = item(problem.answers[0])
    other = f"0 + {entry['answer']}".replace("0 + ", "(", 1) + ")"
    assert other not in problem.answers
    assert grade_gym(rf"\boxed{{{other}}}", problem.answers, "train").verdict == "correct"


@pytest.mark.parametrize("task", sorted(EXPRESSION))
def test_the_answers_of_evaluating_scorers_are_arithmetic(task: str):
    for index in range(3):
        answer = items(f"reasoning-gym:{task}?seed=2&size=3").entry(index)["answer"]
        assert is_arithmetic(answer) or "Integral(" in answer, answer


def test_hostile_text_has_no_effect(tmp_path: Path):
    trace = tmp_path / "trace"
    for task in EQUALITY | EXPRESSION:
        problem = load_problems(f"reasoning-gym:{task}?size=1")[0]
        completion = f"<answer>[open('{trace}', 'w')]</answer>"
        assert grade_gym(completion, problem.answers, "train").verdict == "wrong"
    assert not trace.exists()
