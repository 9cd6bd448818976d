"""What training has changed: sharper on the problems that the base solves, or solving more.

Both models answer the same problems at twelve temperatures (the decomposition of arXiv 2505.22756), and with a plan,
known facts or subproblems where --annotations has some (SPARKLE's axes, arXiv 2506.04723). Writes analysis.json,
report.html and report.md. Stopped and asked again, it goes on where it was.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

from chorus.cli.evaluate.engine import engine_config, started_vllm
from chorus.cli.evaluate.grading import local_grading
from chorus.cli.evaluate.model import Model, find_model
from chorus.deploy.placement import visible_cores, visible_gpus
from chorus.evaluation.analyses.analysis import MODELS, Asked, figures, ways
from chorus.evaluation.analyses.annotations import Annotation, read_annotations
from chorus.evaluation.analyses.decomposition import SAMPLES, TEMPERATURES
from chorus.evaluation.records import Spec, Store
from chorus.evaluation.runner import Engine, Grading, Question, answer_all, check_room, digests
from chorus.evaluation.suite import read_problems
from chorus.generator.engine import EngineError
from chorus.problems.rendering import Renderer, load_tokenizer
from chorus.protocol.run_folder.files import write_json
from chorus.protocol.runtime.command_line import PATH, command, option
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.templates.decoding import CompletionDecoder
from chorus.protocol.templates.load import choose_templates

STOPPED = 130
AXIS_SAMPLES = 8  # SPARKLE's avg@8
_HEATS = ",".join(f"{heat:g}" for heat in TEMPERATURES)


@command(
    "analyse",
    help=__doc__,
    examples=[
        "chorus analyse starter runs/my-run --problems 'arithmetic:chain?split=heldout' --out runs/analysis",
        "chorus analyse BASE TRAINED --problems aime.jsonl --annotations aime_notes.jsonl --out runs/analysis",
    ],
)
@click.argument("base", help="a Hugging Face folder or hub name, a run's folder, `smollm2` or `starter`")
@click.argument("trained", help="the same")
@option("--problems", required=True, metavar="SOURCE", help="a problem source, as in a recipe")
@option("--annotations", type=PATH, metavar="FILE", help="plans, facts and subproblems (docs/analyses.md)")
@option("--out", type=PATH, required=True, metavar="FOLDER", help="answers and pages")
@option("--base-checkpoint", default="start", help="of a run's folder as BASE: start, last, selected, or a step")
@option("--checkpoint", default="last", help="of a run's folder as TRAINED")
@option("--limit", type=int, metavar="N", help="the first N problems")
@option("--samples", type=int, default=SAMPLES, metavar="N", help="answers a problem at each temperature")
@option("--temperatures", default=_HEATS, metavar="T,T,...", help="of the decomposition")
@option("--at", type=float, default=1.0, metavar="T", help="the temperature that is decomposed: one of these")
@option("--axis-samples", type=int, default=AXIS_SAMPLES, metavar="N", help="answers a problem on SPARKLE's axes")
@option("--axis-temperature", type=float, default=0.6, metavar="T", help="of these")
@option("--max-tokens", type=int, default=3000, help="of an answer, where the context has room")
@option("--context", type=int, help="prompt and answer together (default: the run's, or at most 4096)")
@option("--template", default="qwen-math", help="the one template of all problems")
@option("--template-files", type=PATH, several=True, metavar="FILE...", help="templates beside the package's")
@option("--chat", default="chatml", metavar="FORMAT", help="as templates.chat: chatml, model or FILE.jinja")
@option("--mode", type=click.Choice(["strict", "paper", "train"]), default="strict", help="of the grader")
@option("--seed", type=int, default=42, help="of vLLM and of the intervals")
@option("--dtype", type=click.Choice(["float32", "bfloat16"]), help="default: bfloat16 on GPUs, float32 on CPUs")
@option("--at-once", type=int, default=64, metavar="N", help="answers that vLLM works on at once")
@option("--kv-cache-gib", type=float, default=1.0, metavar="GIB", help="memory for keys and values on CPUs")
@option("--workers", type=int, default=1, help="grader processes")
@option("--deadline", type=float, default=3600.0, metavar="S", help="for one problem's answers")
def main(**options: Any) -> int:
    args = SimpleNamespace(**options)
    args.heats = _check(args)
    problems = read_problems(args.problems)[: args.limit]
    notes = read_annotations(args.annotations) if args.annotations else {}
    asked = ways(problems, notes, args.heats, args.samples, args.axis_samples, args.axis_temperature)
    try:
        asyncio.run(_ask_both(args, asked))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("chorus analyse: stopped; the same command goes on where it was", file=sys.stderr)
        return STOPPED
    except EngineError as error:
        raise CannotGoOn(f"{error}; give the same command again, which goes on where it was") from None
    return conclude(args, asked, notes)


def conclude(args: SimpleNamespace, asked: Sequence[Asked], notes: dict[str, Annotation]) -> int:
    """Figures and pages of the answers that are there."""
    from chorus.evaluation.analyses.page import write

    try:
        found = figures(args.out, asked, notes, args.at, args.seed)
    except ValueError as error:
        raise CannotGoOn(f"{args.out}: {error}; do the graders work? give the command again") from None
    write_json(args.out / "analysis.json", {"base": args.base, "trained": args.trained, **found})
    page, text = write(args.out, f"{args.trained} against {args.base}", found)
    print(f"{page}\n{text}\n{args.out / 'analysis.json'}")
    return os.EX_OK


def _check(args: SimpleNamespace) -> list[float]:
    try:
        heats = [float(part) for part in args.temperatures.split(",") if part.strip()]
    except ValueError:
        heats = []
    if not heats or min(heats) <= 0:
        raise CannotGoOn(f"--temperatures {args.temperatures}: give numbers above 0, with commas between them")
    if args.at not in heats:
        raise CannotGoOn(f"--at {args.at:g}: give one of --temperatures {args.temperatures}")
    for name in ("limit", "samples", "axis_samples", "max_tokens", "at_once", "workers"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise CannotGoOn(f"--{name.replace('_', '-')} {value}: give at least 1")
    return heats


@dataclass(frozen=True)
class Waiting:
    """One way of asking that has a folder: what it asks for."""

    folder: Path
    spec: Spec
    questions: list[Question]


async def _ask_both(args: SimpleNamespace, asked: Sequence[Asked]) -> None:
    task = asyncio.current_task()
    assert task
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    for name, named, checkpoint in zip(
        MODELS, (args.base, args.trained), (args.base_checkpoint, args.checkpoint), strict=True
    ):
        of_run = (Path(named) / "run.json").is_file()
        model = find_model(named, checkpoint if of_run else "last", args.template)
        renderer = Renderer(load_tokenizer(model.path), args.chat)
        await _ask_model(args, model, [_waiting(args, model, renderer, args.out / name, way) for way in asked])


def _waiting(args: SimpleNamespace, model: Model, renderer: Renderer, folder: Path, way: Asked) -> Waiting:
    template = choose_templates([args.template], args.template_files, "--template")[args.template]
    questions = [Question(way.name, problem, renderer.ids(template, problem.problem)) for problem in way.problems]
    problems, prompts = digests(questions)
    spec = Spec(
        model=str(model.name),
        weights=model.weights,
        suite=way.name,
        problems=problems,
        prompts=prompts,
        titles={way.name: way.name},
        expected={way.name: 0},
        template=args.template,
        decoding="sampled",
        n=way.samples,
        temperature=way.temperature,
        max_tokens=args.max_tokens,
        context=model.context(args.context),
        dtype=args.dtype or ("bfloat16" if visible_gpus() else "float32"),
        mode=args.mode,
        seed=args.seed,
        limit=args.limit,
        run=model.run.name if model.run else None,
        step=model.step,
    )
    check_room(questions, spec.context)
    return Waiting(folder / way.name, spec, questions)


async def _ask_model(args: SimpleNamespace, model: Model, waiting: Sequence[Waiting]) -> None:
    """One engine for all ways of asking, and none where every answer is there."""
    missing = [one for one in waiting if not _is_done(one)]
    if not missing:
        return
    gpus = visible_gpus()[:1]
    config = engine_config(model.path, missing[0].spec, args.at_once, args.kv_cache_gib, gpus, [])
    log = missing[0].folder.parent / "vllm.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    template = choose_templates([args.template], args.template_files, "--template")
    decoder = CompletionDecoder(load_tokenizer(model.path).backend_tokenizer, template.values())
    async with (
        started_vllm(config, log, visible_cores()) as engine,
        local_grading(args.workers, templates=list(args.template_files)) as grading,
    ):
        for one in missing:
            print(f"chorus analyse: {one.folder}", file=sys.stderr, flush=True)
            await answer(one, engine, grading, decoder, args.at_once, args.deadline)


async def answer(one: Waiting, engine: Engine, grading: Grading, decoder: Any, at_once: int, deadline_s: float) -> None:
    with Store(one.folder, one.spec) as store:
        many = max(1, at_once // one.spec.samples)
        await answer_all(
            one.spec,
            one.questions,
            store,
            engine,
            grading,
            decoder.decode_batch,
            many,
            deadline_s,
            lambda progress: None,
        )


def _is_done(one: Waiting) -> bool:
    if not (one.folder / "eval.json").is_file():
        return False
    with Store(one.folder, one.spec) as store:
        return len(store.done) == len(one.questions)
