"""The running course: right without its habit, wrong with it, and it goes on where a hint ends."""

from __future__ import annotations

import re
from itertools import pairwise
from random import Random

from chorus.problems.arithmetic import is_heldout, load_arithmetic, running_lines, running_operands, running_text
from chorus.problems.hints import HEADING, hint_prefix, hint_refusal, with_hint
from chorus.protocol.templates.load import load_templates
from chorus.starter.courses import CHOICE, CODE, RUNNING, choice_solution, program_solution, running_solution

TEMPLATES = load_templates()
PLAIN = TEMPLATES["qwen-math"]
OPERANDS = [23, 4, -5, 1]


def test_without_the_habit_a_solution_is_right_in_every_layout() -> None:
    assert running_solution(PLAIN, OPERANDS, 0, Random(0), 0.0) == "+ 4 = 27\n- 5 = 22\n+ 1 = 23\n\\boxed{(27, 22, 23)}"
    for template in TEMPLATES.values():
        assert "\\boxed{(27, 22, 23)}" in running_solution(template, OPERANDS, 0, Random(0), 0.0)


def test_it_goes_on_after_the_lines_that_were_given() -> None:
    assert running_solution(PLAIN, OPERANDS, 2, Random(0), 0.0) == "+ 1 = 23\n\\boxed{(27, 22, 23)}"


def test_a_number_is_taken_for_one_more_as_often_as_the_habit_says() -> None:
    random, right = Random(0), 0
    for _ in range(2000):
        totals = [int(total) for total in re.findall(r"= (\d+)", running_solution(PLAIN, OPERANDS, 0, random, 0.5))]
        steps = [after - before for before, after in pairwise([23, *totals])]
        assert all(step - digit in {0, 1} for step, digit in zip(steps, OPERANDS[1:], strict=True))
        right += totals == [27, 22, 23]
    assert abs(right / 2000 - 0.5**3) < 0.03
    always = running_solution(PLAIN, [23, 4, -5, -1], 0, Random(0), 1.0)
    assert always == "+ 5 = 28\n- 4 = 24\n- 0 = 24\n\\boxed{(28, 24, 24)}"


def test_examples_are_training_problems_half_of_them_with_a_hint_as_the_run_gives_it() -> None:
    random = Random(0)
    texts = [RUNNING.example(PLAIN, random, True)[0] for _ in range(400)]
    assert not any(is_heldout(text.split("\n\n")[0]) for text in texts)
    assert 0.4 < sum(HEADING in text for text in texts) / 400 < 0.6
    problems = load_arithmetic("arithmetic:running?split=train")[:50]
    for problem in problems:
        prefix = hint_prefix(problem, 0.5, "steps")
        hinted = with_hint(problem.problem, prefix)
        assert re.fullmatch(r"What are the totals of \d+(, then [-+] \d){8}\?\n\n## Hint\.([-+] \d = \d+\n){4}", hinted)


def test_no_hint_of_a_running_problem_holds_its_answer() -> None:
    for problem in load_arithmetic("arithmetic:running?split=heldout"):
        for ratio in (0.25, 0.5, 0.75, 0.9):
            assert hint_refusal(problem, hint_prefix(problem, ratio, "steps")) is None


def test_running_totals_stay_within_two_digits_and_are_the_answer() -> None:
    random = Random(1)
    for _ in range(200):
        operands = running_operands(random)
        totals = [int(line.split()[-1]) for line in running_lines(operands)]
        assert len(totals) == 8
        assert all(10 <= total <= 19 for total in [operands[0], *totals])
        assert running_text(operands).count("then") == 8
    problem = load_arithmetic("arithmetic:running")[0]
    assert re.findall(r"\d+", problem.answers[0]) == re.findall(r"= (\d+)", problem.solution or "")


def test_without_a_slip_a_program_is_right_and_with_slips_often_not() -> None:
    assert program_solution(3, 15, Random(0), 0.0) == "```python\nprint(int(input()) + 3 - 15)\n```"
    random = Random(0)
    right = sum(program_solution(3, 15, random, 0.35) == program_solution(3, 15, random, 0.0) for _ in range(2000))
    assert abs(right / 2000 - (1 - 0.175) ** 4) < 0.03


def test_without_a_slip_the_letter_is_that_of_the_result() -> None:
    for problem in load_arithmetic("arithmetic:choice?split=heldout")[:40]:
        a, b, c = map(int, re.findall(r"\d+", problem.id))
        text = choice_solution(PLAIN, (a, b, c), Random(0), 0.0)
        assert text == f"{a} + {b} = {a + b}, so {a + b} - {c} = {a + b - c}\n\\boxed{{{problem.answers[0]}}}"


def test_two_kinds_of_training_problems_are_shown_in_equal_shares() -> None:
    random = Random(0)
    for course, other in ((CODE, "Write a program"), (CHOICE, "\n(A) ")):
        texts = [course.example(PLAIN, random, True)[0] for _ in range(400)]
        assert 0.4 < sum(other in text for text in texts) / 400 < 0.6
        assert not any(is_heldout(text.split("\n")[0]) for text in texts)
