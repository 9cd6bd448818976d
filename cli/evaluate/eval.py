"""What a model can do on benchmarks, through a vLLM started for it or a run's generators.

MODEL is a Hugging Face folder or hub name, a run's folder, `smollm2` or `starter`. Stopped and asked again, it goes on
where it was.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

from chorus.cli.evaluate.devices import device_groups
from chorus.cli.evaluate.engine import Spread, engine_config, started_vllm
from chorus.cli.evaluate.grading import local_grading
from chorus.cli.evaluate.model import Model, find_models
from chorus.cli.evaluate.options import answers, model_options, problems
from chorus.deploy.placement import visible_cores
from chorus.evaluation.curve import curve_table
from chorus.evaluation.fleet import Fleet, open_fleet
from chorus.evaluation.records import Spec, Store
from chorus.evaluation.runner import Engine, Progress, Question, answer_all, check_room, digests
from chorus.evaluation.suite import Benchmark, Suite, load_suite, read_problems
from chorus.evaluation.summary import summarize, table
from chorus.generator.engine import EngineError
from chorus.problems.hints import hinted
from chorus.problems.rendering import Renderer, load_tokenizer
from chorus.protocol.config.run import Gpu
from chorus.protocol.ledger import FencedError, LedgerLostError
from chorus.protocol.run_folder.demonstrations import step_of
from chorus.protocol.run_folder.files import read_json
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.identity import name_of
from chorus.protocol.runtime.command_line import PATH, command, option
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.runtime.redis import connect
from chorus.protocol.templates.decoding import CompletionDecoder
from chorus.protocol.templates.load import choose_templates

STOPPED = 130
_SAY_EVERY_S = 10.0


@command(
    "eval",
    help=__doc__,
    examples=[
        "chorus eval Qwen/Qwen2.5-Math-1.5B --suite math --data FOLDER",
        'chorus eval runs/my-run --problems "arithmetic:chain?split=heldout" --samples 16',
        "chorus eval runs/my-run --checkpoint selected --suite math --data FOLDER",
        "chorus eval runs/my-run --checkpoint all --suite math --data data/math",
    ],
)
@model_options
@problems("--suite", default="math", help="a suite's name or a .toml file")
@problems("--benchmarks", metavar="A,B", help="only these benchmarks of the suite")
@problems("--problems", metavar="SOURCE", help="instead of a suite: one source, as in a recipe")
@answers("--runs", type=int, metavar="N", help="greedy: the mean of N runs (default: 5)")
@answers("--samples", type=int, metavar="N", help="sampled instead: N answers a problem, with avg@N, pass@k, maj@k")
@answers("--mode", type=click.Choice(["strict", "paper", "train"]), default="strict", help="of the grader")
@option("--out", type=PATH, metavar="FOLDER", help="results (default: runs/evals/..., or the run's own evals/...)")
def main(**options: Any) -> int:
    return evaluate(SimpleNamespace(**options))


def evaluate(args: SimpleNamespace) -> int:
    _check(args)
    models = find_models(args.model, "start" if args.running else args.checkpoint, args.template)
    if len(models) > 1 and args.out is not None:
        raise CannotGoOn("--out is for one checkpoint; leave it out, or name a step with --checkpoint")
    try:
        return asyncio.run(_evaluate(args, models))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("chorus eval: stopped; the same command goes on where it was", file=sys.stderr)
        return STOPPED
    except (EngineError, LedgerLostError, FencedError) as error:
        raise CannotGoOn(f"{error}; give the same command again, which goes on where it was") from None


def _check(args: SimpleNamespace) -> None:
    if args.runs is not None and args.samples is not None:
        raise CannotGoOn("--runs is for greedy answers and --samples for sampled ones; give one of them")
    for name in ("runs", "samples", "limit", "max_tokens", "at_once", "workers", "tensor_parallel"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise CannotGoOn(f"--{name.replace('_', '-')} {value}: give at least 1")
    if args.running and not (Path(args.model) / "run.json").is_file():
        raise CannotGoOn(
            f"--running: {args.model} is no run's folder; give that of the run whose generators shall answer"
        )
    if args.running and args.checkpoint != "last":
        raise CannotGoOn("--running asks for the weights that the generators hold; leave out --checkpoint or --running")
    if not 0 <= args.hint_ratio < 1:
        raise CannotGoOn(f"--hint-ratio {args.hint_ratio:g}: give a share of the solution, from 0 to below 1")
    if (args.samples or 0) > 1024:
        raise CannotGoOn(
            f"--samples {args.samples}: give at most 1024, as many as are compared with each other at once"
        )
    if not 0 < args.top_p <= 1:
        raise CannotGoOn(
            f"--top-p {args.top_p:g}: give the share of the probability to draw from, above 0 and at most 1"
        )
    if args.samples is not None and args.temperature <= 0:
        raise CannotGoOn(
            "--temperature: sampled answers need one above 0; give one, or --runs in the place of --samples"
        )


def _suite(args: SimpleNamespace) -> tuple[str, Suite, dict[str, str]]:
    """Name, suite, and by benchmark the source of its problems."""
    if args.problems:
        name = Path(args.problems.split(":")[-1].split("?")[0]).name.split(".")[0] or "problems"
        return name, Suite(title=args.problems, benchmark=[Benchmark(name=name, title=name)]), {name: args.problems}
    suite = load_suite(args.suite)
    if args.benchmarks:
        suite = suite.only(args.benchmarks.split(","))
    return Path(args.suite).stem, suite, {b.name: b.source(args.data) for b in suite.benchmark}


def _questions(args: SimpleNamespace, model: Model, suite: Suite, sources: dict[str, str]) -> list[Question]:
    template = choose_templates([args.template], _template_files(args, model), "--template")[args.template]
    trained = model.config.templates if model.config and not args.chat else None
    tokenizer = load_tokenizer(model.path)
    chat, arguments = (trained.chat, trained.chat_arguments) if trained else (args.chat or "chatml", {})
    renderer = Renderer(tokenizer, chat, arguments)
    questions = []
    for benchmark in suite.benchmark:
        problems = read_problems(sources[benchmark.name], None if args.problems else benchmark.kind)
        if benchmark.problems and len(problems) != benchmark.problems:
            _say(f"{benchmark.title}: {len(problems)} problems, where {benchmark.problems} were published")
        asked, refused = hinted(
            problems[: args.limit], args.hint_ratio, args.hint_unit, tokenizer, not args.allow_answer_in_hint
        )
        if refused:
            counts = ", ".join(f"{n} {reason.replace('_', ' ')}" for reason, n in refused.most_common())
            mend = (
                "; --allow-answer-in-hint asks those with the answer in the hint" if refused["answer_in_hint"] else ""
            )
            _say(f"{benchmark.title}: left out, because no hint can be given: {counts}{mend}")
        for problem, text in asked:
            questions.append(Question(benchmark.name, problem, renderer.ids(template, text)))
    if not questions:
        raise CannotGoOn(
            f"--hint-ratio {args.hint_ratio:g}: no problem can be given such a hint; give a smaller one, or problems "
            "with a `solution`"
        )
    return questions


def _spec(
    args: SimpleNamespace,
    model: Model,
    name: str,
    suite: Suite,
    questions: list[Question],
    gpus: list[Gpu],
) -> Spec:
    greedy = args.samples is None
    problems, prompts = digests(questions)
    dtype = args.dtype or (model.config.model.dtype if model.config else "bfloat16" if gpus else "float32")
    return Spec(
        model=args.model,
        weights=model.weights,
        suite=name,
        problems=problems,
        prompts=prompts,
        titles={b.name: b.title for b in suite.benchmark},
        expected={b.name: b.problems for b in suite.benchmark},
        template=args.template,
        decoding="greedy" if greedy else "sampled",
        n=(args.runs or 5) if greedy else args.samples,
        temperature=0.0 if greedy else args.temperature,
        top_p=1.0 if greedy else args.top_p,
        max_tokens=args.max_tokens,
        context=model.context(args.context),
        dtype=dtype,
        mode=args.mode,
        seed=args.seed,
        limit=args.limit,
        hint_ratio=args.hint_ratio,
        allow_answer_in_hint=args.allow_answer_in_hint and args.hint_ratio > 0,
        run=model.run.name if model.run else None,
        step=model.step,
    )


def _folder(args: SimpleNamespace, model: Model, spec: Spec) -> Path:
    if args.out is not None:
        return args.out
    how = f"{spec.decoding}-{spec.n}" + ("" if spec.limit is None else f"-first-{spec.limit}")
    if model.run is None:
        return Path("runs/evals") / f"{model.name}-{spec.suite}-{how}"
    return model.run / "evals" / f"{spec.suite}-{how}-step-{spec.step or 0:06d}{'-running' if args.running else ''}"


@dataclass(frozen=True)
class _Asked:
    """What every checkpoint is asked."""

    name: str
    suite: Suite
    questions: list[Question]


async def _evaluate(args: SimpleNamespace, models: list[Model]) -> int:
    task = asyncio.current_task()
    assert task
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    name, suite, sources = _suite(args)
    run = models[0].run
    asked = _Asked(name, suite, _questions(args, models[0], suite, sources))
    groups = [[]] if args.running else device_groups(args.devices, args.tensor_parallel, (run or Path("runs/_")).parent)
    if len(models) == 1:
        folder = await _one(args, models[0], asked, groups)
        summary = read_json(folder / "summary.json")
        print(f"{table(summary)}\n{folder}/  {summary['answers']} answers in {summary['seconds']:.0f} s")
        return os.EX_OK
    assert run
    folders = await _each(args, models, asked, groups)
    print(curve_table(run, [read_json(folder / "summary.json") for folder in folders]))
    print(f"`chorus report {run}` draws it")
    return os.EX_OK


async def _each(args: SimpleNamespace, models: list[Model], asked: _Asked, groups: list[list[Gpu]]) -> list[Path]:
    """Every checkpoint, one after the other on each group of devices. What one raises ends all."""
    left, folders = deque(models), dict[int, Path]()

    async def work(group: list[Gpu]) -> None:
        while left:
            model = left.popleft()
            folders[model.step or 0] = await _one(args, model, asked, [group])
            _say(f"step {model.step}: {len(folders)} of {len(models)} checkpoints are scored")

    workers = [asyncio.create_task(work(group)) for group in groups]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return [folders[step] for step in sorted(folders)]


async def _one(args: SimpleNamespace, model: Model, asked: _Asked, groups: list[list[Gpu]]) -> Path:
    """One model on all of these groups of devices; what was answered before is not asked again. Returns its folder."""
    questions = asked.questions
    async with AsyncExitStack() as stack:
        spec, engine = _spec(args, model, asked.name, asked.suite, questions, groups[0]), None
        if args.running:
            engine = await stack.enter_async_context(_fleet(args, model))
            assert model.run
            held = {"weights": str(engine.version), "step": step_of(RunFolder(model.run), engine.version.step)}
            spec = spec.model_copy(update=held)
        check_room(questions, spec.context)
        folder = _folder(args, model, spec)
        with Store(folder, spec) as store:
            wanted = len(questions) * spec.runs
            _say(f"{folder}: {wanted - len(store.done)} of {wanted} answers to ask for")
            if len(store.done) < wanted:
                if engine is None:
                    starts = [_started(args, model, spec, folder, k, group) for k, group in enumerate(groups)]
                    engine = await _entered(stack, starts)
                await _ask(args, spec, questions, store, engine, model, len(groups))
            (folder / "table.md").write_text(table(summarize(folder)), encoding="utf-8")
    return folder


async def _entered(stack: AsyncExitStack, starts: list[AbstractAsyncContextManager[Engine]]) -> Engine:
    """All of them at once, as one engine. Where one does not start, the others have, so that the stack stops them."""
    tried = await asyncio.gather(*map(stack.enter_async_context, starts), return_exceptions=True)
    for failed in tried:
        if isinstance(failed, BaseException):
            raise failed
    engines = [engine for engine in tried if not isinstance(engine, BaseException)]
    return engines[0] if len(engines) == 1 else Spread(engines)


def _started(
    args: SimpleNamespace, model: Model, spec: Spec, folder: Path, number: int, gpus: list[Gpu]
) -> AbstractAsyncContextManager[Engine]:
    log = folder / ("vllm.log" if number == 0 else f"vllm-{number}.log")
    config = engine_config(model.path, spec, args.at_once, args.kv_cache_gib, gpus, args.vllm_arg)
    return started_vllm(config, log, _cores(args))


@asynccontextmanager
async def _fleet(args: SimpleNamespace, model: Model) -> AsyncIterator[Fleet]:
    assert model.config
    assert model.run
    client = connect(args.redis or model.config.redis.url, patience_s=0.0, named="--redis")
    async with open_fleet(client, name_of(model.run), args.template) as fleet:
        yield fleet


async def _ask(
    args: SimpleNamespace,
    spec: Spec,
    questions: list[Question],
    store: Store,
    engine: Engine,
    model: Model,
    engines: int,
) -> None:
    """Ask for what is missing, and write down how long that took."""
    files = _template_files(args, model)
    asked = choose_templates([args.template], files, "--template")
    decoder = CompletionDecoder(load_tokenizer(model.path).backend_tokenizer, asked.values())
    started = time.time()
    try:
        async with local_grading(args.workers, templates=files) as grading:
            await answer_all(
                spec,
                questions,
                store,
                engine,
                grading,
                decoder.decode_batch,
                at_once=engines * max(1, args.at_once // spec.samples),
                deadline_s=args.deadline,
                on_progress=_Speaker(),
            )
    finally:
        with (store.folder / "sittings.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"started": started, "seconds": time.time() - started}) + "\n")


def _template_files(args: SimpleNamespace, model: Model) -> list[Path]:
    return list(args.template_files) or [Path(f) for f in (model.config.templates.files if model.config else ())]


def _cores(args: SimpleNamespace) -> list[int]:
    cores = visible_cores()
    if args.cpus is None:
        return cores
    chosen = [int(part) for part in args.cpus.split(",") if part.strip().isdecimal()]
    if not chosen or set(chosen) - set(cores):
        raise CannotGoOn(f"--cpus {args.cpus}: give cores of {', '.join(map(str, cores))}, with commas between them")
    return chosen


class _Speaker:
    """Says now and then how far it is."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        if progress.asked == progress.wanted or time.monotonic() - self._said > _SAY_EVERY_S:
            self._said = time.monotonic()
            share = progress.right / progress.graded
            _say(f"{progress.asked} of {progress.wanted} answers; {share:.1%} of those asked for now are right")


def _say(text: str) -> None:
    print(f"chorus eval: {text}", file=sys.stderr, flush=True)
