"""List the templates, show what a model sees, try a text against a contract.

NAME is a template's name, or the path of a template's own file, which need not be anywhere else.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from chorus.protocol.runtime.command_line import PATH, Group, option
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.templates.load import choose_templates, known_templates
from chorus.protocol.templates.score import contract_faults, format_score, marker_counts
from chorus.protocol.templates.template import Template, as_jinja, render_chatml

FAULTS = 1  # exit status of `try` for a text that the contract does not pay in full


files_option = option("--files", type=PATH, several=True, metavar="PATH...", help="more templates: files or folders")
name_argument = click.argument("name", help="a template's name, or its file")


@click.group(
    "templates",
    cls=Group,
    invoke_without_command=True,
    help=__doc__,
    examples=[
        "chorus templates --files my_templates",
        'chorus templates show my_templates/terse.toml --problem "What is 3 + 4?"',
        "chorus templates try my_templates/terse.toml --completion answer.txt --gold 7",
    ],
)
@files_option
@click.pass_context
def main(context: click.Context, files: tuple[Path, ...]) -> int:
    if context.invoked_subcommand is None:
        _list(_known(files))
    context.obj = files
    return os.EX_OK


@main.command("show")
@name_argument
@option("--problem", required=True, metavar="TEXT")
@option("--model", metavar="FOLDER", help="in this model's own chat format, and as its tokens")
@files_option
@click.pass_obj
def _show_command(above: tuple[Path, ...], name: str, problem: str, model: str | None, files: tuple[Path, ...]) -> int:
    """Show the prompt, exactly as the model sees it."""
    template, _ = _find(name, (*above, *files))
    _show(template, problem, model)
    return os.EX_OK


@main.command("jinja")
@name_argument
@files_option
@click.pass_obj
def _jinja_command(above: tuple[Path, ...], name: str, files: tuple[Path, ...]) -> int:
    """Print the template as a chat template (ChatML), to serve a policy with: `vllm serve ... --chat-template FILE`."""
    template, _ = _find(name, (*above, *files))
    _write(as_jinja(template))
    return os.EX_OK


@main.command("try")
@name_argument
@option("--completion", required=True, metavar="FILE", help="the text after the prompt; - reads stdin")
@option("--gold", metavar="ANSWER", help="grade the answer, too")
@files_option
@click.pass_obj
def _try_command(above: tuple[Path, ...], name: str, completion: str, gold: str | None, files: tuple[Path, ...]) -> int:
    """Grade a text against the template's contract, marker by marker."""
    template, places = _find(name, (*above, *files))
    return _try(template, places, _read(completion), gold)


def _known(files: Sequence[Path]) -> dict[str, Template]:
    try:
        return known_templates(files)
    except (OSError, ValueError) as error:
        raise CannotGoOn(str(error)) from None


def _find(name: str, files: Sequence[Path]) -> tuple[Template, list[Path]]:
    """The template, and the files that a grader of it must read beside the package's own."""
    places = list(files)
    if name.endswith(".toml"):
        places.append(Path(name))
        name = Path(name).stem
    return choose_templates([name], places, "NAME")[name], places


def _list(templates: dict[str, Template]) -> None:
    table = Table()
    for column in ("name", "category", "contract", "markers", "opens the answer with", "answer"):
        table.add_column(column)
    for t in templates.values():
        markers = " ".join(map(_visible, t.markers)) or "none"
        table.add_row(
            t.name, t.category, t.contract if t.markers else "-", markers, _visible(t.prefill), t.answer_place
        )
    Console(markup=False).print(table)


def _show(template: Template, problem: str, model: str | None) -> None:
    if model is None:
        _write(render_chatml(template, problem))
        return
    from chorus.problems.rendering import Renderer, load_tokenizer

    tokenizer = load_tokenizer(model)
    renderer = Renderer(tokenizer, "model" if tokenizer.chat_template else "chatml")
    _write(renderer.text(template, problem))
    ids = renderer.ids(template, problem)
    pieces = " ".join(_visible(str(tokenizer.decode([token]))) for token in ids)
    print(f"\n{len(ids)} tokens in the format {renderer.chat!r}: {pieces}", file=sys.stderr)


def _write(prompt: str) -> None:
    """To the last character: only a terminal gets a line break more."""
    sys.stdout.write(prompt + ("\n" if sys.stdout.isatty() and not prompt.endswith("\n") else ""))
    sys.stdout.flush()


def _try(template: Template, places: list[Path], completion: str, gold: str | None) -> int:
    if template.prefill and completion.startswith(template.prefill):
        print(
            f"note: the text begins with {_visible(template.prefill)}, which is the prompt's end and not part of a "
            "completion; it is graded as it stands",
            file=sys.stderr,
        )
    counts = {} if template.contract == "interleaved" else marker_counts(template, completion)
    for marker, n in counts.items():
        print(f"{'ok    ' if n == 1 else 'missed'}  {_visible(marker)}  {_times(n)}")
    if not template.markers:
        print("no markers: every text has the full format score")
    elif template.contract != "count":
        for fault in [] if any(n != 1 for n in counts.values()) else contract_faults(template, completion):
            print(f"missed  {fault}")
    score = format_score(template, completion)
    paid = f"{sum(n == 1 for n in counts.values())} of {len(counts)} markers occur exactly once, " if counts else ""
    print(f"format  {score:.4g}  ({paid}contract {template.contract})")
    if gold is not None:
        asyncio.run(_grade(template, places, completion, gold))
    return os.EX_OK if score == 1.0 else FAULTS


async def _grade(template: Template, places: list[Path], completion: str, gold: str) -> None:
    from chorus.cli.evaluate.grading import local_grading

    async with local_grading(templates=places) as grading:
        grade = await grading.explain({"completion": completion, "gold": gold, "template": template.name})
    reasons = "; ".join(c["reason"] for c in grade["comparisons"] if c.get("reason"))
    print(f"answer  {grade['verdict']}: {grade['extracted']!r} against {gold!r}{f' ({reasons})' if reasons else ''}")
    print(f"reward  {grade['reward']}")


def _read(place: str) -> str:
    """Byte by byte as it is: a marker may end with a line break."""
    try:
        data = sys.stdin.buffer.read() if place == "-" else Path(place).read_bytes()
        return data.decode("utf-8")
    except OSError as error:
        raise CannotGoOn(f"--completion {place}: {error.strerror}; give a text file, or - for stdin") from None
    except UnicodeDecodeError as error:
        raise CannotGoOn(f"--completion {place}: not UTF-8 (byte {error.start}); save it as UTF-8") from None


def _times(n: int) -> str:
    return "occurs once" if n == 1 else f"occurs {n} times; once is paid" if n else "does not occur"


def _visible(text: str) -> str:
    """With its line breaks to be seen."""
    return text.replace("\n", "⏎")
