"""Programs as answers: which block counts, what passes a test, and how tests make an accuracy."""

import json
from typing import Any

import pytest

from chorus.reward_server.graders.code import find_block, grade_program, same_output, same_value
from chorus.reward_server.graders.task import GradeResult, GradeTask, Program
from chorus.reward_server.sandbox.sandbox import Sandbox, find_mechanism

MECHANISM, WHY_NOT = find_mechanism()
needs_sandbox = pytest.mark.skipif(MECHANISM is None, reason=f"no sandbox on this machine: {WHY_NOT}")
SUM = "a, b = map(int, input().split())\nprint(a + b)\n"
SUMS = [{"input": f"{a} 1\n", "output": f"{a + 1}\n"} for a in range(3)]


def grade(
    program: str, tests: list[dict[str, Any]], completion: str = "", sandbox: str = MECHANISM or "", **how: Any
) -> GradeResult:
    asked = Program(json.dumps(tests), sandbox, how.pop("timeout_s", 5.0), **how)
    return grade_program(GradeTask("code", completion or f"```python\n{program}\n```", task="explain", program=asked))


def call(function: str, args: list[Any], expected: Any) -> dict[str, Any]:
    return {"function": function, "args": args, "expected": expected}


# --- which block ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("completion", "block"),
    [
        ("```python\nx\n```", "x\n"),
        ("```\nfirst\n```\nno:\n```py\nsecond\n```\nDone.", "second\n"),
        ("~~~\nx\n~~~", "x\n"),
        ("````md\n```\ninner\n```\n````", "```\ninner\n```\n"),
        ("```python\nx\n~~~\n```", "x\n~~~\n"),
        ("1. so\n   ```python\n   x\n   ```\n", "   x\n"),
        ("```python\r\nx\r\n```\r\n", "x\r\n"),
        ("```a\nx\n```\n```python\ncut off", "x\n"),
        ("```python\n```", ""),
    ],
)
def test_the_last_closed_block_is_the_program(completion, block):
    span = find_block(completion)
    assert span is not None
    assert completion[slice(*span)] == block


@pytest.mark.parametrize("completion", ["", "print(1)", "`print(1)`", "```python\nprint(1)", "```python print(1) ```"])
def test_without_a_closed_block_there_is_no_program(completion):
    assert find_block(completion) is None


@pytest.mark.parametrize(
    ("completion", "which", "block"),
    [
        ("```py\nlong = 1\n```\nprints\n```\n2\n```", "longest", "long = 1\n"),
        ("```py\nlong = 1\n```\nprints\n```\n2\n```", "last", "2\n"),
        ("```\nab\n```\n```\ncd\n```", "longest", "cd\n"),  # as long: the later one
        ("```\nab\n```\n```\nb\n\n\n\n\n```", "longest", "ab\n"),  # white space makes no program
        ("```\nab\n```\n```python\nnever closed", "longest", "ab\n"),
    ],
)
def test_a_key_says_whether_the_last_or_the_longest_block_is_the_program(completion, which, block):
    span = find_block(completion, which)
    assert span is not None
    assert completion[slice(*span)] == block


def test_a_completion_without_a_program_is_no_answer():
    result = grade("", SUMS, completion="The answer is 42.")
    assert (result.verdict, result.extracted) == ("no_answer", None)


# --- what passes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("got", "expected", "same"),
    [
        ("7\n", "7", True),
        ("7  \r\n\n", "7\n", True),
        (" 7", "7", True),
        ("1 2\n3", "1 2\n3\n", True),
        ("1  2", "1 2", True),
        ("1\n2", "1 2", False),
        ("", "", True),
        ("", "0", False),
        ("7\nextra", "7", False),
        ("yes", "YES", False),
        ("0.3333333333", "0.33333333", True),
        ("1e-1", "0.1", True),
        ("0.34", "0.33", False),
        ("7.0", "7", False),  # an integer was asked for
        ("inf", "1.5", False),
        ("nan", "1.5", False),
        ("100000.04", "100000.00", True),
        ("9" * 1000, "1.5", False),
    ],
)
def test_output_is_compared_by_lines_and_decimals_within_a_tolerance(got, expected, same):
    assert same_output(got, expected) is same


@pytest.mark.parametrize(
    ("got", "expected", "same"),
    [
        (3, 3, True),
        (3, 4, False),
        (3.0, 3, True),
        (True, 1, False),
        (1, True, False),
        (None, None, True),
        (None, 0, False),
        ("3", 3, False),
        (0.1 + 0.2, 0.3, True),
        (0.31, 0.3, False),
        (10**400, 0.5, False),
        ([1, [2.0000000001]], [1, [2.0]], True),
        ([1, 2], [2, 1], False),
        ([1], [1, 1], False),
        ({"a": [1]}, {"a": [1]}, True),
        ({"a": 1, "b": 2}, {"a": 1}, False),
        ({}, [], False),
    ],
)
def test_values_are_compared_as_json(got, expected, same):
    assert same_value(got, expected) is same


@pytest.mark.parametrize(
    ("got", "expected", "tolerance", "same"),
    [
        ("7.0", "7", 1e-9, True),  # numbers, however they are written
        ("7.002", "7", 0.01, True),
        ("7.2", "7", 0.01, False),
        ("1000009 x", "1000000 x", 1e-5, True),  # relatively
        ("1000011 x", "1000000 x", 1e-5, False),
        ("5", "7", 2, True),
        ("5000", "7000", 2, False),  # nobody means 200 %
        ("7.1", "7", 0, False),
        ("yes", "no", 100, False),
        ("nan", "1", 100, False),
    ],
)
def test_a_tests_own_tolerance_holds_for_all_its_numbers(got, expected, tolerance, same):
    assert same_output(got, expected, tolerance) is same


@pytest.mark.parametrize(
    ("got", "expected", "tolerance", "same"),
    [
        ([1, {"a": 2.004}], [1, {"a": 2}], 0.01, True),
        ([1, {"a": 2.04}], [1, {"a": 2}], 0.01, False),
        (True, 1, 10, False),
        (1.0001, 1.0, 0, False),
        ("1", 1, 10, False),
    ],
)
def test_a_tests_own_tolerance_holds_within_values(got, expected, tolerance, same):
    assert same_value(got, expected, tolerance) is same


# --- the grade ------------------------------------------------------------------------------------


@needs_sandbox
def test_a_program_that_passes_every_test_is_correct():
    result = grade(SUM, SUMS)
    assert (result.verdict, result.accuracy, result.reason) == ("correct", 1.0, None)
    assert result.extracted == SUM + "\n"
    assert result.verifier == f"code: {MECHANISM}"


@needs_sandbox
@pytest.mark.parametrize(
    ("program", "test"),
    [
        ("def add(a, b):\n    return a + b", call("add", [2, 3], 5)),
        ("class Solution:\n    def add(self, a, b):\n        return a + b", call("Solution.add", [2, 3], 5)),
        ("def pair(x):\n    return (x, {'k': x})", call("pair", [[1]], [[1], {"k": [1]}])),
        ("def f():\n    return 2 ** 200", call("f", [], 2**200)),
        ("def f(x):\n    return x", call("f", [10**30], 10**30)),
        ("def f(x):\n    print('noise ' * 1000)\n    return x", call("f", ["é\u2028"], "é\u2028")),
        ("def f():\n    return 1\nif __name__ == '__main__':\n    f(input())", call("f", [], 1)),
        ("import sys\nprint(sys.stdin.read()[::-1])", {"input": "äb", "output": "bä"}),
        ("exit(print(1))", {"input": "", "output": "1"}),
        ("import threading\nthreading.stack_size(1 << 27)\n"
         "threading.Thread(target=lambda: print(1)).start()", {"input": "", "output": "1"}),
        ("import atexit\natexit.register(print, 2)\nprint(1)", {"input": "", "output": "1\n2"}),
    ],
)  # fmt: skip
def test_scripts_functions_and_methods_are_run_as_python_would(program, test):
    assert grade(program, [test]).verdict == "correct"


@needs_sandbox
def test_the_modules_that_solutions_use_can_be_imported():
    names = (
        "array ast bisect cmath collections copy datetime decimal enum fractions functools hashlib heapq io itertools "
    )
    names += "json math numbers operator random re statistics string struct sys textwrap threading time typing uuid"
    program = "".join(f"import {name}\n" for name in names.split())
    program += "random.shuffle([1, 2]); time.sleep(0.001); print(hashlib.sha256(b'x').hexdigest()[:4], math.pi)"
    assert grade(program, [{"input": "", "output": "2d71 3.14159265"}]).verdict == "correct"


@needs_sandbox
@pytest.mark.parametrize(
    ("program", "prints"),
    [
        ("data = sys.stdin.read().split()\nprint(len(data), math.gcd(12, 18), gcd(8, 6))", "2 6 2"),
        ("h = [3, 1]\nheapq.heapify(h)\nheappush(h, 0)\nprint(h[0], bisect.bisect([1, 2], 1))", "0 1"),
        ("d = defaultdict(list)\nd[1].append(2)\nprint(collections.Counter('aab')['a'], d[1])", "2 [2]"),
        ("class S:\n    @lru_cache(None)\n    def f(self, x: List[int]) -> Optional[int]:\n"
         "        return reduce(lambda a, b: a + b, x)\nprint(S().f((1, 2)))", "3"),
        ("print(list(itertools.chain([1], accumulate([1, 2]))), re.sub('a', 'b', 'a'), ascii_lowercase[:2])",
         "[1, 1, 3] b ab"),
        ("from heapq import *\ndef gcd(a, b):\n    return 'mine'\nprint(gcd(1, 2), pow(2, 3, 5))", "mine 3"),
    ],
)  # fmt: skip
def test_what_judges_programs_take_for_granted_need_not_be_imported(program, prints):
    assert grade(program, [{"input": "a b", "output": prints}]).reason is None


@needs_sandbox
def test_a_name_that_no_judge_has_is_still_missing():
    assert "NameError" in (grade("print(numpy)", [{"input": "", "output": "1"}]).reason or "")


@needs_sandbox
def test_the_key_and_the_tolerance_reach_the_program():
    completion = "```python\nprint(7.004, end=' ')\nprint('x')\n```\nprints\n```\n7.004 x\n```"
    tests = [{"input": "", "output": "7 x", "tolerance": 0.01}]
    assert grade("", tests, completion, block="longest").verdict == "correct"
    assert grade("", tests, completion, block="last").verdict == "wrong"


@needs_sandbox
@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("print(", "does not compile: SyntaxError"),
        ("return 1", "does not compile: SyntaxError"),
        ("x = '\0'", "does not compile"),
        ("(" * 5000, "does not compile"),
        ("print(1/0)", "exit status 1: ZeroDivisionError"),
        ("import numpy", "ModuleNotFoundError"),
        ("raise SystemExit(3)", "exit status 3"),
        ("print('no')", "another output"),
    ],
)
def test_a_program_that_fails_is_wrong_and_the_reason_says_how(program, says):
    result = grade(program, [{"input": "", "output": "1"}])
    assert (result.verdict, result.accuracy) == ("wrong", 0.0)
    assert result.reason.startswith("test 1 of 1: ")
    assert says in result.reason


@needs_sandbox
@pytest.mark.parametrize(
    ("scoring", "verdict", "accuracy", "ran"),
    [("strict", "wrong", 0.0, 2), ("fractional", "wrong", 0.75, 4)],
)
def test_strict_pays_all_or_nothing_and_fractional_pays_the_share(scoring, verdict, accuracy, ran):
    tests = [call("f", [x], 100 if x == 1 else x) for x in range(4)]
    result = grade("def f(x):\n    return x", tests, scoring=scoring)
    assert (result.verdict, result.accuracy) == (verdict, accuracy)
    assert result.reason == "test 2 of 4: another value"
    assert len(result.explanation["comparisons"]) == ran


@needs_sandbox
def test_a_program_that_does_not_compile_gets_nothing_under_either_scoring():
    for scoring in ("strict", "fractional"):
        assert grade("def f(:", [call("f", [], 1)] * 3, scoring=scoring).accuracy == 0.0


@needs_sandbox
def test_after_a_hang_the_tests_behind_it_count_as_failed():
    tests = [call("f", [x], x) for x in range(10)]
    result = grade("def f(x):\n    while x == 1: pass\n    return x", tests, scoring="fractional", timeout_s=3.0)
    assert (result.verdict, result.accuracy) == ("wrong", 0.1)


@needs_sandbox
def test_time_that_runs_out_over_many_honest_tests_is_no_verdict():
    program = "import time\ndef f(x):\n    time.sleep(0.5)\n    return x"
    result = grade(program, [call("f", [x], x) for x in range(20)], timeout_s=2.0)
    assert result.verdict == "timeout"
    assert "of 20 tests" in result.reason
    assert result.accuracy is None


@needs_sandbox
def test_the_expected_results_never_enter_the_sandbox(monkeypatch):
    sent: list[Any] = []
    original = Sandbox._send
    monkeypatch.setattr(Sandbox, "_send", lambda sandbox, message: (sent.append(message), original(sandbox, message)))
    tests = [{"input": "in-1", "output": "secret-1"}, call("f", ["in-2"], "secret-2")]
    grade("def f(x):\n    return x", tests, scoring="fractional")
    assert "in-1" in json.dumps(sent)
    assert "in-2" in json.dumps(sent)
    assert "secret" not in json.dumps(sent)


def test_a_sandbox_that_fails_is_an_error_and_not_wrong():
    result = grade(SUM, SUMS, sandbox="cardboard")
    assert result.verdict == "error"
    assert "no such mechanism: cardboard" in result.reason
    assert result.accuracy is None
