"""Tests of a program, as a problem of kind `code` has them and `/v1/grade` takes them (docs/sandbox.md)."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

MOST_TESTS = 1000  # of one program


def _mend_surrogates(value: Any) -> Any:
    """Text that UTF-8 can carry: models write lone surrogates, JSON lets them pass, no encoder takes them."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value


Text = Annotated[str, BeforeValidator(_mend_surrogates)]
Tolerance = Annotated[
    float | None,
    Field(ge=0, description="numbers may be off by so much, absolutely or relatively, however they are written"),
]


class _Test(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ScriptTest(_Test):
    """The program gets `input` on its standard input and must write `output`."""

    input: Text
    output: Text
    tolerance: Tolerance = None


class FunctionTest(_Test):
    """`function(*args)` must return `expected`; "Class.method" makes the class without arguments."""

    function: Annotated[str, Field(pattern=r"^[^\W\d]\w*(\.[^\W\d]\w*)?$", max_length=200)]
    args: list[Any]
    expected: Any
    tolerance: Tolerance = None


CodeTests = Annotated[list[ScriptTest | FunctionTest], Field(min_length=1, max_length=MOST_TESTS)]
