"""What would be trained on: a source's rows, what can't be used, and three problems as the model will see them.

SOURCE is written as in a recipe, and needs no model. --recipe or --model add lengths in tokens and whole prompts,
--against or --data what a test set shares with it. --filter, --open and --shuffle change what is shown, and what
--write writes. Exit status: 0, or 3 where the source is refused.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from chorus.cli.data.reshape import Reshaped, Wishes, reshape, write
from chorus.cli.data.target import check_new
from chorus.problems.adapters.mending import instructions
from chorus.problems.filters import FILTERS
from chorus.problems.overlap import find_overlaps
from chorus.problems.sources import Loaded, Placed, Refused, load_placed, load_source
from chorus.protocol.graders import NO_ROWS
from chorus.protocol.runtime.command_line import PATH, command, option
from chorus.protocol.runtime.exits import CANNOT_GO_ON, CannotGoOn
from chorus.protocol.runtime.logs import last_word

BARS = "▁▂▃▄▅▆▇█"
SHOWN = 8  # levels, domains: the most frequent ones
MOST_LETTERS = 1500  # of a problem that is shown


@command(
    "data",
    help=__doc__,
    examples=[
        "chorus data 'gsm8k.parquet?preset=gsm8k'",
        "chorus data 'my.jsonl?problem=question&answer=answer|after:####' --recipe my.toml",
        "chorus data 'hub:openai/gsm8k?config=main&preset=gsm8k' --data FOLDER --json",
        "chorus data 'mmlu.parquet?preset=mmlu' --filter all --open --write mmlu_open.jsonl",
    ],
)
@click.argument("source", metavar="SOURCE")
@option("--json", "as_json", is_flag=True, help="print rows, usable, unusable and examples as JSON")
@option("--against", several=True, metavar="TEST...", help="sources of which it should hold nothing")
@option(
    "--data", type=PATH, metavar="FOLDER", help="the files of a suite's benchmarks, of which it should hold nothing"
)
@option("--suite", default="math", help="with --data: which benchmarks, a name or a .toml file")
@option("--recipe", type=PATH, metavar="FILE", help="count tokens with its model, under its templates")
@option("--model", metavar="FOLDER", help="count tokens with this model: a folder, or a name on the hub")
@option("--templates", several=True, metavar="NAME...", help="with --model: under these templates (default: qwen-math)")
@option("--filter", "filters", several=True, metavar="NAME...", help=f"leave out: {', '.join(FILTERS)}, or all")
@option("--open", "opened", is_flag=True, help="multiple choice as open questions, where the question allows it")
@option("--shuffle", type=int, metavar="SEED", help="the options of multiple choice in another order")
@option("--write", "written", type=PATH, metavar="FILE", help="write these problems (.jsonl or .jsonl.gz)")
def main(
    source: str,
    as_json: bool,
    against: tuple[str, ...],
    data: Path | None,
    suite: str,
    recipe: Path | None,
    model: str | None,
    templates: tuple[str, ...],
    filters: tuple[str, ...],
    opened: bool,
    shuffle: int | None,
    written: Path | None,
) -> int:
    check_new(written)
    if recipe is not None and model is not None:
        raise CannotGoOn("--recipe and --model both name a model; give one of them")
    prompts, wishes = _prompts(recipe, model, templates), Wishes.of(filters, opened, shuffle)
    try:
        loaded = load_source(wishes.spec(source), prompts.needs if prompts else NO_ROWS, keep_rows=False)
    except Refused as refused:
        if as_json:
            print(json.dumps(_facts(refused.loaded), ensure_ascii=False, indent=2))
        last_word(f"chorus data: {refused}")
        return CANNOT_GO_ON
    except (OSError, ValueError, ImportError) as error:
        raise CannotGoOn(str(error)) from None
    done = reshape(loaded, wishes)
    tests = _load([*against, *_suite(suite, data)])
    facts = _facts(loaded) | _changes(loaded, wishes, done)
    texts = [placed.problem.problem for placed in loaded.placed]
    if prompts:
        facts["tokens"] = prompts.lengths(texts)
    if tests:
        facts["shared"] = _shared(loaded.placed, tests)
    for note in _notes(loaded):
        print(f"note: {note}", file=sys.stderr)
    print(json.dumps(facts, ensure_ascii=False, indent=2) if as_json else _text(source, loaded, facts, prompts))
    if written is not None:
        write(written, loaded.placed, done)
    return os.EX_OK


def _changes(loaded: Loaded, wishes: Wishes, done: Reshaped) -> dict[str, Any]:
    if wishes == Wishes():
        return {}
    return {"filtered": dict(done.left_out), "opened": done.opened, "left": len(loaded.placed)}


def _facts(loaded: Loaded) -> dict[str, Any]:
    """As --json prints them."""
    return {
        "rows": loaded.rows,
        "usable": loaded.usable,
        "unusable": dict(loaded.unusable.most_common()),
        "examples": [
            placed.problem.model_dump(include={"id", "problem", "answers", "level", "domain"})
            for placed in loaded.first
        ],
    }


class Prompts:
    """The model's tokenizer and the templates that problems would be asked under."""

    def __init__(self, recipe: Path | None, model: str | None, names: Sequence[str]) -> None:
        from chorus.cli.evaluate.model import CACHE, find_model
        from chorus.problems.rendering import Renderer, load_tokenizer
        from chorus.protocol.config.load import load_config
        from chorus.protocol.templates.load import choose_templates
        from chorus.starter.resolve import resolve

        config = load_config(recipe) if recipe else None
        self.needs = config.reward.row_needs if config else NO_ROWS
        self.limit = config.problems.max_prompt_tokens if config else None
        files = [Path(file) for file in config.templates.files] if config else []
        chosen = list(names) or (list(config.templates.names) if config else ["qwen-math"])
        self.templates = choose_templates(chosen, files, "--templates" if names else "templates.names")
        path = resolve(config, CACHE) if config else find_model(model or "", "last", chosen[0]).path
        tokenizer = load_tokenizer(path)
        chat = config.templates.chat if config else "model" if tokenizer.chat_template else "chatml"
        self.renderer = Renderer(tokenizer, chat, config.templates.chat_arguments if config else {})

    def lengths(self, texts: Sequence[str]) -> dict[str, list[int]]:
        """Of every problem's prompt, by template."""
        return {
            name: [len(self.renderer.ids(template, text)) for text in texts]
            for name, template in self.templates.items()
        }

    def first(self, text: str) -> str:
        """The whole prompt under the first template."""
        return self.renderer.text(next(iter(self.templates.values())), text)


def _prompts(recipe: Path | None, model: str | None, templates: Sequence[str]) -> Prompts | None:
    if recipe is None and model is None:
        if templates:
            raise CannotGoOn("--templates: name with --model the model whose tokens to count")
        return None
    return Prompts(recipe, model, templates)


def _suite(name: str, data: Path | None) -> list[str]:
    if data is None:
        return []
    from chorus.evaluation.suite import load_suite

    return [benchmark.source(data) for benchmark in load_suite(name).benchmark]


def _load(specs: Sequence[str]) -> dict[str, list[Placed]]:
    try:
        return {spec: load_placed(spec) for spec in specs}
    except (OSError, ValueError, ImportError) as error:
        raise CannotGoOn(str(error)) from None


def _shared(placed: Sequence[Placed], tests: dict[str, list[Placed]]) -> dict[str, dict[str, int]]:
    """By test set: how many of its problems the source holds, exactly or nearly, and how many only by their mould."""
    owner = {id(problem): spec for spec, problems in tests.items() for problem in problems}
    found = find_overlaps(placed, [problem for problems in tests.values() for problem in problems])
    held = {spec: {"problems": len(problems), "exact": 0, "near": 0, "variant": 0} for spec, problems in tests.items()}
    for where, kind in {(id(overlap.right), overlap.kind) for overlap in found}:
        held[owner[where]][kind] += 1
    return held


def _notes(loaded: Loaded) -> list[str]:
    """What is no fault of a row, and still looks wrong."""
    notes = []
    problems = [placed.problem for placed in loaded.placed]
    if held := instructions([problem.problem for problem in problems]):
        notes.append(f"the problems hold an instruction of their own, {held!r:.200}; cut it off with `cut=PATTERN`")
    golds = Counter(answer for problem in problems for answer in problem.answers)
    if len(problems) > 10 and len(golds) == 1:
        notes.append(f"every answer is {next(iter(golds))!r:.60}; is it the right column?")
    return notes


def _text(source: str, loaded: Loaded, facts: dict[str, Any], prompts: Prompts | None) -> str:
    problems = [placed.problem for placed in loaded.placed]
    different = len({problem.id for problem in problems})
    repeated = f", {different:,} of them different" if different < loaded.usable else ""
    lines = [source, "", f"{loaded.rows:,} rows, {loaded.usable:,} usable{repeated}"]
    lines += [f"  {n:>9,}  {reason}" for reason, n in loaded.unusable.most_common()]
    if "left" in facts:
        lines.append(f"{facts['left']:,} problems left, {facts['opened']:,} of them made open questions")
        lines += [f"  {n:>9,}  left out by {name}" for name, n in facts["filtered"].items()]
    lines += _counted("kinds", [problem.kind for problem in problems])
    lines += _counted("levels", [problem.level for problem in problems])
    lines += _counted("domains", [problem.domain for problem in problems])
    lines += ["", f"{'length of a problem':24}  {'least':>7} {'median':>7} {'90 %':>7} {'most':>7}"]
    lines.append(_histogram("characters", [len(problem.problem) for problem in problems]))
    for name, lengths in facts.get("tokens", {}).items():
        lines.append(_histogram(f"tokens, {name}", lengths))
        if prompts and prompts.limit and (long := sum(length > prompts.limit for length in lengths)):
            lines.append(f"  {long:,} are longer than problems.max_prompt_tokens = {prompts.limit}, and left out")
    if "shared" in facts:
        lines += ["", f"{'shared with':40} {'problems':>8} {'exact':>7} {'near':>7} {'variant':>7}"]
        lines += [f"{spec:40} " + _cells(counts) for spec, counts in facts["shared"].items()]
    for placed in loaded.first:
        problem = placed.problem
        text = prompts.first(problem.problem) if prompts else problem.problem
        level = f", level {problem.level}" if problem.level is not None else ""
        lines += ["", f"── {placed.where}  {problem.id}  ({problem.kind}{level})", text[:MOST_LETTERS]]
        lines.append(f"── answer: {' | '.join(problem.answers) or 'tests'}")
    return "\n".join(lines)


def _counted(title: str, values: Sequence[Any]) -> list[str]:
    """A line of the most frequent ones; none where nothing has a value."""
    counts = Counter("none" if value is None else str(value) for value in values)
    if set(counts) == {"none"}:
        return []
    shown = [f"{value} {n:,}" for value, n in counts.most_common(SHOWN)]
    more = [f"and {len(counts) - SHOWN} more"] if len(counts) > SHOWN else []
    return [f"{title:10} " + ", ".join(shown + more)]


def _histogram(title: str, lengths: Sequence[int]) -> str:
    ordered = sorted(lengths)
    least, most = ordered[0], ordered[-1]
    bins = Counter(min(11, (length - least) * 12 // max(1, most - least)) for length in ordered)
    bars = "".join(BARS[bins[k] * 7 // max(bins.values())] if bins[k] else " " for k in range(12))
    marks = (least, ordered[len(ordered) // 2], ordered[len(ordered) * 9 // 10], most)
    return f"{title:24}  " + " ".join(f"{mark:>7,}" for mark in marks) + f"  {bars}"


def _cells(counts: dict[str, int]) -> str:
    return f"{counts['problems']:>8,} " + " ".join(f"{counts[kind]:>7,}" for kind in ("exact", "near", "variant"))
