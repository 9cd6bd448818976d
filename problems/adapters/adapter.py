"""A row as it was downloaded becomes the fields of a problem, as the source's options say.

my.parquet?preset=verl                        a preset, and what else is said goes before it
my.csv?problem=question&answer=final          columns, see columns.py; `level=` leaves a column out
my.jsonl?choices=options&where=split=train    multiple choice, see choices.py; conditions, see where.py
my.jsonl?cut=\\s*Think hard\\.$                 what is no part of the problem, as a pattern
my.jsonl?rows=500&seed=1                      the first 500 usable rows, or with a seed any 500
my.jsonl?kind=text                            of all rows
my.jsonl?unusable=0.3                         up to this share of the rows may be left out
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from chorus.problems.adapters import choices, golds
from chorus.problems.adapters.columns import Column, NoColumn, Unusable, as_text, columns_of, compiled, parsed
from chorus.problems.adapters.presets import COLUMNS, Preset, load_preset
from chorus.problems.adapters.where import Where, level_of
from chorus.problems.choice_forms import split_options
from chorus.protocol.graders import KINDS

UNUSABLE_SHARE = 0.1  # of the rows; above it the source is not what its options say
OPTIONS = (*COLUMNS, "preset", "where", "cut", "rows", "seed", "unusable")
LEFT_OUT = "left out by `where`"
CHAT_MARK = "chat marks in the problem"
_SEVERAL = ("where", "cut")
_REQUIRED = ("problem", "answer", "answers", "choices")
_PICTURES = frozenset(("image", "images", "image_1", "decoded_image"))
_CHAT_MARKS = ("<|im_start|>", "<|start_header_id|>", "<start_of_turn>", "[INST]", "<|user|>")


@dataclass(frozen=True)
class Adapter:
    columns: Mapping[str, tuple[Column, ...]]  # by field: the first that the row has; none: the field is left out
    named: frozenset[str]  # fields whose column must be there
    where: tuple[Where, ...] = ()
    cut: tuple[re.Pattern[str], ...] = ()
    kind: str = ""
    rows: int | None = None
    seed: int | None = None
    unusable: float = UNUSABLE_SHARE

    def takes(self, row: Mapping[str, Any]) -> bool:
        return all(where.holds(row) for where in self.where)

    def fields(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What a problem is made of. Raises Unusable for a row to leave out, ValueError for one that refuses all."""
        found = {field: self._value(field, row) for field in COLUMNS}
        kind = as_text(found["kind"]) or self.kind or "math"
        problem = self._problem(found["problem"])
        if not _PICTURES.isdisjoint(row) and any(row.get(name) for name in _PICTURES):
            raise Unusable("a problem with a picture", "the row has a picture, which a problem's text can't show")
        is_written = kind == "choice" and "choices" not in self.columns  # the problem holds its options
        is_written = is_written and (not found["choices"] or bool(split_options(problem)[1]))
        options = None if is_written else choices.options_of(found["choices"])
        if options is None and kind == "math" and "choices" not in self.columns:
            _refuse_unnamed_options(row)
        if options is not None:
            kind, problem, answers = "choice", *self._choice(problem, options, found["answer"], found["answers"])
        else:
            answers = self._answers(found, kind)
        if is_written:
            _refuse_unnamed_letter(problem, answers)
        return {
            "problem": problem,
            "answers": answers,
            "kind": kind,
            "tests": found["tests"],
            "id": found["id"],
            "level": level_of(found["level"]),
            **{field: _one_text(field, found[field]) for field in ("solution", "domain", "source")},
            "sub_answers": _texts("sub_answers", found["sub_answers"]),
        }

    def _value(self, field: str, row: Mapping[str, Any]) -> Any:
        columns = self.columns.get(field)
        if columns is None:
            if field == "answers" and "answer" in self.columns:
                return None  # a column named for the answer is the one that is meant
            return row.get(field) or row.get("subject") if field == "domain" else row.get(field)
        if not columns:
            return None
        found = False
        for column in columns:
            try:
                if (value := column.of(row)) is not None:
                    return value
                found = True
            except NoColumn:
                continue
            except Unusable:
                if field in _REQUIRED:
                    raise
                return None
        if found or field not in self.named:
            return None
        names = " or ".join(repr(column.path) for column in columns)
        raise ValueError(
            f"there is no column {names}, which the spec names; the row has {columns_of(row)}: name one of those"
        )

    def _problem(self, given: Any) -> str:
        turns = parsed(given) if isinstance(given, str) and given.lstrip().startswith("[{") else given
        if isinstance(given, tuple):  # several columns
            text = "\n".join(text for text in map(as_text, given) if text)
        elif isinstance(turns, list):
            text = _last_user_turn(turns)
        elif isinstance(given, dict):
            raise ValueError(f"problem is an object; name one of {', '.join(f'problem=...{k}' for k in given)}")
        else:
            text = given if isinstance(given, str) else as_text(given)
        for pattern in self.cut:
            text = pattern.sub("", text)
        if self.cut:
            text = text.strip()
        if not text.strip():
            raise Unusable("no problem", "the row has no problem; give `problem`, or remove the row")
        if mark := next((mark for mark in _CHAT_MARKS if mark in text), None):
            raise Unusable(CHAT_MARK, f"the problem {text[:40]!r} holds {mark}: it is a whole prompt")
        return text

    def _answers(self, found: Mapping[str, Any], kind: str) -> list[str]:
        given = found["answers"] or found["answer"]
        if found["answers"] and isinstance(given, str) and isinstance(several := parsed(given), list):
            given = several
        steps = [name for column in self.columns.get("answer", ()) for name, _ in column.steps]
        if kind == "code" or (kind not in KINDS and given in (None, "", [])):
            return []
        if kind not in KINDS:
            return [as_text(gold) for gold in given] if isinstance(given, list) else [as_text(given)]
        if isinstance(given, dict):
            raise ValueError(f"answer is an object; name one of {', '.join(f'answer=...{key}' for key in given)}")
        return golds.texts_of(
            given, kind, whole_list=bool(found["answers"]) or steps[-1:] in (["several"], ["several?"])
        )

    def _choice(self, problem: str, options: choices.Options, answer: Any, answers: Any) -> tuple[str, list[str]]:
        named = self.columns.get("answer") or (Column("answer"),)
        paths = {part.strip() for column in self.columns.get("choices", ()) for part in column.path.split(",")}
        if any(column.path in paths for column in named):
            options = choices.shuffled(options, problem)
        given = answers if answer is None and isinstance(answers, list) else answer
        if isinstance(given, list):
            if len(given) != 1:
                raise Unusable(golds.LIST, f"the answer {given!r:.60} is a list where one choice is meant")
            given = given[0]
        way = next((column.way for column in named if column.way), None)
        return choices.with_options(problem, options), [choices.letter_of(given, options, way)]


def read_options(spec: str, query: str) -> tuple[Adapter, dict[str, str]]:
    """The adapter that a source's options describe, and the options that are not its own.

    Raises ValueError for one that can't be understood.
    """
    once: dict[str, str] = {}
    several: dict[str, list[str]] = {name: [] for name in _SEVERAL}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key in _SEVERAL:
            several[key].append(value)
        elif key in once:
            raise ValueError(f"problems {spec!r}: {key} stands there twice; leave one out")
        else:
            once[key] = value
    try:
        preset = load_preset(once.pop("preset")) if "preset" in once else Preset(title="", columns={})
        return _adapter(preset, once, several["where"], several["cut"]), once
    except ValueError as error:
        raise ValueError(f"problems {spec!r}: {error}") from None


def _adapter(preset: Preset, once: dict[str, str], where: list[str], cut: list[str]) -> Adapter:
    """Takes its options out of `once`."""
    kind = once.pop("kind") if once.get("kind") in KINDS else preset.kind
    given = {field: [once.pop(field)] for field in COLUMNS if field in once}
    columns: dict[str, list[str]] = {field: [c] if isinstance(c, str) else c for field, c in preset.columns.items()}
    if "answers" in given:
        columns.pop("answer", None)
    columns |= given | ({"kind": [""]} if kind else {})
    return Adapter(
        {field: tuple(Column.parse(c) for c in names if c) for field, names in columns.items()},
        frozenset(field for field in columns if field in given or field in _REQUIRED),
        tuple(Where.parse(text) for text in [*preset.where, *where]),
        tuple(compiled(pattern, "cut") for pattern in [*preset.cut, *cut]),
        kind,
        _whole(once, "rows", 1),
        _whole(once, "seed", 0),
        _share(once),
    )


def _whole(once: dict[str, str], name: str, least: int) -> int | None:
    if name not in once:
        return None
    text = once.pop(name)
    if not text.isdecimal() or int(text) < least:
        raise ValueError(f"{name}={text}: give a whole number, at least {least}")
    return int(text)


def _share(once: dict[str, str]) -> float:
    text = once.pop("unusable", str(UNUSABLE_SHARE))
    try:
        share = float(text)
    except ValueError:
        share = -1
    if not 0 <= share <= 1:
        raise ValueError(f"unusable={text}: give the share of the rows that may be left out, 0 to 1")
    return share


def _last_user_turn(turns: list[Any]) -> str:
    """Raises Unusable. Roles as in OpenAI's messages, or as in ShareGPT's conversations."""
    for turn in reversed(turns):
        if isinstance(turn, dict) and (turn.get("role") or turn.get("from")) in ("user", "human"):
            content = turn["content"] if "content" in turn else turn.get("value")
            if isinstance(content, list):
                if any(not isinstance(part, dict) or part.get("type", "text") != "text" for part in content):
                    raise Unusable("a problem that is not only text", "the user's turn holds more than text")
                content = "\n".join(as_text(part.get("text")) for part in content)
            return as_text(content)
    raise Unusable("no user's turn", "the problem is a list without a turn of the user's")


def _one_text(field: str, value: Any) -> str | None:
    if isinstance(value, list | tuple) and len(value) <= 1:
        value = value[0] if value else None
    if isinstance(value, list | tuple | dict):
        several = "an object" if isinstance(value, dict) else f"a list of {len(value)}"
        mend = f"name a column within it, or leave it out with `{field}=`"
        if not isinstance(value, dict):
            mend = f"add `{field}={field}|first` or `{field}={field}|joined`, or leave it out with `{field}=`"
        raise ValueError(f"{field} is {several}; {mend}")
    return value if value is None or isinstance(value, str) else as_text(value)


def _texts(field: str, value: Any) -> list[str] | None:
    given = parsed(value) if isinstance(value, str) else value
    if given is None or (isinstance(given, list) and not given):
        return None
    if not isinstance(given, list | tuple):
        raise ValueError(f"{field} is {given!r:.40}, not a list; name another column, or leave it out with `{field}=`")
    return [as_text(item) for item in given]


def _refuse_unnamed_letter(problem: str, answers: list[str]) -> None:
    """Raises Unusable where no answer could match: the golds are letters of the options, or such an option's text."""
    _, texts = split_options(problem)
    count = len(texts) or choices.lettered(problem)
    for gold in answers:
        letter = choices.named_letter(gold)
        if gold not in texts and (letter is None or (count and choices.LETTERS.index(letter) >= count)):
            of = f" of the {count} that the problem has" if count else ""
            raise Unusable(
                choices.NO_LETTER,
                f"the gold {gold!r:.60} is no option's letter{of}; write the letter, or name the options' column with "
                "`choices=`",
                gold,
            )


def _refuse_unnamed_options(row: Mapping[str, Any]) -> None:
    if (name := choices.unnamed_options(dict(row))) is not None:
        raise ValueError(
            f"the row has options in {name}, and the answer alone would not say what they are; add `?choices={name}`, "
            "or `?choices=` to ask without them"
        )
