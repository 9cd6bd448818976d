"""What a checkpoint can do on problems that no training draws: the same measurement for every arm.

Two suites. `fixed`: every problem under qwen-math, as the paper evaluates. `all`: problem k under the k-th of the
thirteen templates, in turn, also for policies that were trained under fewer.
Four samples at temperature 1 and one greedy answer a problem, from transformers rather than from vLLM: nothing
else has to run, and the full distribution is there to take the entropy of.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from chorus.cli.evaluate.grading import local_grading
from chorus.learner.metrics.diversity import group_metrics, mean_metrics
from chorus.problems.arithmetic import load_arithmetic
from chorus.problems.rendering import load_tokenizer
from chorus.protocol.messages import Problem
from chorus.protocol.templates.load import choose_templates
from chorus.protocol.templates.template import Template, render_chatml

SOURCE = "arithmetic:chain?split=heldout"
FIXED = "qwen-math"
PROBLEMS = 200
SAMPLES = 4
MAX_TOKENS = 64
SEED = 7


@dataclass(frozen=True)
class Question:
    problem: Problem
    template: Template


@dataclass(frozen=True)
class Answer:
    """`ids` without the end of turn; `entropies` in nats, one a sampled token, the end of turn included."""

    ids: list[int]
    text: str
    entropies: list[float]


def evaluate(folders: Sequence[Path], names: Sequence[str]) -> list[dict[str, Any]]:
    """One record a Hugging Face folder: {"fixed": figures, "all": figures}."""
    transformers_logging.disable_progress_bar()
    suites = _suites(names)
    answered = [{name: _answers(folder, suite) for name, suite in suites.items()} for folder in folders]
    return asyncio.run(_graded(answered, suites))


def _suites(names: Sequence[str]) -> dict[str, list[Question]]:
    templates = choose_templates(sorted(names))
    problems = sorted(load_arithmetic(SOURCE), key=lambda p: hashlib.blake2b(p.id.encode()).digest())[:PROBLEMS]
    turns = list(templates.values())
    return {
        "fixed": [Question(p, templates[FIXED]) for p in problems],
        "all": [Question(p, turns[k % len(turns)]) for k, p in enumerate(problems)],
    }


def _answers(folder: Path, questions: Sequence[Question]) -> list[list[Answer]]:
    """Per question SAMPLES answers at temperature 1, then the greedy one."""
    torch.manual_seed(SEED)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = load_tokenizer(str(folder))
    by_length: dict[int, list[tuple[int, list[int]]]] = defaultdict(list)
    for k, question in enumerate(questions):
        ids = tokenizer.encode(render_chatml(question.template, question.problem.problem), add_special_tokens=False)
        by_length[len(ids)].append((k, ids))  # prompts of one length need no padding
    answers: list[list[Answer]] = [[] for _ in questions]
    for rows in by_length.values():
        prompts = torch.tensor([ids for _, ids in rows])
        for repeat in range(SAMPLES + 1):
            for (k, _), answer in zip(rows, _generate(model, tokenizer, prompts, repeat < SAMPLES), strict=True):
                answers[k].append(answer)
    return answers


@torch.inference_mode()
def _generate(model: Any, tokenizer: PreTrainedTokenizerFast, prompts: torch.Tensor, sampled: bool) -> list[Answer]:
    how = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0} if sampled else {"do_sample": False}
    out = model.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        max_new_tokens=MAX_TOKENS,
        output_logits=True,
        return_dict_in_generate=True,
        **how,
    )
    logp = torch.stack(out.logits, dim=1).log_softmax(-1)  # [batch, tokens, vocabulary]
    entropies = -(logp.exp() * logp).sum(-1)
    answers = []
    for row, entropy in zip(out.sequences[:, prompts.shape[1] :].tolist(), entropies.tolist(), strict=True):
        end = row.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in row else len(row)
        text = str(tokenizer.decode(row[:end], skip_special_tokens=True))
        answers.append(Answer(row[:end], text, entropy[: end + 1]))
    return answers


async def _graded(
    answered: Sequence[dict[str, list[list[Answer]]]], suites: dict[str, list[Question]]
) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    async with local_grading() as grading:
        for checkpoint in answered:
            record = {}
            for name, questions in suites.items():
                items = [
                    {"completion": answer.text, "gold": q.problem.answers, "template": q.template.name}
                    for q, answers in zip(questions, checkpoint[name], strict=True)
                    for answer in answers
                ]
                record[name] = _figures(questions, checkpoint[name], await grading.grade(items))
            records.append(record)
    return records


def _figures(
    questions: Sequence[Question], answers: Sequence[list[Answer]], grades: list[dict[str, Any]]
) -> dict[str, Any]:
    """Means over problems; entropy is the mean over the tokens sampled at temperature 1."""
    size = SAMPLES + 1
    sampled = [g for k, g in enumerate(grades) if k % size < SAMPLES and g["accuracy"] is not None]
    greedy = [g for k, g in enumerate(grades) if k % size == SAMPLES and g["accuracy"] is not None]
    entropies = [e for row in answers for answer in row[:SAMPLES] for e in answer.entropies]
    groups = [
        group_metrics(
            [a.text for a in row[:SAMPLES]],
            [torch.tensor(a.ids, dtype=torch.int32).numpy() for a in row[:SAMPLES]],
            question.template,
        )
        for question, row in zip(questions, answers, strict=True)
    ]
    return {
        "accuracy": fmean(g["accuracy"] for g in sampled),
        "greedy": fmean(g["accuracy"] for g in greedy),
        "format": fmean(g["format"] for g in sampled),
        "entropy": fmean(entropies),
        **mean_metrics(groups),
    }
