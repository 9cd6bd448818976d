"""The tests of a program, from the forms that public sets have them in, where their meaning is plain:

    [{"input": "2", "output": "3"}, {"function": "f", "args": [2], "expected": 3}]     as the reward server reads them
    [{"input": "2", "output": "3", "testtype": "stdin"}]                               LiveCodeBench
    {"inputs": ["2"], "outputs": ["3"]}                                                APPS, TACO

Each also as JSON in a string; a number on standard input or output is its text.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter, ValidationError

from chorus.protocol.rewards.code_tests import CodeTests

_READ = TypeAdapter(CodeTests)
_FORM = 'a list of {"input": "2", "output": "3"} or {"function": "f", "args": [2], "expected": 3}'


def tests_of(given: Any) -> list[dict[str, Any]]:
    """As the reward server reads them. Raises ValueError, which says what is expected."""
    if isinstance(given, str):  # parquet and the hub have no column type for them
        try:
            given = json.loads(given)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"tests: {error}; give {_FORM}, or it as JSON") from None
    if not given:
        raise ValueError(f"kind 'code' is graded by tests; give `tests`, {_FORM}, or name their column with `tests=`")
    if not isinstance(given, list | dict):
        raise ValueError(f"tests: {given!r:.60}; give {_FORM}")
    tests = _pairs(given) if isinstance(given, dict) else [_plain(test) for test in given]
    try:
        _READ.validate_python(tests)
    except ValidationError as error:
        raise ValueError(_why(tests, error)) from None
    return tests


def _pairs(given: dict[str, Any]) -> list[Any]:
    inputs, outputs = given.get("inputs"), given.get("outputs")
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
        raise ValueError(f"tests: an object without as many `inputs` as `outputs`; give {_FORM}")
    if given.get("fn_name"):
        raise ValueError(
            f"tests: calls of {given['fn_name']!r:.40}, whose arguments and results may be meant in several ways; give "
            f"{_FORM}, or leave the row out with `where=`"
        )
    return [_plain({"input": each, "output": wanted}) for each, wanted in zip(inputs, outputs, strict=True)]


def _plain(test: Any) -> Any:
    """Without a test's type where it is the usual one, and without the columns that another kind of test has."""
    if not isinstance(test, dict):
        return test
    calls = test.get("function") is not None  # whose result may be null
    kept = {key: value for key, value in test.items() if value is not None or (calls and key == "expected")}
    if kept.get("testtype") == "stdin":
        kept.pop("testtype")
    for key in ("input", "output"):
        if isinstance(kept.get(key), int | float) and not isinstance(kept[key], bool):
            kept[key] = json.dumps(kept[key])
    return kept


def _why(tests: list[Any], error: ValidationError) -> str:
    at = next((found["loc"][0] for found in error.errors() if found["loc"]), None)
    if not isinstance(at, int):
        return f"tests: {error.errors()[0]['msg']}; give {_FORM}"
    return f"tests: number {at + 1} is {json.dumps(tests[at], default=str):.80}; give {_FORM}"
