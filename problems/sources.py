"""Where problems come from, named by one string in a recipe.

| spec | source |
| --- | --- |
| `path/to/file.jsonl`, `.json`, `.csv`, `.tsv`, each also `.gz`, `.parquet`, `.arrow` | a file, one problem a row |
| `path/to/folder`, `path/to/data-*.parquet` | the files of a downloaded data set, or of one that `datasets` has saved |
| `hub:NAME` or `hub:NAME:SPLIT` | a data set on the Hugging Face hub (split `train` unless named) |
| `reasoning-gym:TASK?options` | generated problems, see protocol/reasoning_gym.py |
| `arithmetic:STYLE?options` | synthetic problems, see problems/arithmetic.py |

A row holds `problem`, and `answer` (one) or `answers` (all accepted ones), or, with kind `code`, `tests`; `id`,
`solution`, `kind`, `level` (a whole number), `domain` (or `subject`) and `source` are optional. What a problem without
`id` is called, and which problems are one, says problems/identity.py. Of the other columns those are kept that a user's
own grader asks for (protocol/graders.py). Where a file or a data set has another form, options say so, as in
`file.parquet?problem=question&answer=solution|boxed`, see problems/adapters/. A row that can't be a problem is left out
and counted, up to a tenth of all; above that the source is refused: it is not what it was taken for.
"""

import json
import logging
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from pydantic import ValidationError

from chorus.problems.adapters.adapter import LEFT_OUT, Adapter, read_options
from chorus.problems.adapters.code_tests import tests_of
from chorus.problems.adapters.columns import Unusable, columns_of
from chorus.problems.adapters.mending import likely_mend, refusal, unknown_options
from chorus.problems.arithmetic import load_arithmetic
from chorus.problems.identity import id_of_row, merge
from chorus.problems.readers import Row, open_rows, too_much
from chorus.problems.reasoning_gym import load_gym
from chorus.protocol.graders import NO_ROWS, RowNeeds
from chorus.protocol.messages import Problem
from chorus.protocol.reasoning_gym import PREFIX as GYM

HOPELESS = 1000  # rows after which a source of which nothing can be used is not read on
SHOWN = 3
KEPT_FAULTS = 100  # of unusable rows, for the words of a refusal
log = logging.getLogger("chorus.problems")


@dataclass(frozen=True)
class Placed:
    """A problem, where it stands (`file:line`), and the row that it was read from, all columns kept."""

    where: str
    problem: Problem
    row: dict[str, Any]


@dataclass
class Loaded:
    """The usable rows of a source, and how many others it has, by what is wrong with them. `first`: the first three
    of the usable ones, repeated or not."""

    placed: list[Placed] = field(default_factory=list)
    rows: int = 0
    first: list[Placed] = field(default_factory=list)
    unusable: Counter[str] = field(default_factory=Counter)

    @property
    def usable(self) -> int:
        return self.rows - sum(self.unusable.values())


class Refused(ValueError):
    """Too many rows can't be used. `loaded`: what there is."""

    def __init__(self, message: str, loaded: Loaded) -> None:
        super().__init__(message)
        self.loaded = loaded


def load_problems(spec: str, needs: RowNeeds = NO_ROWS) -> list[Problem]:
    """All problems of a source, in its order, each with the columns that the run's own graders need of it. Rows that
    repeat another one are left out, and counted.

    Raises ValueError for a spec, a file or a row that cannot be used, and ImportError where a reader is not
    installed.
    """
    loaded = load_source(spec, needs, keep_rows=False)
    return merge((placed.problem for placed in loaded.placed), spec, loaded.usable - len(loaded.placed))


def load_placed(spec: str, needs: RowNeeds = NO_ROWS) -> list[Placed]:
    """All usable rows of a source with their places; raises as `load_problems` does."""
    return load_source(spec, needs).placed


def load_source(spec: str, needs: RowNeeds = NO_ROWS, keep_rows: bool = True) -> Loaded:
    """All usable rows of a source, and what is left out of it; raises as `load_problems` does.

    keep_rows: without them a set that holds each problem a hundred times takes a hundredth of the memory.
    """
    if spec.startswith("arithmetic:"):
        placed = _generated(load_arithmetic(spec), spec, needs)
        loaded = Loaded(placed, len(placed), placed[:SHOWN])
    elif spec.startswith(GYM):
        placed = _generated(load_gym(spec), spec, needs)
        loaded = Loaded(placed, len(placed), placed[:SHOWN])
    else:
        loaded = _read(spec, needs, keep_rows)
    if not loaded.placed:
        left = f": `where` leaves none of its {loaded.rows:,} rows" if loaded.rows else ""
        raise ValueError(f"problems {spec!r}: the source is empty{left}; a run needs at least one problem")
    return loaded


def _generated(problems: list[Problem], spec: str, needs: RowNeeds) -> list[Placed]:
    placed = []
    for number, problem in enumerate(problems, 1):
        where, row = f"{spec} number {number}", problem.model_dump(exclude_none=True)
        answer = {"answer": problem.answers[0]} if problem.answers else {}
        columns = _columns(where, needs, problem.kind, answer | row)
        placed.append(Placed(where, problem.model_copy(update={"row": columns}) if columns else problem, row))
    return placed


def _columns(where: str, needs: RowNeeds, kind: str, row: dict[str, Any]) -> str | None:
    try:
        return needs.row(kind, row)
    except ValueError as error:
        raise ValueError(f"problems {where}: {error}") from None


def _read(spec: str, needs: RowNeeds, keep_rows: bool) -> Loaded:
    source, _, query = spec.partition("?")
    adapter, options = read_options(spec, query)
    rows, further = open_rows(source, options)
    if options:
        raise ValueError(unknown_options(spec, list(options), further))
    return _loaded(rows, spec, adapter, needs, keep_rows)


def _loaded(rows: Iterable[Row], spec: str, adapter: Adapter, needs: RowNeeds, keep_rows: bool) -> Loaded:
    """Rows to problems; refuses an id that two rows bring (the template draw and pass rates go by id), and a source of
    which too much can't be used."""
    source = spec.partition("?")[0]
    loaded = Loaded()
    places: dict[str, str] = {}
    faults: list[tuple[str, Unusable]] = []
    first: Any = None
    for where, row in rows:
        loaded.rows += 1
        first = row if first is None else first
        try:
            problem = _problem(where, row, source, adapter, needs)
        except RecursionError as error:
            raise ValueError(too_much(where, error)) from None
        except Unusable as fault:
            loaded.unusable[fault.reason] += 1
            if len(faults) < KEPT_FAULTS and fault.reason != LEFT_OUT:
                faults.append((where, fault))
            if loaded.rows == HOPELESS and loaded.usable == 0 and loaded.unusable[LEFT_OUT] == 0:
                break
            continue
        if (again := problem.id in places) and problem.id != id_of_row(source, row):
            raise ValueError(
                f"problems {where}: id {problem.id!r} is also at {places[problem.id]}; make the ids unique, or leave "
                "them out with `id=`"
            )
        places.setdefault(problem.id, where)
        placed = Placed(where, problem, row if keep_rows else {})
        if len(loaded.first) < SHOWN:
            loaded.first.append(placed)
        if keep_rows or adapter.seed is not None or not again:
            loaded.placed.append(placed)
        if adapter.seed is None and loaded.usable == adapter.rows:
            break
    _judge(spec, adapter, loaded, faults, first)
    if adapter.rows is not None and (surplus := loaded.usable - adapter.rows) > 0:
        drawn = sorted(Random(adapter.seed).sample(range(loaded.usable), adapter.rows))
        loaded.placed = [loaded.placed[k] for k in drawn]
        loaded.first = loaded.placed[:SHOWN]
        loaded.unusable["not drawn"] = surplus
    return loaded


def _judge(spec: str, adapter: Adapter, loaded: Loaded, faults: Sequence[tuple[str, Unusable]], first: Any) -> None:
    """Raises Refused where more rows than the share can't be used; else says how many are left out."""
    counts = Counter({reason: n for reason, n in loaded.unusable.items() if reason != LEFT_OUT})
    bad, of = sum(counts.values()), sum(counts.values()) + loaded.usable
    if not bad:
        return
    what = refusal(counts, of, faults)
    if bad <= adapter.unusable * of:
        log.warning("problems %s: left out: %s", spec, what)
        return
    row = first if isinstance(first, dict) else {}
    mend = likely_mend(spec, adapter, {} if loaded.placed else row, [fault for _, fault in faults])
    if not mend and loaded.placed:
        mend = f"leave them out with `unusable={math.ceil(100 * bad / of) / 100:g}`, or mend the rows"
    mend = mend or f"the row has {columns_of(row)}; name its columns with `?problem=...&answer=...`"
    raise Refused(f"problems {spec!r}: {what}; {mend}", loaded)


def _problem(where: str, row: Any, source: str, adapter: Adapter, needs: RowNeeds) -> Problem:
    as_read = row
    if isinstance(row, list) and adapter.columns:  # of conversations: the turns
        row = {str(k): item for k, item in enumerate(row)}
    if not isinstance(row, dict):
        mend = "; name its items, as in `?problem=0.value&answer=1.value`" if isinstance(row, list) else ""
        raise ValueError(
            f"problems {where}: a row must be an object with `problem` and `answer`, not {row!r:.60}{mend}"
        )
    try:
        if not adapter.takes(row):
            raise Unusable(LEFT_OUT, "`where` leaves it out")
        found = adapter.fields(row)
    except Unusable:
        raise
    except ValueError as error:
        raise ValueError(f"problems {where}: {error}") from None
    kind = found["kind"]
    if kind not in needs.kinds:
        raise ValueError(
            f"problems {where}: kind: {kind!r:.60} is graded by nobody here; give one of {', '.join(needs.kinds)}, or "
            "name a grader of yours so in [[reward.graders]]"
        )
    # What users' own graders ask for is the row as it is; under a field's name, what the source names for it.
    named = {key: found[key] for key in adapter.columns if key in found}
    named |= {"answer": found["answers"][0]} if "answer" in adapter.columns and found["answers"] else {}
    fields = found | {
        "id": id_of_row(source, as_read) if found["id"] in (None, "") else str(found["id"]),
        "tests": _tests(where, found["tests"]) if kind == "code" else None,
        "row": _columns(where, needs, kind, row | named),
    }
    for name, value in fields.items():
        _check_text(where, name, value)
    try:
        return Problem.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"problems {where}: {at}: {first['msg']}; mend this row") from error


def _tests(where: str, given: Any) -> str:
    """As JSON."""
    try:
        tests = tests_of(given)
    except ValueError as error:
        raise ValueError(f"problems {where}: {error}") from None
    _check_text(where, "tests", tests)
    return json.dumps(tests)


def _check_text(where: str, column: str, value: Any) -> None:
    """JSON can say half of a surrogate pair (`"\\ud83d"`), which no tokenizer takes and no file can hold."""
    if value is None or isinstance(value, int):
        return
    try:
        (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)).encode()
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])[1:-1]
        raise ValueError(
            f"problems {where}: {column} holds {half}, half of a surrogate pair, which is no character; write the "
            "whole character, or remove the row"
        ) from None
