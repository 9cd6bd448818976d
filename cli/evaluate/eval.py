"""`chorus eval MODEL`: what a model can do on benchmarks, through a vLLM started for it or a run's generators."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import get_args

from chorus.cli.evaluate.engine import engine_config, started_vllm
from chorus.cli.evaluate.grading import local_grading
from chorus.cli.evaluate.model import Model, find_model
from chorus.deploy.placement import visible_cores, visible_gpus
from chorus.evaluation.fleet import Fleet, open_fleet
from chorus.evaluation.records import Spec, Store
from chorus.evaluation.runner import Engine, Progress, Question, answer_all, check_room, digests
from chorus.evaluation.suite import Benchmark, Suite, load_suite, read_problems
from chorus.evaluation.summary import summarize, table
from chorus.generator.engine import EngineError
from chorus.problems.hints import HintUnit, hinted
from chorus.problems.rendering import Renderer, load_tokenizer
from chorus.protocol.config.run import Gpu
from chorus.protocol.ledger import FencedError, LedgerLostError
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.runtime.redis import connect
from chorus.protocol.templates.load import choose_templates

STOPPED = 130
_SAY_EVERY_S = 10.0


def main(argv: list[str]) -> int:
    args = _parser().parse_args(argv)
    _check(args)
    model = find_model(args.model, "start" if args.running else args.checkpoint, args.template)
    try:
        return asyncio.run(_evaluate(args, model))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("chorus eval: stopped; the same command goes on where it was", file=sys.stderr)
        return STOPPED
    except (EngineError, LedgerLostError, FencedError) as error:
        raise CannotGoOn(f"{error} (the same command goes on where it was)") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="chorus eval", description=__doc__)
    add = parser.add_argument
    add("model", help="a Hugging Face folder or hub name, a run's folder, `smollm2` or `starter`")
    add("--checkpoint", default="last", help="of a run's folder: last, selected (on validation), start, or a step")
    what = parser.add_argument_group("problems")
    add = what.add_argument
    add("--suite", default="math", help="a suite's name or a .toml file (default: math)")
    add("--benchmarks", metavar="A,B", help="only these benchmarks of the suite")
    add("--data", type=Path, metavar="FOLDER", help="folder of the benchmarks' files; without it, the hub is asked")
    add("--problems", metavar="SOURCE", help="instead of a suite: one source, as in a recipe")
    add("--limit", type=int, metavar="N", help="the first N problems of each benchmark")
    add("--hint-ratio", type=float, default=0.0, metavar="P", help="ask with the first P of the reference solution")
    add("--allow-answer-in-hint", action="store_true", help="give a hint that holds the answer, too")
    add("--hint-unit", choices=get_args(HintUnit), default="characters", help="what P is a share of")
    how = parser.add_argument_group("answers")
    add = how.add_argument
    add("--runs", type=int, metavar="N", help="greedy: the mean of N runs (default: 5)")
    add("--samples", type=int, metavar="N", help="sampled instead: N answers a problem, with avg@N, pass@k, maj@k")
    add("--temperature", type=float, default=1.0, help="of sampled answers (default: 1)")
    add("--top-p", type=float, default=1.0, metavar="P", help="of sampled answers, above 0 and at most 1 (default: 1)")
    add("--max-tokens", type=int, default=3000, help="of an answer, where the context has room (default: 3000)")
    add("--template", default="qwen-math", help="the one template of all problems (default: qwen-math)")
    add("--template-files", type=Path, nargs="+", default=[], metavar="FILE")
    add("--chat", choices=("chatml", "model"), help="as templates.chat (default: the run's, or chatml)")
    add("--mode", choices=("strict", "paper", "train"), default="strict", help="of the grader (default: strict)")
    add("--seed", type=int, default=42, help="of vLLM and of the confidence intervals (default: 42)")
    where = parser.add_argument_group("machine")
    add = where.add_argument
    add("--out", type=Path, metavar="FOLDER", help="results (default: runs/evals/..., or the run's own evals/...)")
    add("--running", action="store_true", help="ask the run's own generators, whose weights must stand still")
    add("--redis", metavar="URL", help="with --running (default: the run's)")
    add("--dtype", choices=("float32", "bfloat16"), help="default: the run's; bfloat16 on GPUs, float32 on CPUs")
    add("--context", type=int, help="prompt and answer together (default: the run's, or at most 4096)")
    add("--at-once", type=int, default=64, metavar="N", help="answers that vLLM works on at once (default: 64)")
    add(
        "--kv-cache-gib", type=float, default=1.0, metavar="GIB", help="memory for keys and values on CPUs (default: 1)"
    )
    add("--cpus", metavar="0,1", help="cores for vLLM where there is no GPU (default: all)")
    add("--tensor-parallel", type=int, default=1, metavar="N", help="GPUs for vLLM (default: 1)")
    add("--workers", type=int, default=1, help="grader processes (default: 1)")
    add("--deadline", type=float, default=3600.0, metavar="S", help="for one problem's answers (default: 3600)")
    add("--vllm-arg", action="append", default=[], metavar="ARG", help="a further argument for vLLM's server")
    return parser


def _check(args: argparse.Namespace) -> None:
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
        raise CannotGoOn(f"--samples {args.samples}: at most 1024, as many as are compared with each other at once")
    if not 0 < args.top_p <= 1:
        raise CannotGoOn(
            f"--top-p {args.top_p:g}: give the share of the probability to draw from, above 0 and at most 1"
        )
    if args.samples is not None and args.temperature <= 0:
        raise CannotGoOn("--temperature: sampled answers need one above 0; greedy answers come with --runs")


def _suite(args: argparse.Namespace) -> tuple[str, Suite, dict[str, str]]:
    """Name, suite, and by benchmark the source of its problems."""
    if args.problems:
        name = Path(args.problems.split(":")[-1].split("?")[0]).name.split(".")[0] or "problems"
        return name, Suite(title=args.problems, benchmark=[Benchmark(name=name, title=name)]), {name: args.problems}
    suite = load_suite(args.suite)
    if args.benchmarks:
        suite = suite.only(args.benchmarks.split(","))
    return Path(args.suite).stem, suite, {b.name: b.source(args.data) for b in suite.benchmark}


def _questions(args: argparse.Namespace, model: Model, suite: Suite, sources: dict[str, str]) -> list[Question]:
    template = choose_templates([args.template], _template_files(args, model), "--template")[args.template]
    chat = args.chat or (model.config.templates.chat if model.config else "chatml")
    tokenizer = load_tokenizer(model.path)
    renderer = Renderer(tokenizer, chat)
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
        raise CannotGoOn(f"--hint-ratio {args.hint_ratio:g}: no problem can be given such a hint")
    return questions


def _spec(
    args: argparse.Namespace,
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


def _folder(args: argparse.Namespace, model: Model, spec: Spec) -> Path:
    if args.out is not None:
        return args.out
    how = f"{spec.decoding}-{spec.n}" + ("" if spec.limit is None else f"-first-{spec.limit}")
    if model.run is None:
        return Path("runs/evals") / f"{model.name}-{spec.suite}-{how}"
    return model.run / "evals" / f"{spec.suite}-{how}-step-{spec.step or 0:06d}{'-running' if args.running else ''}"


async def _evaluate(args: argparse.Namespace, model: Model) -> int:
    task = asyncio.current_task()
    assert task
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    name, suite, sources = _suite(args)
    questions = _questions(args, model, suite, sources)
    gpus = [] if args.running else visible_gpus()[: args.tensor_parallel]
    async with AsyncExitStack() as stack:
        spec, engine = _spec(args, model, name, suite, questions, gpus), None
        if args.running:
            engine = await stack.enter_async_context(_fleet(args, model))
            held = {"weights": str(engine.version), "step": engine.version.step}
            spec = spec.model_copy(update=held)
        check_room(questions, spec.context)
        folder = _folder(args, model, spec)
        with Store(folder, spec) as store:
            wanted = len(questions) * spec.runs
            _say(f"{folder}: {wanted - len(store.done)} of {wanted} answers to ask for")
            if len(store.done) < wanted:
                if engine is None:
                    log = folder / "vllm.log"
                    config = engine_config(model.path, spec, args.at_once, args.kv_cache_gib, gpus, args.vllm_arg)
                    engine = await stack.enter_async_context(started_vllm(config, log, _cores(args)))
                await _ask(args, spec, questions, store, engine, model)
            summary = summarize(folder)
    text = table(summary)
    (folder / "table.md").write_text(text, encoding="utf-8")
    print(f"{text}\n{folder}/  {summary['answers']} answers in {summary['seconds']:.0f} s")
    return os.EX_OK


@asynccontextmanager
async def _fleet(args: argparse.Namespace, model: Model) -> AsyncIterator[Fleet]:
    assert model.config
    assert model.run
    client = connect(args.redis or model.config.redis.url, patience_s=0.0, named="--redis")
    async with open_fleet(client, model.run.name, args.template) as fleet:
        yield fleet


async def _ask(
    args: argparse.Namespace, spec: Spec, questions: list[Question], store: Store, engine: Engine, model: Model
) -> None:
    """Ask for what is missing, and write down how long that took."""
    tokenizer = load_tokenizer(model.path)
    started = time.time()
    try:
        async with local_grading(args.workers, templates=_template_files(args, model)) as grading:
            await answer_all(
                spec,
                questions,
                store,
                engine,
                grading,
                lambda ids: tokenizer.batch_decode(ids, skip_special_tokens=True),
                at_once=max(1, args.at_once // spec.samples),
                deadline_s=args.deadline,
                on_progress=_Speaker(),
            )
    finally:
        with (store.folder / "sittings.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"started": started, "seconds": time.time() - started}) + "\n")


def _template_files(args: argparse.Namespace, model: Model) -> list[Path]:
    return args.template_files or [Path(f) for f in (model.config.templates.files if model.config else ())]


def _cores(args: argparse.Namespace) -> list[int]:
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
