"""What would keep a run from learning, each with its mend: from the rollouts of its first steps.

A recipe is run for a step or two in a folder of its own, without evaluations. A run's folder is only read. Every run
looks at its own first steps in the same way. Exit status 1: something was found.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import click

from chorus.protocol.config.load import load_config
from chorus.protocol.config.run import RunConfig
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.command_line import PATH, command, option, overrides_option
from chorus.protocol.runtime.exits import CannotGoOn

if TYPE_CHECKING:  # transformers comes with it
    from chorus.learner.metrics.doctor.examine import Finding, Look

FOUND = 1  # exit status
_GIB = 2**30


@dataclass(frozen=True)
class Diagnosis:
    """`records`: of the steps that were looked at. `steps`: that the recipe has. `foreseen`: the learner's memory by
    the dry run, in bytes."""

    run: RunFolder
    look: Look
    findings: list[Finding]
    records: list[dict[str, Any]]
    steps: int
    foreseen: float | None


@command(
    "doctor",
    help=__doc__,
    examples=["chorus doctor my.toml", "chorus doctor runs/demo-20261121-231924", "chorus doctor my.toml --json"],
)
@click.argument("run", type=PATH, metavar="RECIPE|RUN", help="a recipe, or a run's folder")
@option("--steps", type=click.IntRange(1), metavar="N", help="first steps to look at (a run: doctor.steps)")
@option("--json", "as_json", is_flag=True, help="print one JSON object instead")
@overrides_option
def main(run: Path, steps: int | None, as_json: bool, overrides: tuple[str, ...]) -> int:
    planned = None
    if run.is_dir():
        if overrides:
            raise CannotGoOn(f"--set: {run} is a run, which is over or has its values; leave it out, or give a recipe")
        folder = RunFolder(run).existing()
    else:
        wished = load_config(run, overrides)
        planned = wished.run.steps
        folder, status = _tried(run, overrides, wished, steps)
        if not folder.rollouts.is_dir():
            return status or FOUND
    found = diagnose(folder, steps, planned)
    if as_json:
        print(json.dumps({"run": str(folder.path), "findings": [asdict(f) for f in found.findings]}, indent=2))
    else:
        print("\n".join(_report(found)))
    return FOUND if found.findings else os.EX_OK


def _tried(recipe: Path, overrides: tuple[str, ...], wished: RunConfig, steps: int | None) -> tuple[RunFolder, int]:
    """A run of the recipe's first steps, and its exit status."""
    from chorus.deploy.launcher import new_folder, run
    from chorus.deploy.preflight import check_inputs
    from chorus.learner.metrics.doctor.examine import MIN_GROUPS

    steps = steps or -(-MIN_GROUPS // wished.learner.groups_per_step)
    shorter = [f"run.steps={steps}", f"run.name=doctor-{recipe.stem}", f"learner.checkpoint_every={steps}"]
    shorter += ["evaluation.problems=0", "trackers.tensorboard=false", "trackers.wandb="]
    if not any(s.plateau and s.plateau.figure == "validation_accuracy" for s in wished.curriculum.stages):
        shorter += ["evaluation.every=0"]
    config = load_config(recipe, [*overrides, *shorter])
    check_inputs(config)
    folder = RunFolder(new_folder(config, str(recipe)))
    status = run(config, str(recipe), made=folder.path)
    if status:
        print(f"chorus doctor: the try ended with status {status}; its logs are in {folder.logs}", file=sys.stderr)
    return folder, status


def diagnose(run: RunFolder, steps: int | None = None, planned: int | None = None) -> Diagnosis:
    """Examine the first steps of a run, from its folder alone; `planned`: of the recipe, where the run is a try.

    Raises CannotGoOn where it has trained none.
    """
    from chorus.deploy.memory import learner_bytes
    from chorus.learner.metrics.doctor.examine import MIN_GROUPS, Look, examine
    from chorus.problems.rendering import load_tokenizer
    from chorus.protocol.rewards import OPEN, Gates
    from chorus.protocol.run_folder.rollouts import read_step, stored_steps
    from chorus.protocol.templates.load import choose_templates

    config = load_config(run.config, (), {})
    last = steps or config.doctor.steps or 1
    groups, gates = [], []
    held = {record["step"]: Gates.of_record(record) for record in run.records()}
    for step, path in stored_steps(run):
        if step > last and (steps or len(groups) >= MIN_GROUPS):
            break
        groups += [rollout.group for rollout in read_step(path)]
        gates += [held.get(step, OPEN)] * (len(groups) - len(gates))
        last = max(last, step)
    if not groups:
        raise CannotGoOn(f"{run.path}: it has no rollouts of its first {last} steps yet; try it when a step is trained")
    records = [r for r in run.records() if r["step"] <= last]
    filtered = Counter[str]()
    for record in records:
        filtered.update(record.get("groups_filtered") or {})
    templates = choose_templates(config.templates.names, [Path(file) for file in config.templates.files])
    peaks = [r["memory_peak"] for r in records if r.get("memory_peak")]
    limits = [r["memory_limit"] for r in records if r.get("memory_limit")]
    exports = sorted(run.checkpoints.glob("step-*/huggingface/tokenizer.json"))
    model = str(exports[0].parent) if exports else config.model.path  # the first model may be gone, or elsewhere
    tokenizer = load_tokenizer(model)
    memory = max(peaks, default=None), max(limits, default=None)
    look = Look(config, groups, tokenizer, templates, filtered, *memory, gates)
    return Diagnosis(run, look, examine(look), records, planned or config.run.steps, learner_bytes(config, model))


def _report(d: Diagnosis) -> Iterator[str]:
    """For a person: the exact tokens, what was seen beside what was foreseen, then the findings."""
    from chorus.learner.metrics.doctor.tokens import edges

    look = d.look
    n = len({r["step"] for r in d.records})
    size = len(look.groups[0].samples)
    yield f"{d.run.path}: {len(look.groups)} groups of {size} samples, {n} step{'s' * (n != 1)}"
    for name, groups in look.by_template().items():
        yield f"\ntokens under {name}, as the model sees and writes them:"
        yield from (f"    {line}" for line in edges(look.tokenizer, groups[0]))
    yield ""
    yield from _seen(d)
    yield ""
    yield from (f"{finding.name}: {finding.text}" for finding in d.findings)
    if not d.findings:
        yield "nothing was found that would keep it from learning"


def _seen(d: Diagnosis) -> Iterator[str]:
    look, samples, config = d.look, d.look.samples, d.look.config
    longest = config.sampling.max_tokens
    mean = fmean(s.n_tokens for s in samples)
    shares = {
        "cut off": fmean(s.finish_reason == "length" for s in samples),
        "without an answer": fmean(s.grade.verdict == "no_answer" for s in samples),
        "without a grade": fmean(s.grade.accuracy is None for s in samples),
        "right": fmean(s.grade.accuracy == 1.0 for s in samples),
    }
    told = ", ".join(f"{share:.0%} {name}" for name, share in shares.items())
    yield f"answers  {mean:.0f} of {longest} tokens on average; {told}"
    if spread := [r["zero_spread"] for r in d.records if r.get("zero_spread") is not None]:
        yield f"groups   {fmean(spread):.0%} with one reward"
    formats = []
    for name, groups in look.by_template().items():
        scores = [s.grade.format for g in groups for s in g.samples if s.grade.format is not None]
        formats += [f"{name} {fmean(scores):.2f}"] if scores else []
    yield f"format   {', '.join(formats) or 'not scored'}{'' if config.pays_format else ' (not paid)'}"
    yield from _time_and_memory(d, config, longest / max(mean, 1.0))


def _time_and_memory(d: Diagnosis, config: RunConfig, growth: float) -> Iterator[str]:
    """growth: how much longer the longest answer is than the mean one."""
    if seconds := [r["seconds"] for r in d.records if r.get("seconds")]:
        each, steps = min(seconds), d.steps
        yield f"time     {each:,.1f} s for the quickest step; {steps} steps: {each * steps / 60:,.1f} min at that pace,"
        yield f"         about {each * growth * steps / 60:,.1f} min if every answer is as long as it may be"
    if d.look.memory_peak and d.look.memory_limit:
        foreseen = "an unknown amount" if d.foreseen is None else f"{d.foreseen / _GIB:.1f} GiB beside its libraries"
        yield (
            f"memory   learner {d.look.memory_peak / _GIB:.1f} of {d.look.memory_limit / _GIB:.1f} GiB; "
            f"foreseen were {foreseen}"
        )
