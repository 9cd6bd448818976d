"""The models that are measured: the demo's starter, and larger ones of its family with its tokenizer.

Built once, kept in the cache under a name that holds the starter's own fingerprint and this file's.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from chorus.benchmarks.bare import BareLoop
from chorus.benchmarks.bench import Bench
from chorus.learner.rollouts.admission import Admission
from chorus.learner.training.batch import TrainingSequence, cut
from chorus.problems.arithmetic import chain_operands, chain_problems
from chorus.protocol.config.run import RunConfig
from chorus.protocol.templates.load import choose_templates
from chorus.starter.build import build_starter
from chorus.starter.solutions import GARBLE, SLIP, sloppy_solution
from chorus.starter.tokenizer import END_OF_TURN, build_tokenizer

# Heads of 32: the smallest that vLLM's CPU attention supports.
SHAPE_3M = {
    "hidden_size": 256,
    "intermediate_size": 640,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "head_dim": 32,
}
SHAPE_100M = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 64,
}
_WARM_UP_STEPS = 150  # enough to end a completion where a solution ends: lengths become natural
_WARM_UP_LR = 1e-3
_WARM_UP_GROUPS = 8


def starter(bench: Bench) -> Path:
    """The policy that `chorus run recipes/demo.toml` starts from, from the same cache."""
    return build_starter(bench.cache, bench.config().templates.names, 0, log=bench.say)


def three_million(bench: Bench) -> Path:
    """3.1 M parameters, warmed up until its completions have natural lengths (1-3 min, once)."""
    return _larger(bench, "3m", SHAPE_3M, _WARM_UP_STEPS)


def hundred_million(bench: Bench) -> Path:
    """103 M parameters as they were drawn: what is sent and loaded does not depend on their values."""
    return _larger(bench, "100m", SHAPE_100M, 0)


def without_weights(bench: Bench) -> Path:
    """A folder with the starter's tokenizer and a model's config: enough for all that computes nothing."""
    folder = bench.cache / "without-weights"
    tokenizer = build_tokenizer(choose_templates(bench.config().templates.names).values())
    tokenizer.save_pretrained(folder)
    shape: dict[str, Any] = SHAPE_3M
    LlamaConfig(vocab_size=len(tokenizer), **shape).save_pretrained(folder)
    return folder


def random_policy(bench: Bench, shape: dict[str, int]) -> LlamaForCausalLM:
    """A model of the starter's family in another shape, as it was drawn; the same one every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fields = json.loads((starter(bench) / "config.json").read_text(encoding="utf-8"))
        return LlamaForCausalLM(LlamaConfig(**fields | shape))


def _larger(bench: Bench, name: str, shape: dict[str, int], warm_up_steps: int) -> Path:
    small = starter(bench)
    code = hashlib.blake2b(Path(__file__).read_bytes(), digest_size=4).hexdigest()
    folder = bench.cache / f"{small.name}-{name}-{code}"
    if folder.is_dir():
        return folder
    bench.say(f"building {folder}")
    scratch = Path(tempfile.mkdtemp(prefix="bench-building-", dir=bench.cache))
    try:
        model = random_policy(bench, shape)
        _warm_up(bench, model, small, warm_up_steps)
        model.save_pretrained(scratch)
        for file in small.glob("tokenizer*"):
            shutil.copy(file, scratch)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _warm_up(bench: Bench, model: LlamaForCausalLM, tokenizer: Path, steps: int) -> None:
    """Supervised learning of sloppy solutions, like the starter's, but only until completions end."""
    config = bench.config(f"model.path={tokenizer}", f"learner.lr={_WARM_UP_LR}")
    loop, worked = BareLoop(model, config), WorkedSolutions(config)
    for step in range(1, steps + 1):
        sequences = worked.sequences(_WARM_UP_GROUPS, advantage=1.0)
        loss = loop.step(cut(sequences, config.learner.token_budget))
        if step % 25 == 0:
            bench.say(f"warm-up step {step} of {steps}: loss {loss:.3f}")


class WorkedSolutions:
    """Training sequences without a generator: the demo's prompts, solutions as its starter learned them.

    A line in front restates the sum, so that a completion has about 26 tokens: the length for which there are
    figures of other trainers.
    """

    def __init__(self, config: RunConfig) -> None:
        self._admission = Admission(config, "bench")
        self._group_size = config.sampling.group_size
        self._random = Random(config.run.seed)
        self._problems = list(zip(chain_operands("train"), chain_problems("train"), strict=True))

    def sequences(self, groups: int, advantage: float | None = None) -> list[TrainingSequence]:
        """`groups` prompts, a group of solutions each; advantages +1 and -1 in turn unless given."""
        result = []
        for _ in range(groups):
            operands, problem = self._random.choice(self._problems)
            template = self._random.choice(list(self._admission.templates.values()))
            prompt = np.array(self._admission.render(problem, template), dtype=np.int32)
            for k in range(self._group_size):
                a, b, c = operands
                solution = sloppy_solution(template, operands, self._random, SLIP, GARBLE)
                text = f"{a} + {b} - {c} = {a + b - c}\n{solution}{END_OF_TURN}"
                ids = self._admission.tokenizer.encode(text, add_special_tokens=False)
                completion = np.array(ids, dtype=np.int32)
                behaviour = np.full(len(ids), -0.5, dtype=np.float32)
                worth = float((-1) ** k) if advantage is None else advantage
                result.append(TrainingSequence(prompt, completion, behaviour, worth))
        return result
