"""Programs: the last (or the longest) fenced block of a completion, run against tests in a sandbox, judged out here.

A test is {"input", "output"} (a script with standard input and output) or {"function", "args", "expected"} (the
program is imported, the function called; "Class.method" makes the class without arguments). Only the inputs go
into the sandbox (`chorus.reward_server.sandbox`); what comes out is compared here, so that no program can print, patch
or exit its way to a pass. A test's `tolerance` says how far numbers may be off, however they are written; without one,
a number that is expected as a decimal may be off by TOLERANCE, and any other not at all.

    no block -> no_answer    every test passed -> correct    else wrong    the sandbox failed -> error
    the grade's time ran out in a test that had kept its own limits -> timeout

A program that does not compile, crashes, hangs or floods is wrong: that is a fact about the program, and none
about the verifier. `strict` (default) pays 1 for all tests and stops at the first that fails (AceReason,
arXiv 2505.16400); `fractional` pays the share that passed (ProRL, arXiv 2505.24864), and a test that breaks a
time limit ends it: those behind count as failed.
"""

from __future__ import annotations

import json
import math
import re
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from chorus.reward_server.graders.task import Block, GradeResult, GradeTask, Program
from chorus.reward_server.sandbox.runner import COMPILE_FAILED
from chorus.reward_server.sandbox.sandbox import Limits, Outcome, Sandbox, SandboxError

MAX_EXTRACTED_CHARS = 20_000  # what a response repeats of a program; all of it was run
TOLERANCE = 1e-6  # relative or absolute, where the expected number is written as a decimal
# Of the grade's limit: a test's CPU, its wall clock, all tests. What lies between the last two is for the start of
# the sandbox on a busy machine; what lies behind the last, for the verdict to reach the pool before the pool kills.
CPU_SHARE, WALL_SHARE, TOTAL_SHARE = 0.4, 0.6, 0.9
_SHOWN_CHARS = 500  # of an output, in an explanation
_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})[ \t]*([^`\n]*)")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_DECIMAL = re.compile(r"[+-]?(?:\d+\.\d*|\.\d+|\d+(?:\.\d*)?[eE][+-]?\d+)(?:[eE][+-]?\d+)?")


@dataclass(frozen=True)
class Judged:
    """One test: passed or not, why, and what the program left."""

    passed: bool
    why: str
    outcome: Outcome
    expected: str
    got: str


def find_block(text: str, which: Block = "last") -> tuple[int, int] | None:
    """Span of what the last, or the longest, closed fence (``` or ~~~, any language tag) encloses; None without one.

    >>> text = "Try\\n```python\\nprint(1 + 1)\\n```\\nwhich prints\\n```\\n2\\n```\\n"
    >>> text[slice(*find_block(text))], text[slice(*find_block(text, "longest"))]
    ('2\\n', 'print(1 + 1)\\n')
    """
    blocks = list(_blocks(text))
    if not blocks:
        return None
    # Of two that are equally long the later one: a program that is shown again is the one that was meant.
    return blocks[-1] if which == "last" else max(reversed(blocks), key=lambda span: len(text[slice(*span)].strip()))


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    fence, start, at = "", 0, 0
    for line in text.splitlines(keepends=True):
        mark = _FENCE.match(line)
        end = at + len(line)
        if mark is not None and not fence:
            fence, start = mark[1], end
        elif mark is not None and mark[1].startswith(fence) and not line[mark.end(1) :].strip():
            yield start, at
            fence = ""
        at = end


def grade_program(task: GradeTask) -> GradeResult:
    """Grade a completion by its program's tests."""
    program, verifier = _program(task), f"code: {_program(task).sandbox}"
    tests = json.loads(program.tests)
    span = find_block(task.completion, program.block)
    if span is None or not task.completion[slice(*span)].strip():
        nothing = {"extraction": None, "normalised": None, "comparisons": []}
        reason = "the completion has no closed fenced block"
        return GradeResult("no_answer", 0.0, verifier, reason=reason, explanation=_if_asked(task, nothing))
    source = textwrap.dedent(task.completion[slice(*span)])
    try:
        judged, reason = _run_all(source, tests, program)
    except SandboxError as error:
        return GradeResult.failed(verifier, str(error))
    if reason is not None:
        return GradeResult.failed(verifier, reason, "timeout")
    passed, total = sum(test.passed for test in judged), len(tests)
    place = {"rung": f"{program.block}_block", "start": span[0], "end": span[1], "cuts": []}
    comparisons = [_explain(number, test) for number, test in enumerate(judged, 1)]
    return GradeResult(
        verdict="correct" if passed == total else "wrong",
        accuracy=passed / total if program.scoring == "fractional" else float(passed == total),
        verifier=verifier,
        extracted=source[:MAX_EXTRACTED_CHARS],
        reason=None if passed == total else _first_failure(judged, total),
        explanation=_if_asked(task, {"extraction": place, "normalised": None, "comparisons": comparisons}),
    )


def _program(task: GradeTask) -> Program:
    if task.program is None:
        raise ValueError("a program without tests")  # the API refuses it
    return task.program


def _if_asked(task: GradeTask, explanation: dict[str, Any]) -> dict[str, Any] | None:
    return explanation if task.task == "explain" else None


def _run_all(source: str, tests: list[dict[str, Any]], program: Program) -> tuple[list[Judged], str | None]:
    """Every test up to the one that decides; or why the grade has no verdict."""
    limit_s = program.timeout_s
    limits = Limits(cpu_s=max(1, math.floor(limit_s * CPU_SHARE)), wall_s=limit_s * WALL_SHARE)
    deadline = time.monotonic() + limit_s * TOTAL_SHARE
    judged: list[Judged] = []
    with Sandbox(program.sandbox, source, limits) as sandbox:
        for test in tests:
            budget_s = deadline - time.monotonic()
            told = {"stdin": test["input"]} if "input" in test else {key: test[key] for key in ("function", "args")}
            outcome = sandbox.run(told, budget_s) if budget_s > 0 else None
            if outcome is None or (outcome.broke == "wall" and budget_s < limits.wall_s):
                reason = f"the grade's {limit_s:g} s were over after {len(judged)} of {len(tests)} tests"
                return judged, f"{reason}, each within its own limit; send fewer tests, or raise --timeout"
            judged.append(_judge(test, outcome, limits))
            hung = outcome.broke in ("cpu", "wall")
            if outcome.exit == COMPILE_FAILED or (not judged[-1].passed and (hung or program.scoring == "strict")):
                break
    return judged, None


def _judge(test: dict[str, Any], outcome: Outcome, limits: Limits) -> Judged:
    """Whether what the program left is what the test expects."""
    tolerance = test.get("tolerance")
    expected = test["output"] if "input" in test else json.dumps(test["expected"])
    got = outcome.out if "input" in test else outcome.value
    why = _ended_badly(outcome, limits)
    if why is None and "input" in test:
        why = None if same_output(got, expected, tolerance) else "another output"
    elif why is None and not _same_json(got, test["expected"], tolerance):
        why = "another value" if got else "no value was returned"
    return Judged(why is None, why or "as expected", outcome, expected, got)


def _ended_badly(outcome: Outcome, limits: Limits) -> str | None:
    last_line = (outcome.err.strip().splitlines() or [""])[-1][:_SHOWN_CHARS]
    if outcome.broke is not None:
        return {
            "cpu": f"over its limit of {limits.cpu_s} s CPU",
            "wall": f"over its limit of {limits.wall_s:g} s",
            "output": f"over its limit of {limits.output_bytes} bytes of output",
        }[outcome.broke]
    if outcome.exit == COMPILE_FAILED:
        return f"it does not compile: {last_line}"
    if outcome.exit < 0:
        return f"killed by signal {-outcome.exit}"
    return f"exit status {outcome.exit}: {last_line}" if outcome.exit else None


def same_output(got: str, expected: str, tolerance: float | None = None) -> bool:
    """Line by line, without trailing white space and empty lines at the end; decimals within TOLERANCE, and with a
    `tolerance` all numbers within that."""
    got_lines, expected_lines = _lines(got), _lines(expected)
    return len(got_lines) == len(expected_lines) and all(
        a == b or _same_tokens(a.split(), b.split(), tolerance) for a, b in zip(got_lines, expected_lines, strict=True)
    )


def same_value(got: Any, expected: Any, tolerance: float | None = None) -> bool:
    """JSON values: true is not 1, 2 and 2.0 are equal, a float is expected within TOLERANCE, or all numbers within
    `tolerance`."""
    if isinstance(got, bool) or isinstance(expected, bool):
        return got is expected
    if isinstance(expected, float if tolerance is None else float | int) and isinstance(got, int | float):
        return _close(got, expected, tolerance)
    if isinstance(expected, list) and isinstance(got, list):
        return len(got) == len(expected) and all(
            same_value(g, e, tolerance) for g, e in zip(got, expected, strict=True)
        )
    if isinstance(expected, dict) and isinstance(got, dict):
        return got.keys() == expected.keys() and all(same_value(got[k], expected[k], tolerance) for k in expected)
    return got == expected


def _same_json(got: str, expected: Any, tolerance: float | None) -> bool:
    try:
        return same_value(json.loads(got), expected, tolerance)
    except (ValueError, RecursionError):  # the program wrote there itself: its text is not to be trusted either
        return False


def _same_tokens(got: list[str], expected: list[str], tolerance: float | None) -> bool:
    return len(got) == len(expected) and all(_same_token(g, e, tolerance) for g, e in zip(got, expected, strict=True))


def _same_token(got: str, expected: str, tolerance: float | None) -> bool:
    number = _DECIMAL if tolerance is None else _NUMBER
    if got == expected or not number.fullmatch(expected):
        return got == expected
    if max(len(got), len(expected)) >= 400 or not re.fullmatch(r"[-+.\deE]+", got):
        return False
    return _close(_float(got), float(expected), tolerance)


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _close(got: float, expected: float, tolerance: float | None) -> bool:
    allowed = TOLERANCE if tolerance is None else tolerance
    relative = allowed if allowed < 1.0 else 0.0  # "off by 2" is meant absolutely
    try:
        return got == expected or math.isclose(got, expected, rel_tol=relative, abs_tol=allowed)
    except OverflowError:  # an integer that no float can hold
        return False


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]


def _first_failure(judged: list[Judged], total: int) -> str:
    number, test = next((number, test) for number, test in enumerate(judged, 1) if not test.passed)
    return f"test {number} of {total}: {test.why}"


def _explain(number: int, test: Judged) -> dict[str, Any]:
    return {
        "test": number,
        "equal": test.passed,
        "reason": test.why,
        "expected": test.expected[:_SHOWN_CHARS],
        "got": test.got[:_SHOWN_CHARS],
        "stderr": test.outcome.err[-_SHOWN_CHARS:],
        "cpu_s": test.outcome.cpu_s,
        "wall_s": test.outcome.wall_s,
    }
