"""How a user's function is called: as ours are, or as TRL and verl call the reward functions that are written for them.

| interface | the function | is called with |
| --- | --- | --- |
| `chorus` | `f(completion, row)` | the text, and a dict of `answers` and the named columns |
| `trl` | `f(prompts, completions, **columns) -> list` | lists of one item each; those that it asks for by name |
| `trl_chat` | the same | prompts and completions as lists of messages |
| `verl` | `compute_score(data_source, solution_str, ground_truth, extra_info)` | see `_verl` |

An adapter raises TypeError where the function can't be called so: when the grader is loaded, not at its first grade.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from chorus.protocol.graders import Result

Function = Callable[..., Any]
Call = Callable[[str, dict[str, Any]], Any]  # completion, row

# What only a function that was written for another trainer calls its arguments.
_OF_OTHERS = {"trl": {"prompts", "completions"}, "verl": {"data_source", "solution_str", "ground_truth"}}


class WrongReturn(Exception):
    """The function returned what its interface does not allow; the message says what."""


class DoesNotApply(Exception):
    """The function says that it has nothing to say of this sample: TRL's None."""


def _chorus(function: Function, columns: Sequence[str]) -> Call:
    asked = {p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty}
    for interface, names in _OF_OTHERS.items():
        if named := names & asked:
            raise TypeError(
                f'asks for {min(named)!r}, as functions written for {interface} do; set interface = "{interface}", or '
                "write it as def f(completion: str, row: dict)"
            )
    try:
        inspect.signature(function).bind("", {})
    except TypeError:
        raise TypeError(
            "must take two arguments, the completion and its row: def f(completion: str, row: dict)"
        ) from None
    return function


def _trl(function: Function, columns: Sequence[str]) -> Call:
    return _batch_of_one(function, columns, lambda text: text, lambda text: text)


def _trl_chat(function: Function, columns: Sequence[str]) -> Call:
    return _batch_of_one(
        function,
        columns,
        lambda text: [{"role": "user", "content": text}],
        lambda text: [{"role": "assistant", "content": text}],
    )


def _batch_of_one(
    function: Function, columns: Sequence[str], prompt: Callable[[str], Any], completion: Callable[[str], Any]
) -> Call:
    """TRL's batch functions, called with one completion at a time. `prompts` is the problem's text without template."""
    offered = {"completions", "answers", *columns} | ({"prompts"} if "problem" in columns else set())
    parameters = inspect.signature(function).parameters.values()
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if missing := [p.name for p in named if p.default is p.empty and p.name not in offered]:
        mend = 'add "problem" to its columns' if missing[0] == "prompts" else "name it in its columns"
        raise TypeError(f"asks for {missing[0]!r}, which it is not given; {mend}")
    wanted = offered if takes_all else offered & {p.name for p in named}

    def call(text: str, row: dict[str, Any]) -> Any:
        given = {name: [value] for name, value in row.items()} | {"completions": [completion(text)]}
        if "problem" in row:
            given["prompts"] = [prompt(str(row["problem"]))]
        returned = function(**{name: value for name, value in given.items() if name in wanted})
        if not isinstance(returned, list | tuple) or len(returned) != 1:
            raise WrongReturn(f"returned {returned!r:.60} for one completion; give a list of one number")
        if returned[0] is None:
            raise DoesNotApply
        return returned[0]

    return call


def _verl(function: Function, columns: Sequence[str]) -> Call:
    """verl's `compute_score`: a number, or a dict whose `score` is the number and whose other numbers are parts.

    ground_truth is the column `ground_truth`, or `reward_model["ground_truth"]` as in verl's data, or else the gold
    (the list of them where there are several). data_source and extra_info are the columns of these names, if named.
    """
    try:
        inspect.signature(function).bind(data_source="", solution_str="", ground_truth="", extra_info={})
    except TypeError:
        raise TypeError("must take data_source, solution_str, ground_truth and extra_info") from None

    def call(text: str, row: dict[str, Any]) -> Any:
        answers, model = row["answers"], row.get("reward_model")
        truth = answers[0] if len(answers) == 1 else answers
        if isinstance(model, dict):
            truth = model.get("ground_truth", truth)
        returned = function(
            data_source=row.get("data_source", ""),
            solution_str=text,
            ground_truth=row.get("ground_truth", truth),
            extra_info=row.get("extra_info"),
        )
        if not isinstance(returned, dict):
            return returned
        if "score" not in returned:
            raise WrongReturn(f"returned a dict without 'score': {', '.join(map(str, returned))}")
        parts = {key: value for key, value in returned.items() if key != "score" and isinstance(value, int | float)}
        return Result(returned["score"], parts)

    return call


ADAPTERS: dict[str, Callable[[Function, Sequence[str]], Call]] = {
    "chorus": _chorus,
    "trl": _trl,
    "trl_chat": _trl_chat,
    "verl": _verl,
}
