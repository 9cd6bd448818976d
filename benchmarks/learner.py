"""A step of the trainer against the least that such a step can be, on the same tokens.

The bare step (benchmarks/bare.py) is given the same micro-batches ready made. The trainer also cuts them, clips
ratios and counts its figures (entropy, mismatch, clip fractions). Both start from the same weights and take turns.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator

import torch
from transformers import LlamaForCausalLM

from chorus.benchmarks.bare import BareLoop
from chorus.benchmarks.bench import Bench
from chorus.benchmarks.machine import on_cores
from chorus.benchmarks.models import SHAPE_3M, WorkedSolutions, random_policy, starter
from chorus.benchmarks.report import Row, at_least
from chorus.deploy.placement import place, visible_cores
from chorus.learner.training.batch import cut
from chorus.learner.training.policy import Policy
from chorus.learner.training.trainer import Trainer
from chorus.protocol.config.run import RunConfig

GOAL = at_least(0.9)
_STEPS = 3  # a measurement


def measure(bench: Bench) -> Iterator[Row]:
    # So small a rate that many steps on made-up advantages leave the model as it is.
    config = bench.config(f"model.path={starter(bench)}", "learner.lr=1e-8")
    cores = place(config, visible_cores(), gpus=[]).learner_cpus
    with on_cores(cores):
        small = LlamaForCausalLM.from_pretrained(config.model.path, dtype=torch.float32)
        yield _compare(bench, "starter", small, config)
        yield _compare(bench, "3 M", random_policy(bench, SHAPE_3M), config)


def _compare(bench: Bench, name: str, model: LlamaForCausalLM, config: RunConfig) -> Row:
    groups = config.learner.groups_per_step
    steps = 1 if bench.quick else _STEPS
    batch = WorkedSolutions(config).sequences(groups)
    trainer = Trainer(Policy(copy.deepcopy(model), config.sampling.temperature), config, torch.device("cpu"))
    bare, cuts = BareLoop(model, config), cut(batch, config.learner.token_budget)
    tokens = steps * sum(sequence.length for sequence in batch)
    ours: list[float] = []
    peer: list[float] = []
    for repeat in range(-1, bench.repeats):  # the first pair warms up
        pair = [(ours, lambda: trainer.step([batch])), (peer, lambda: bare.step(cuts))]
        for values, step in pair if repeat % 2 else reversed(pair):
            started = time.monotonic()
            for _ in range(steps):
                step()
            if repeat >= 0:
                values.append(tokens / (time.monotonic() - started))
    bench.say(f"learner, {name}: {ours[-1]:,.0f}, bare {peer[-1]:,.0f} tokens/s")
    note = f"{groups} groups of {config.sampling.group_size}, {tokens // steps:,} tokens a step with prompts"
    return Row(f"learner: step / bare step, {name}", "tokens/s", ours, peer, GOAL, note)
