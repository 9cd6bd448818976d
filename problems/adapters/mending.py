"""The one line with which a source is refused, and the likely mend: the options under which its rows can be used."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

from chorus.problems.adapters import choices, golds
from chorus.problems.adapters.adapter import CHAT_MARK, OPTIONS, Adapter, read_options
from chorus.problems.adapters.columns import Column, NoColumn, Unusable
from chorus.problems.adapters.presets import load_preset, preset_names

SAMPLED = 200  # problems that are looked at for instructions

# Names that public sets have for the two columns, the usual ones first.
_PROBLEMS = (
    "problem",
    "Body,Question",
    "body,question",
    "passage,question",
    "article,question",
    "context,question",
    "question",
)
_PROBLEMS += (
    "Problem",
    "Question",
    "prompt",
    "messages",
    "query",
    "instruction,input",
    "instruction",
    "input",
    "ctx",
    "question_stem",
)
_PROBLEMS += (
    "question.stem",
    "goal",
    "problem_text",
    "conversations",
    "conversation",
    "raw_problem",
    "sentence",
    "text",
)
_ANSWERS = ("answer", "Answer", "final_answer", "answerKey", "reward_model.ground_truth", "ground_truth", "gold")
_ANSWERS += (
    "answer_number",
    "correct_option",
    "answer_index",
    "expected_answer",
    "correct_answer",
    "target",
    "label",
    "correct",
    "cop",
    "answer_idx",
    "gold_answer",
    "gt_answer",
    "gt",
    "output",
    "response",
)
_WORKED = ("solution", "Solution", "response", "output", "answer", "completion", "rationale", "messages.-1.content")
_WORKED += ("conversations.-1.value", "conversation.-1.value", "generated_solution", "cot")


def refusal(counts: Counter[str], of: int, first: Sequence[tuple[str, Unusable]]) -> str:
    """How many rows can't be used, and the first three of the commonest kind; `first`: faults with their places."""
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in counts.most_common())
    common = [(where, str(fault)) for where, fault in first if fault.reason == counts.most_common(1)[0][0]][:3]
    shown = "; ".join(f"{where}: {said}" for where, said in common)
    if len({said for _, said in common}) == 1:
        shown = f"{', '.join(where for where, _ in common)}: {common[0][1]}"
    return f"{sum(counts.values()):,} of {of:,} rows can't be used ({reasons}): {shown}"


def likely_mend(spec: str, adapter: Adapter, row: Mapping[str, Any], faults: Sequence[Unusable]) -> str:
    """What to add to the source, in a few words; empty where nothing is known. `row`: the first one, of a source of
    which nothing can be used; empty else."""
    reason = Counter(fault.reason for fault in faults).most_common(1)[0][0]
    read = [fault.gold for fault in faults if fault.gold]
    answer = next((column.path for column in adapter.columns.get("answer", ())), "answer")
    if reason in (golds.WORKED, golds.SEVERAL_LINES, golds.SENTENCES) and (step := golds.worked_as(read)):
        column = f"{answer}|{step}"
        return f"these look like worked solutions: add `?answer={column}`{_whole(spec, 'answer', column)}"
    if reason in (golds.PROOF, golds.NOT_FOUND):
        names = Counter(gold.strip() for gold in read).most_common(2)
        wheres = "&".join(f"where={answer}!={name}" for name, _ in names)
        return f"these have no answer to check: add `?{wheres}`"
    if reason == golds.TRUTH:
        return "true and false are words: add `?kind=text`"
    if reason == golds.LIST:
        return f"add `?answer={answer}|several` where each is right, `|joined` where all are needed, or `|first`"
    if reason == choices.UNMATCHED and read and all(gold.isdecimal() and gold != "0" for gold in read):
        return f"do the answers count from 1? add `?answer={answer}|index:1`"
    if reason == choices.UNCLEAR:
        return f"add `?answer={answer}|index` (from 0), `|index:1`, `|letter` or `|text`"
    if reason == CHAT_MARK:
        return "name a column with the question alone, or take it out of the prompt with `|match:PATTERN`"
    if row and (found := guess(spec, row)) is not None:
        return f"try {found}: it reads the first row"
    return ""


def guess(spec: str, row: Mapping[str, Any]) -> str | None:
    """A source that reads this row as a problem: with the first preset that fits, or with columns of usual names."""
    source, _, query = spec.partition("?")
    for options in _guessed(row):
        if _reads(source, options, row):
            return f"`{source}?{options}`" if not query else f"`{source}?{options}` in place of the options given"
    return None


def _guessed(row: Mapping[str, Any]) -> list[str]:
    presets = [f"preset={name}" for name in preset_names() if name not in ("dapo", "skywork", "aime")]
    named = [column for column in _PROBLEMS if _found(row, column)][:2]
    options = choices.unnamed_options(dict(row))
    texts = {column: _found(row, column) for column in _WORKED}
    worked = [f"{c}|{step}" for c, text in texts.items() if (step := golds.worked_as([str(text or "")])) is not None]
    answers = [column for column in _ANSWERS if _found(row, column) is not None]
    by_hand = [
        "&".join([f"problem={problem}"] * (problem != "problem") + [f"choices={options}"] * bool(options) + last)
        for problem in named
        for answer in [*answers, *worked]
        for last in ([f"answer={answer}"], [f"answer={answer}", "kind=text"])
    ]
    return [*presets, *by_hand]


def _found(row: Mapping[str, Any], path: str) -> Any:
    try:
        found = Column(path).found(row)
    except NoColumn:
        return None
    return None if found in ("", []) else found


def _reads(source: str, options: str, row: Mapping[str, Any]) -> bool:
    adapter, _ = read_options(source, options)
    try:
        return adapter.takes(row) and bool(adapter.fields(row)["problem"])
    except ValueError:
        return False


def instructions(problems: Sequence[str]) -> str:
    """What most of these problems hold beside the question: an instruction about the layout, or the same end.

    Templates give such instructions, and two of them contradict each other.
    """
    texts = list(dict.fromkeys(problems))[:SAMPLED]
    cuts = [re.compile(pattern) for pattern in load_preset("verl").cut]
    held = [match[0].strip() for text in texts for cut in cuts if (match := cut.search(text)) is not None]
    if len(held) > len(texts) / 2:
        return Counter(held).most_common(1)[0][0]
    return _common_end(texts)


def _common_end(texts: Sequence[str], least: int = 25) -> str:
    """What all of these texts end with, where it is as long as an instruction; they must be three or more."""
    if len(texts) < 3:
        return ""
    first, *others = [text.rstrip() for text in texts]
    start = 0
    for text in others:
        while not text.endswith(first[start:]):
            start += 1
    end = first[start:].partition(" ")[2]  # from a whole word on
    return end if len(end) >= least else ""


def _whole(spec: str, key: str, value: str) -> str:
    """The source with this option in place of what it said of it, where it had options already."""
    source, _, query = spec.partition("?")
    if not query:
        return ""
    kept = [f"{k}={v}" for k, v in parse_qsl(query, keep_blank_values=True) if k != key]
    return f", so `{source}?{'&'.join([*kept, f'{key}={value}'])}`"


def unknown_options(spec: str, names: Sequence[str], further: Sequence[str]) -> str:
    return (
        f"problems {spec!r}: {', '.join(names)} is not understood after the '?'; use one of "
        f"{', '.join((*OPTIONS, *further))}"
    )
