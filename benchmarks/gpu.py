"""A training step on one CUDA device, in bfloat16, at the shape of Qwen2.5-1.5B with weights as they were drawn.

The bare step has the same model, the same head, the same micro-batches ready made and the same number of forwards;
it has no ratios, no clipping of them and no figures. One after the other on an emptied device, so that either's peak
memory is its own. Where there is no CUDA device, this line is left out.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from chorus.benchmarks.bench import Bench
from chorus.benchmarks.report import Row, at_least
from chorus.deploy.memory import learner_bytes
from chorus.learner.training.batch import TrainingSequence, cut
from chorus.learner.training.compiled import compile_layers
from chorus.learner.training.policy import Policy, checkpoint_layers
from chorus.learner.training.trainer import Trainer
from chorus.protocol.config.run import RunConfig

_SHAPE = Qwen2Config(
    vocab_size=151_936, hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12,
    num_key_value_heads=2, max_position_embeddings=4096, tie_word_embeddings=True, use_cache=False,
)  # fmt: skip
_SMALL = {"num_hidden_layers": 2, "hidden_size": 256, "intermediate_size": 512}
_SEQUENCES, _PROMPT, _COMPLETIONS = 64, 200, (100, 1500)
_STEPS = 2  # a measurement
_WAYS = {  # of the learner
    "all kept": {},
    "checkpointed layers": {"gradient_checkpointing": True},
    "compiled layers": {"compile": True},
}
_GIB = 2**30


def measure(bench: Bench) -> Iterator[Row]:
    if not torch.cuda.is_available():
        bench.say("gpu: no CUDA device, left out")
        return
    name = torch.cuda.get_device_name()
    shape = Qwen2Config.from_dict(_SHAPE.to_dict() | _SMALL) if bench.quick else _SHAPE
    peaks: dict[str, list[float]] = {}
    for way, how in _WAYS.items():
        config = bench.config("learner.lr=1e-8", "model.dtype=bfloat16", "learner.token_budget=8192")
        config = config.model_copy(update={"learner": config.learner.model_copy(update=how)})
        ours, bare, peak, used = _compare(bench, way, shape, config)
        peaks[way] = peak
        note = f"{name}, {_SEQUENCES} sequences, {sum(s.length for s in _sequences()):,} tokens a step"
        yield Row(f"gpu: step / bare step, {way}", "tokens/s", ours, bare, at_least(0.9), note)
        beside = [mfu * theirs / rate for mfu, theirs, rate in zip(used, bare, ours, strict=True)]
        yield Row(f"gpu: MFU / that of the bare step, {way}", "share", used, beside)
        yield Row(f"gpu: MFU, {way}", "share", used, goal=at_least(0.4))
        estimate = [_estimate(bench.folder, shape, config)] * len(peak)
        yield Row(f"gpu: peak memory / the dry run's estimate, {way}", "GiB", peak, estimate)
    yield Row("gpu: peak with / without checkpointed layers", "GiB", peaks["checkpointed layers"], peaks["all kept"])


def _compare(
    bench: Bench, way: str, shape: Qwen2Config, config: RunConfig
) -> tuple[list[float], list[float], list[float], list[float]]:
    """Tokens/s of the trainer's steps, of the bare ones, the trainer's peak memory, GiB, and its MFU; one of each a
    repeat."""
    ours: list[float] = []
    bare: list[float] = []
    peak: list[float] = []
    used: list[float] = []
    for _ in range(bench.repeats):
        rate, memory, mfu = _measured(shape, config, bare_steps=False)
        ours.append(rate)
        peak.append(memory)
        used.append(mfu)
        bare.append(_measured(shape, config, bare_steps=True)[0])
        bench.say(f"gpu, {way}: {ours[-1]:,.0f}, bare {bare[-1]:,.0f} tokens/s; {peak[-1]:.1f} GiB; MFU {mfu:.2f}")
    return ours, bare, peak, used


def _measured(shape: Qwen2Config, config: RunConfig, bare_steps: bool) -> tuple[float, float, float]:
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    device = torch.device("cuda")
    torch.manual_seed(0)
    with device:
        model = Qwen2ForCausalLM(shape)
    if config.learner.gradient_checkpointing:
        checkpoint_layers(model)
    if config.learner.compile:
        compile_layers(model, device)
    policy, batch = Policy(model, 1.0), _sequences()
    trainer = Trainer(policy, config, device)
    mfu = math.nan
    cuts = [b.to(device) for b in cut(batch, config.learner.token_budget)] if bare_steps else []
    for step in range(_STEPS + 1):
        if step == 1:  # the first one warms up
            torch.cuda.synchronize()
            started = time.monotonic()
        if bare_steps:
            _bare_step(trainer, cuts)
        else:
            stats = trainer.step([batch])
            assert math.isfinite(stats.loss)
            mfu = stats.mfu or math.nan
    torch.cuda.synchronize()
    rate = _STEPS * sum(s.length for s in batch) / (time.monotonic() - started)
    return rate, torch.cuda.max_memory_allocated() / _GIB, mfu


def _bare_step(trainer: Trainer, cuts: list) -> None:
    total = sum(len(b.target) for b in cuts)
    trainer.optimizer.zero_grad(set_to_none=True)
    for b in cuts:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            logp, _ = trainer.policy(b.input_ids, b.index, b.target)
        (-(b.advantage * logp).sum() / total).backward()
    torch.nn.utils.clip_grad_norm_(trainer.policy.parameters(), trainer.config.learner.grad_clip)
    trainer.optimizer.step()


def _sequences() -> list[TrainingSequence]:
    """Random tokens, advantages +1 and -1; lengths as uneven as those of completions."""
    random, tokens = Random(0), np.random.default_rng(0)
    result = []
    for k in range(_SEQUENCES):
        length = random.randint(*_COMPLETIONS)
        result.append(
            TrainingSequence(
                tokens.integers(0, 150_000, _PROMPT, dtype=np.int32),
                tokens.integers(0, 150_000, length, dtype=np.int32),
                np.full(length, -12.0, dtype=np.float32),
                float((-1) ** k),
            )
        )
    return result


def _estimate(folder: Path, shape: Qwen2Config, config: RunConfig) -> float:
    """GiB that the dry run foresees."""
    shape.save_pretrained(folder)
    foreseen = learner_bytes(config, str(folder))
    assert foreseen is not None
    return foreseen / _GIB
