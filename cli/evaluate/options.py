"""The options of every command that asks a model for answers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import get_args

import click

from chorus.problems.hints import HintUnit
from chorus.protocol.runtime.command_line import PATH, option

problems, answers, machine = (partial(option, section=section) for section in ("Problems", "Answers", "Machine"))
_DECLARED = (
    click.argument("model", help="a Hugging Face folder or hub name, a run's folder, `smollm2` or `starter`"),
    option("--checkpoint", default="last", help="of a run's folder: last, selected, start, a step, or (eval) all"),
    problems("--data", type=PATH, metavar="FOLDER", help="the benchmarks' files; without it, the hub is asked"),
    problems("--limit", type=int, metavar="N", help="the first N problems of each benchmark"),
    problems("--hint-ratio", type=float, default=0.0, metavar="P", help="ask with the first P of the solution"),
    problems("--hint-unit", type=click.Choice(get_args(HintUnit)), default="characters", help="what P is a share of"),
    problems(
        "--allow-answer-in-hint",
        is_flag=True,
        help="give a hint that holds the answer, too: for curricula with reject_if_answer_in_hint = false",
    ),
    answers("--temperature", type=float, default=1.0, help="of sampled answers"),
    answers("--top-p", type=float, default=1.0, metavar="P", help="of sampled answers, above 0 and at most 1"),
    answers("--max-tokens", type=int, default=3000, help="of an answer, where the context has room"),
    answers("--template", default="qwen-math", help="the one template of all problems"),
    answers("--template-files", type=PATH, several=True, metavar="FILE...", help="templates beside the package's"),
    answers("--chat", metavar="FORMAT", help="as templates.chat: chatml, model or FILE.jinja (default: the run's)"),
    answers("--seed", type=int, default=42, help="of vLLM and of the confidence intervals"),
    machine("--running", is_flag=True, help="ask the run's own generators, whose weights must stand still"),
    machine("--redis", metavar="URL", help="with --running (default: the run's)"),
    machine(
        "--dtype",
        type=click.Choice(["float32", "bfloat16"]),
        help="default: the run's; bfloat16 on GPUs, float32 on CPUs",
    ),
    machine("--context", type=int, help="prompt and answer together (default: the run's, or at most 4096)"),
    machine("--at-once", type=int, default=64, metavar="N", help="answers that vLLM works on at once"),
    machine("--kv-cache-gib", type=float, default=1.0, metavar="GIB", help="memory for keys and values on CPUs"),
    machine("--cpus", metavar="0,1", help="cores for vLLM where there is no GPU (default: all)"),
    machine("--devices", metavar="0,1", help="GPUs, an engine each (default: all that no run in progress has)"),
    machine("--tensor-parallel", type=int, default=1, metavar="N", help="GPUs of one engine"),
    machine("--workers", type=int, default=1, help="grader processes"),
    machine("--deadline", type=float, default=3600.0, metavar="S", help="for one problem's answers"),
    machine("--vllm-arg", multiple=True, metavar="ARG", help="a further argument for vLLM's engine"),
)


def model_options(command: Callable[..., int]) -> Callable[..., int]:
    """Decorates a command with all of them."""
    for declare in reversed(_DECLARED):
        command = declare(command)
    return command
