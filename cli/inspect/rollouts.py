"""A run's answers in the terminal, by the filters of `chorus view`; or what DuckDB says to SQL over `rollouts`.

A number may be a range: `--step 5:50`, `--reward :1`, `--staleness 2:`. Several values follow one option.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.command_line import PATH, command, option
from chorus.protocol.runtime.exits import CannotGoOn

_SHOWN = ("step", "group", "sample", "template", "problem_id", "verdict", "reward", "staleness", "tokens")
_TEXT_CHARS = 100


def _filter(name: str, help: str) -> Any:
    return option(f"--{name}", name, several=True, metavar="VALUE", help=help, section="Filters")


@command(
    "rollouts",
    help=__doc__,
    examples=[
        "chorus rollouts RUN --step 5 50 --problem apples/1",
        "chorus rollouts RUN --verdict no_answer --q box --sort -step --limit 5 --full",
        "chorus rollouts RUN --sql 'SELECT template, avg(format) FROM rollouts GROUP BY 1 ORDER BY 2'",
        "chorus rollouts RUN --staleness 2: --export old.parquet",
    ],
)
@click.argument("run", type=PATH, help="a run's folder, finished or still running")
@_filter("step", "a number or a range")
@_filter("template", "its name")
@_filter("verdict", "correct, wrong, no_answer, timeout, error")
@_filter("level", "of the problem")
@_filter("domain", "of the problem")
@_filter("problem", "its id")
@_filter("hint", "share of the solution that was given")
@_filter("staleness", "in steps")
@_filter("generator", "its id")
@_filter("length", "in tokens")
@_filter("reward", "composed")
@_filter("format", "0 to 1")
@_filter("truncated", "true or false")
@_filter("disputed", "true: a second opinion differs")
@_filter("greedy", "true or false: whether it was sampled at temperature 0")
@_filter("q", "words that the text holds")
@option("--of", default="", metavar="EVALUATION", help="answers of an evaluation instead: before, after, step-000100")
@option("--sort", default="", metavar="COLUMN", help="-COLUMN for the largest first (default: the newest first)")
@option("--limit", type=click.IntRange(0, 1000), default=20, help="rows to print")
@option("--offset", type=click.IntRange(0), default=0, help="rows to pass over")
@option("--full", is_flag=True, help="print whole texts")
@option("--json", "as_json", is_flag=True, help="print what GET /api/rollouts gives")
@option("--sql", metavar="QUERY", help="ask DuckDB instead; it sees `rollouts` and no other file")
@option("--export", type=PATH, metavar="FILE", help="write all that the filters let through: .parquet or .jsonl")
@option("--convert", is_flag=True, help="write the shards of an older run as Parquet; they go when that reads the same")
def main(
    run: Path,
    of: str,
    sort: str,
    limit: int,
    offset: int,
    full: bool,
    as_json: bool,
    sql: str | None,
    export: Path | None,
    convert: bool,
    **filters: tuple[str, ...],
) -> int:
    from chorus.viewer.queries import BadFilter, question
    from chorus.viewer.store import Rollouts, TooMuch

    folder = RunFolder(run).existing()
    if convert:
        return _convert(folder)
    if of and not folder.evaluated(of).is_file():
        kept = sorted(path.stem for path in folder.evaluated("").parent.glob("*.parquet"))
        raise CannotGoOn(f"--of {of}: {run} keeps no answers of it; there are {', '.join(kept) or 'none'}")
    store = Rollouts(folder, of)
    try:
        if sql is not None:
            _print_rows(store.read(sql), as_json)
            return os.EX_OK
        asked = question({name: list(values) for name, values in filters.items()}, sort)
        if export is not None:
            return _export(store, asked, export)
        page = store.page(asked, limit, offset)
    except BadFilter as error:
        raise CannotGoOn(f"--{error}") from None
    except TooMuch as error:
        raise CannotGoOn(f"{run}: {error}") from None
    for name, why in page["damaged"].items():
        print(f"{name} is left out: {why}", file=sys.stderr)
    if as_json:
        print(json.dumps(page, ensure_ascii=False))
    else:
        _print_page(page, full)
    return os.EX_OK


def _print_page(page: dict[str, Any], full: bool) -> None:
    for row in page["rollouts"]:
        facts = "  ".join(f"{name} {_short(row[name])}" for name in _SHOWN if row[name] is not None)
        text = row["text"] or ""
        print(facts)
        print(*(f"    {_plain(line)}" for line in text.split("\n")) if full else [f"    {_one_line(text)}"], sep="\n")
    print(f"{len(page['rollouts']):,} of {page['total']:,}")


def _print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, ensure_ascii=False, default=str))
        return
    if rows:
        print("\t".join(rows[0]))
    for row in rows:
        print("\t".join(_one_line(_short(value)) for value in row.values()))


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(text: str) -> str:
    """Without what would move a terminal's cursor."""
    return "".join(c if c.isprintable() else "·" for c in text)


def _one_line(text: str) -> str:
    plain = _plain(text.replace("\n", "␤"))
    return plain if len(plain) <= _TEXT_CHARS else plain[: _TEXT_CHARS - 1] + "…"


def _export(store: Any, asked: Any, target: Path) -> int:
    if target.suffix == ".parquet":
        store.export(asked, target)
    elif target.suffix == ".jsonl":
        from chorus.protocol.run_folder.files import write_lines
        from chorus.viewer.app import MOST_EXPORTED

        write_lines(target, store.page(asked, MOST_EXPORTED, 0)["rollouts"])
    else:
        raise CannotGoOn(f"--export {target}: what is written is Parquet or JSON lines; name it .parquet or .jsonl")
    print(target)
    return os.EX_OK


def _convert(run: RunFolder) -> int:
    """Each shard goes only when what was written in its place reads the same."""
    from chorus.protocol.run_folder.older import convert, reading_of
    from chorus.protocol.run_folder.rollouts import UNREADABLE, parts, step_file

    try:
        reading = reading_of(run)
    except CannotGoOn as error:
        print(f"without texts: {error}", file=sys.stderr)
        reading = None
    older = [part for part in parts(run) if not part.is_parquet]
    for part in older:
        try:
            convert(part, step_file(run, part.first), reading)
        except UNREADABLE as error:
            raise CannotGoOn(f"{part.path}: can't be read ({error}); put it back from a copy") from None
        part.path.unlink()
    print(f"{run.path}: {len(older)} steps converted")
    return os.EX_OK
