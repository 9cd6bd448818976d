"""A user's own grader: how a recipe names it, what its function may return, and what of a problem's row reaches it.

    [[reward.graders]]                       def short(completion: str, row: dict) -> float:
    name = "short"                               return min(1.0, row["limit"] / len(completion))
    function = "my_graders.py:short"
    columns = ["limit"]

The function is loaded and called by the reward server's worker processes alone (reward_server/graders/own.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from chorus.protocol.runtime.paths import WrittenOut

KINDS = ("math", "choice", "text", "code", "reasoning_gym")  # what the reward server grades by itself
SHADOWS = ("math-verify", "math", "choice", "text")  # graders of ours that may give a second opinion
GROUP = "chorus.graders"  # of entry points
MAX_ROW_BYTES = 64 * 1024  # of the columns that one problem's graders ask for, as JSON


@dataclass(frozen=True)
class Result:
    """What a grader may return instead of a number.

    score: a finite number; where the grader decides accuracy, from 0 to 1. parts: further numbers, each logged.
    verdict: "correct", "wrong" or "no_answer"; unless given, "correct" for a score of 1 or more, else "wrong".
    """

    score: float
    parts: Mapping[str, float] = field(default_factory=dict)
    verdict: str | None = None
    reason: str | None = None
    extracted: str | None = None


class GraderSpec(BaseModel):
    """One of `[[reward.graders]]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z][\w-]{0,31}$", description="a problem's kind, or a term's grader")
    function: WrittenOut = Field(
        min_length=1, description="`file.py:function`, or the name of an entry point of the group chorus.graders"
    )
    columns: tuple[str, ...] = Field(default=(), description="of the problems' rows, for the function's `row`")
    interface: Literal["chorus", "trl", "trl_chat", "verl"] = Field(
        default="chorus", description="how it is called: (completion, row), or as TRL and verl call theirs"
    )
    workers: int = Field(default=1, ge=1, description="processes that call it, each with a warm spare for all of them")

    @model_validator(mode="after")
    def _own_name(self) -> Self:
        if self.name in (*KINDS, *SHADOWS):
            raise ValueError(f"{self.name!r} is a grader of the reward server's; give yours another name")
        return self


@dataclass(frozen=True)
class RowNeeds:
    """Which columns of a problem's row must travel with it: those that its kind's grader asks for, and `always`."""

    by_kind: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    always: tuple[str, ...] = ()

    @classmethod
    def of(cls, graders: Iterable[GraderSpec], always: Iterable[str] = ()) -> RowNeeds:
        """Of these graders; `always`: the names of those that grade every problem, whatever its kind."""
        columns = {grader.name: grader.columns for grader in graders}
        everywhere = dict.fromkeys(column for name in always for column in columns.get(name, ()))
        return cls(columns, tuple(everywhere))

    @property
    def kinds(self) -> tuple[str, ...]:
        """Every kind that a problem may be of."""
        return (*KINDS, *self.by_kind)

    def row(self, kind: str, row: Mapping[str, Any]) -> str | None:
        """The columns as JSON; None where nobody asks for any. Raises ValueError, which names the column."""
        wanted = dict.fromkeys((*self.always, *self.by_kind.get(kind, ())))
        if not wanted:
            return None
        if missing := [column for column in wanted if column not in row]:
            raise ValueError(
                f"there is no column {missing[0]!r}, which a grader's `columns` name; the row has {', '.join(row)}"
            )
        try:
            text = json.dumps({column: row[column] for column in wanted}, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"the columns {', '.join(wanted)} can't be written as JSON ({error})") from None
        if (size := len(text.encode(errors="surrogatepass"))) > MAX_ROW_BYTES:
            raise ValueError(
                f"the columns {', '.join(wanted)} are {size:,} bytes, a row may have {MAX_ROW_BYTES:,}; name fewer "
                "in the grader's `columns`"
            )
        return text


NO_ROWS = RowNeeds()
