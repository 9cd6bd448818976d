"""`python -m chorus.benchmarks.experiments.questa`: problems that the tiny policy never solves, with QuestA or not.

Arms: `unaided` asks them as they are; `questa` is recipes/demo_questa.toml, three quarters of a solution, half, a
quarter, none; `online` gives every problem a hint ratio of its own, half a solution at first; `online_high` too, and as
much as there may be at first. All start from the same policy and train on the same problems: those of which 16
samples were all wrong. What they came to is measured apart and without hints, on these and on held-out ones chosen in
the same way. A run that has ended is not run again: start the command again at any time.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from chorus.benchmarks import machine
from chorus.benchmarks.runs import run_to_its_end
from chorus.cli.evaluate.grading import local_grading
from chorus.problems.hints import hint_prefix, with_hint
from chorus.problems.sources import load_problems
from chorus.protocol.config.load import load_config
from chorus.protocol.messages import Problem
from chorus.protocol.run_folder import checkpoints
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.templates.load import choose_templates
from chorus.protocol.templates.template import render_chatml

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "demo_questa.toml"
CANDIDATES = 96  # problems of each side that are measured at the start
SAMPLES = 16
MAX_TOKENS = 96
SEED = 7
HINTED = 0.75  # of a solution, as in the first stage
HARD = {"low": 0.0, "high": 0.0, "hint_ratio": 0.0}
ARMS = ("questa", "unaided", "online", "online_high")
Counts = dict[str, tuple[int, bool]]  # problem id -> right samples of 16, whether the greedy answer is right


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chorus.benchmarks.experiments.questa", description=__doc__)
    add = parser.add_argument
    add("--steps", type=int, help="of every run (default: the recipe's)")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    add("--dir", type=Path, default=Path("runs"), help="where runs and the starter's cache lie (default: runs)")
    add("--nice", type=int, default=5, help="politeness towards other processes, 0 to 19 (default: 5)")
    args = parser.parse_args()
    os.nice(args.nice)
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    config = load_config(RECIPE)
    steps = args.steps or config.run.steps
    folder = args.dir / "questa" / f"{steps}-steps"
    folder.mkdir(parents=True, exist_ok=True)
    starter = starting_policy(args.dir / ".cache", config.templates.names)
    start = measure_start(folder, starter)
    for seed in args.seeds:
        for arm in args.arms:
            run_dir = finished(folder, arm, seed) or _run(folder, arm, seed, steps, starter)
            measure_run(run_dir, start)
    table = report(folder, start, args.arms, args.seeds)
    (folder / "report.md").write_text(table, encoding="utf-8")
    print(table)
    return os.EX_OK


def starting_policy(cache: Path, names: Sequence[str]) -> Path:
    from chorus.starter.build import build_starter
    from chorus.starter.courses import RUNNING

    return build_starter(cache, names, log=say, course=RUNNING)


def problems_of(split: str) -> list[Problem]:
    problems = load_problems(f"arithmetic:running?split={split}")
    return sorted(problems, key=lambda p: hashlib.blake2b(p.id.encode()).digest())[:CANDIDATES]


def measure_start(folder: Path, starter: Path) -> dict[str, Any]:
    """The starting policy's counts, and the pass rates as a file for the runs."""
    path = folder / "start.json"
    if not path.is_file():
        say("measuring the starting policy")
        found: dict[str, Any] = {side: measure(starter, problems_of(side)) for side in ("train", "heldout")}
        found["hinted"] = measure(starter, problems_of("train"), HINTED)
        lines = [
            {"id": id, "model": "starter-running", "hint_ratio": 0.0, "samples": SAMPLES, "correct": right}
            for id, (right, _) in found["train"].items()
        ]
        (folder / "pass_rates.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        path.write_text(json.dumps(found) + "\n")
    return json.loads(path.read_text())


def never_solved(counts: Counts) -> list[str]:
    """The problems that were never solved."""
    return [id for id, (right, _) in counts.items() if right == 0]


def measure(model_dir: Path, problems: Sequence[Problem], hint_ratio: float = 0.0) -> Counts:
    """16 samples at temperature 1 and one greedy answer a problem, graded by the reward server's own workers."""
    template = choose_templates(load_config(RECIPE).templates.names).popitem()[1]
    prompts = []
    for problem in problems:
        text = with_hint(problem.problem, hint_prefix(problem, hint_ratio, "steps")) if hint_ratio else problem.problem
        prompts.append(render_chatml(template, text))
    texts = _answers(model_dir, prompts)
    items = [
        {"completion": text, "gold": problem.answers, "template": template.name}
        for problem, row in zip(problems, texts, strict=True)
        for text in row
    ]
    grades = asyncio.run(_graded(items))
    right = [grade["accuracy"] == 1.0 for grade in grades]
    size = SAMPLES + 1
    rows = [right[k * size : (k + 1) * size] for k in range(len(problems))]
    return {problem.id: (sum(row[:SAMPLES]), row[SAMPLES]) for problem, row in zip(problems, rows, strict=True)}


def _answers(model_dir: Path, prompts: Sequence[str]) -> list[list[str]]:
    """SAMPLES sampled answers and the greedy one, for each prompt."""
    import torch
    from transformers import AutoModelForCausalLM

    from chorus.problems.rendering import load_tokenizer

    torch.manual_seed(SEED)
    model: Any = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).eval()
    tokenizer = load_tokenizer(str(model_dir))
    by_length: dict[int, list[tuple[int, list[int]]]] = defaultdict(list)
    for k, prompt in enumerate(prompts):
        ids = tokenizer.encode(prompt, add_special_tokens=False)
        by_length[len(ids)].append((k, ids))  # prompts of one length need no padding
    answers: list[list[str]] = [[] for _ in prompts]
    sampled = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "num_return_sequences": SAMPLES}
    for rows in by_length.values():
        ids = torch.tensor([row for _, row in rows])
        for how, size in ((sampled, SAMPLES), ({"do_sample": False}, 1)):
            with torch.inference_mode():
                out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=MAX_TOKENS, **how)
            texts = tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
            for place, (k, _) in enumerate(rows):
                answers[k] += texts[place * size : (place + 1) * size]
    return answers


async def _graded(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    async with local_grading() as grading:
        return await grading.grade(items)


def _folders(folder: Path, arm: str, seed: int) -> list[Path]:
    """The folders of a run's starts, the newest first."""
    return sorted(folder.glob(f"{arm}-seed-{seed}-*/"), reverse=True)


def finished(folder: Path, arm: str, seed: int) -> Path | None:
    return next((f for f in _folders(folder, arm, seed) if (f / "summary.json").is_file()), None)


def stages_of(arm: str, steps: int) -> str:
    """The arm's stages, as --set takes them; the recipe's own lengths, scaled to `steps`."""
    config = load_config(RECIPE)
    fields = {
        "questa": [
            {"name": s.name, "hint_ratio": s.hint_ratio}
            | ({"steps": max(1, s.steps * steps // config.run.steps)} if s.steps else {})
            for s in config.curriculum.stages
        ],
        "unaided": [{"name": "unaided", "hint_ratio": 0.0}],
        "online": [{"name": "online", "hint_ratio": "online"}],
        "online_high": [{"name": "online", "hint_ratio": "online"}],
    }[arm]
    return f"[{', '.join(_toml(stage | {'pass_rate': HARD}) for stage in fields)}]"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {_toml(item)}' for key, item in value.items())}}}"
    return json.dumps(value)


def _run(folder: Path, arm: str, seed: int, steps: int, starter: Path) -> Path:
    """Raises RuntimeError when the run fails."""
    name = f"{arm}-seed-{seed}"
    settings = {
        "run.dir": folder,
        "run.name": name,
        "run.steps": steps,
        "run.seed": seed,
        "model.path": starter,
        "curriculum.pass_rates": json.dumps([str(folder / "pass_rates.jsonl")]),
        "curriculum.stages": stages_of(arm, steps),
        "curriculum.hints.online.start": HINTED if arm == "online_high" else 0.5,
        "evaluation.problems": 0,
        # Patience, since the machine may be busy with something else.
        "learner.sync_deadline_s": 300,
        "generator.lease_s": 60,
    }
    parts = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    say(f"run {name}")
    run_to_its_end(name, folder / f"{name}.log", str(RECIPE), *parts)
    run_dir = finished(folder, arm, seed)
    assert run_dir is not None, f"{name} left no summary in {folder}"
    return run_dir


def measure_run(run_dir: Path, start: dict[str, Any]) -> None:
    """Counts of the last checkpoint, on the problems that were never solved at the start."""
    path = run_dir / "counts.json"
    if path.is_file():
        return
    say(f"measuring {run_dir.name}")
    last = checkpoints.latest(run_dir / "checkpoints")
    assert last is not None, f"{run_dir} has no checkpoint"
    counts = {}
    for side in ("train", "heldout"):
        hard = set(never_solved(start[side]))
        counts[side] = measure(last / "huggingface", [p for p in problems_of(side) if p.id in hard])
    path.write_text(json.dumps(counts) + "\n")


def report(folder: Path, start: dict[str, Any], arms: Sequence[str], seeds: Sequence[int]) -> str:
    """Mean over the seeds, their range in brackets."""
    runs = {arm: [f for seed in seeds if (f := finished(folder, arm, seed))] for arm in arms}
    ended = {arm: [json.loads((f / "counts.json").read_text()) for f in found] for arm, found in runs.items()}
    about = ", ".join(f"{key} {value}" for key, value in machine.describe().items())
    hinted = [right for right, _ in start["hinted"].values()]
    lines = [
        f"{folder.name}; seeds: {', '.join(f'{len(f)} of {arm}' for arm, f in runs.items())}; {about}",
        f"start, with the first stage's hints: {sum(hinted) / SAMPLES / len(hinted):.4f} of the samples right",
        "",
        f"| | start | {' | '.join(arms)} |",
        f"| --- | --- |{' --- |' * len(arms)}",
    ]
    for side, said in (("train", "trained on"), ("heldout", "held out")):
        hard = {id: start[side][id] for id in never_solved(start[side])}
        lines.append(
            f"| **{said}**: problems with 0 of {SAMPLES} at the start | {len(hard)} of {CANDIDATES} |{' |' * len(arms)}"
        )
        for label, of in FIGURES.items():
            cells = [cell([of(counts[side]) for counts in ended[arm]]) for arm in arms]
            lines.append(f"| {said}: {label} | {of(hard):.3f} | {' | '.join(cells)} |")
    cells = [cell([json.loads((f / "summary.json").read_text())["wall_seconds"] / 60 for f in runs[a]]) for a in arms]
    lines.append(f"| minutes | | {' | '.join(cells)} |")
    cells = [cell([float(_rights(f)) for f in runs[a]], 0) for a in arms]
    lines.append(f"| right samples trained on | | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _rights(run_dir: Path) -> int:
    config = load_config(run_dir / "config.json")
    size = config.learner.groups_per_step * config.sampling.group_size
    return sum(round((r["accuracy"] or 0.0) * size) for r in RunFolder(run_dir).records())


def _share(counts: Counts) -> float:
    return fmean(right / SAMPLES for right, _ in counts.values())


def _solved(counts: Counts) -> float:
    return fmean(float(right > 0) for right, _ in counts.values())


def _greedy(counts: Counts) -> float:
    return fmean(float(greedy) for _, greedy in counts.values())


FIGURES = {"right samples": _share, f"solved at least once of {SAMPLES}": _solved, "greedy right": _greedy}


def cell(values: Sequence[float], digits: int = 3) -> str:
    if not values:
        return "-"
    text = f"{fmean(values):.{digits}f}"
    return f"{text} ({min(values):.{digits}f}-{max(values):.{digits}f})" if len(values) > 1 else text


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
