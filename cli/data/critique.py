"""A data set of critiques of one problem's candidate solutions, for `chorus finetune`.

Candidates come from models (--generators) or a file (--candidates), critiques from models (--teachers) or a file
(--critiques). Our grader judges the candidates, and only critiques whose verdict agrees with it are kept. What models
answered stands in a folder beside the file; stopped and asked again, it goes on where it was.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from chorus.cli.evaluate.eval import main as ask
from chorus.cli.evaluate.grading import local_grading
from chorus.problems.critiques import RIGHT, WRONG, Critique, as_line, question, verdict_of
from chorus.problems.sources import load_problems
from chorus.protocol.messages import Problem
from chorus.protocol.run_folder.files import read_lines, write_lines, write_whole
from chorus.protocol.runtime.command_line import PATH, command, option
from chorus.protocol.runtime.exits import CannotGoOn

CANDIDATES = 10  # a generator; arXiv 2506.03295 has ten generators, seven teachers, and keeps 600 of 700
KEPT = 600
TASK = (
    "Go through the steps of the solution. Where it is wrong, say so and give the right answer in \\boxed{}. End with "
    "one line: Verdict: right, or Verdict: wrong."
)


@dataclass(frozen=True)
class Candidate:
    """`verdict`: of our grader; None where it failed."""

    text: str
    generator: str
    verdict: str | None = None


@command(
    "critique",
    help=__doc__,
    examples=[
        "chorus critique --problems my.jsonl --generators MODEL-A MODEL-B --teachers TEACHER --out critiques.jsonl",
        "chorus critique --problems my.jsonl --id p17 --critiques written.jsonl --out critiques.jsonl",
    ],
)
@option("--problems", required=True, metavar="SPEC", help="a problem source, as in a recipe")
@option("--id", "named", metavar="ID", help="of the one problem, where the source has several")
@option("--generators", several=True, metavar="MODEL...", help="sample candidates from these models")
@option("--candidates", type=PATH, metavar="FILE", help="candidates of yours: JSON lines with `candidate`")
@option("--each", type=int, default=CANDIDATES, metavar="N", help="candidates a generator")
@option("--teachers", several=True, metavar="MODEL...", help="sample a critique of every candidate from these models")
@option("--critiques", type=PATH, metavar="FILE", help="critiques of yours: lines with `candidate` and `critique`")
@option("--keep", type=int, default=KEPT, metavar="N", help="the longest and shortest of more than so many go")
@option("--temperature", type=float, default=1.0, help="of candidates and critiques")
@option("--max-tokens", type=int, default=3000, help="of a candidate, and of a critique")
@option("--template", default="qwen-math", help="under which models are asked")
@option("--out", type=PATH, required=True, metavar="FILE", help="a critique a line, .jsonl")
def main(
    problems: str,
    named: str | None,
    generators: tuple[str, ...],
    candidates: Path | None,
    each: int,
    teachers: tuple[str, ...],
    critiques: Path | None,
    keep: int,
    temperature: float,
    max_tokens: int,
    template: str,
    out: Path,
) -> int:
    if bool(teachers) == (critiques is not None):
        raise CannotGoOn("give --teachers, whose critiques are sampled, or --critiques, a file of them")
    if teachers and bool(generators) == (candidates is not None):
        raise CannotGoOn("give --generators, whose candidates are sampled, or --candidates, a file of them")
    problem = one_problem(problems, named)
    answers = out.with_name(out.name + ".answers")
    how = ["--temperature", str(temperature), "--max-tokens", str(max_tokens), "--template", template]
    written = _read(critiques, "critique") if critiques else []
    found = [Candidate(r["candidate"], r.get("generator", "")) for r in _read(candidates, "candidate")]
    for number, model in enumerate(generators):
        row = {"id": problem.id, "problem": problem.problem, "answers": problem.answers or ["-"]}
        texts = _sampled(answers / f"generator-{number}", [row], model, [*how, "--samples", str(each)])
        found += [Candidate(text, model) for text in texts[problem.id]]
    if not found:
        found = [Candidate(row["candidate"], row.get("generator", "")) for row in written]
    judged = list({c.text: c for c in asyncio.run(_judged(problem, found, template))}.values())
    for number, model in enumerate(teachers):
        rows = [
            {"id": str(k), "problem": f"{question(problem.problem, c.text)}\n\n{TASK}", "answer": c.verdict or "-"}
            for k, c in enumerate(judged)
        ]
        texts = _sampled(answers / f"teacher-{number}", rows, model, [*how, "--samples", "1"])
        written += [
            {"candidate": judged[int(id)].text, "critique": text, "teacher": model}
            for id, some in texts.items()
            for text in some
        ]
    kept, left_out = filtered(problem, judged, written, keep)
    if not kept:
        raise CannotGoOn(f"no critique is left ({_counts(left_out)}): give other teachers, or other candidates")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, "".join(map(as_line, kept)))
    print(_summary(out, kept, left_out))
    return os.EX_OK


def one_problem(source: str, named: str | None) -> Problem:
    try:
        found = [p for p in load_problems(source) if named in (None, p.id)]
    except (OSError, ValueError, ImportError) as error:
        raise CannotGoOn(f"--problems: {error}") from None
    if len(found) != 1:
        raise CannotGoOn(
            f"--problems {source}: {len(found)} problems{'' if named is None else f' of the id {named!r}'}, and one is "
            "to be critiqued: name it with --id"
        )
    return found[0]


def filtered(
    problem: Problem, candidates: Sequence[Candidate], written: Iterable[Mapping[str, Any]], keep: int
) -> tuple[list[Critique], Counter[str]]:
    """The critiques that agree with the grader, less the longest and the shortest where there are more than `keep`;
    and how many others there were, by why."""
    by_text = {c.text: c for c in candidates}
    left_out: Counter[str] = Counter()
    kept: list[Critique] = []
    for row in written:
        candidate, said = by_text.get(row["candidate"]), verdict_of(row["critique"])
        if candidate is None:
            left_out["of an unknown candidate"] += 1
        elif candidate.verdict is None:
            left_out["of a candidate that could not be graded"] += 1
        elif said is None:
            left_out["without a verdict in the last line"] += 1
        elif said != candidate.verdict:
            left_out["at odds with the grader"] += 1
        else:
            text, teacher = row["critique"].strip(), str(row.get("teacher", ""))
            kept.append(Critique(problem.problem, candidate.text, text, said, candidate.generator, teacher))
    if (surplus := len(kept) - keep) > 0:
        order = sorted(range(len(kept)), key=lambda k: (len(kept[k].critique), k))
        middle = set(order[surplus // 2 : len(kept) - (surplus - surplus // 2)])
        kept = [critique for k, critique in enumerate(kept) if k in middle]
        left_out["among the longest and the shortest"] = surplus
    return kept, left_out


async def _judged(problem: Problem, candidates: Sequence[Candidate], template: str) -> list[Candidate]:
    items = [{"completion": c.text, "template": template, "mode": "train"} | problem.grading() for c in candidates]
    async with local_grading() as grading:
        grades = await grading.grade(items)
    verdicts = [None if g["accuracy"] is None else RIGHT if g["accuracy"] == 1.0 else WRONG for g in grades]
    return [replace(c, verdict=verdict) for c, verdict in zip(candidates, verdicts, strict=True)]


def _sampled(folder: Path, rows: list[dict[str, Any]], model: str, how: Sequence[str]) -> dict[str, list[str]]:
    """What a model answers to each row, by id; through `chorus eval`, whose answers stay in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    asked = folder / "asked.jsonl"
    write_lines(asked, rows)
    if (status := ask([model, "--problems", str(asked), "--mode", "train", "--out", str(folder), *how])) != os.EX_OK:
        raise SystemExit(status)
    return {r["id"]: [s["text"] for s in r["samples"]] for r in read_lines(folder / "answers.jsonl")}


def _read(path: Path | None, column: str) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines that have the column and `candidate`. Raises CannotGoOn for any other."""
    if path is None:
        return []
    rows: list[dict[str, Any]] = []
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            row = json.loads(line)
            if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in (column, "candidate")):
                raise CannotGoOn(f"{path}:{number}: no `candidate` and `{column}` as texts; give every line them")
            rows.append(row)
    except OSError as error:
        raise CannotGoOn(f"{path}: {error.strerror}; give a file of JSON lines") from None
    except ValueError as error:
        raise CannotGoOn(f"{path}: no JSON lines ({error}); mend it") from None
    return rows


def _counts(left_out: Counter[str]) -> str:
    return ", ".join(f"{n} {why}" for why, n in left_out.most_common()) or "there were none"


def _summary(out: Path, kept: Sequence[Critique], left_out: Counter[str]) -> str:
    of = {c.candidate: c.verdict for c in kept}
    right = sum(verdict == RIGHT for verdict in of.values())
    agreed, disagreed = len(kept) + left_out["among the longest and the shortest"], left_out["at odds with the grader"]
    lines = [
        f"{out}: {len(kept):,} critiques of {len(of):,} candidates, {right:,} of them right; by "
        f"{len({c.generator for c in kept})} generators and {len({c.teacher for c in kept})} teachers",
        f"left out: {_counts(left_out)}",
        f"of the verdicts {agreed / (agreed + disagreed):.3f} agree with the grader",
    ]
    return "\n".join(lines)
