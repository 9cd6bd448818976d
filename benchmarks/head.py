"""Peak memory of log-probabilities and entropy at a vocabulary of 151,936, against whole logits in float32.

Each measurement is a process of its own, since a process's peak never falls. Both run the same tiny decoder under the
same head, forward and backward; on a CUDA device, where there is one, and with more tokens there.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from chorus.benchmarks.bench import Bench
from chorus.benchmarks.report import Row, at_most
from chorus.learner.training.memory import process_peak
from chorus.learner.training.policy import Policy

GOAL = at_most(0.5)
_VOCABULARY = 151_936  # Qwen2.5's
_DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
_TOKENS = 16_384 if _DEVICE.type == "cuda" else 1024


def measure(bench: Bench) -> Iterator[Row]:
    mib: dict[str, list[float]] = {"chunked": [], "naive": []}
    seconds: dict[str, list[float]] = {"chunked": [], "naive": []}
    for _ in range(bench.repeats):
        for way in mib:
            command = [sys.executable, "-m", "chorus.benchmarks.head", way]
            result = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=300).stdout)
            mib[way].append(result["mib"])
            seconds[way].append(result["seconds"])
            bench.say(f"head, {way}: {result['mib']:,.0f} MiB, {result['seconds']:.1f} s")
    note = f"{_TOKENS:,} tokens, vocabulary {_VOCABULARY:,}, {_DEVICE.type}"
    yield Row("learner: head's peak memory / whole logits", "MiB", mib["chunked"], mib["naive"], GOAL, note)
    yield Row("learner: head's time / whole logits", "s", seconds["chunked"], seconds["naive"], note=note)


def _run(policy: Policy, way: str, tokens: int) -> None:
    ids = torch.arange(tokens + 1, device=_DEVICE).unsqueeze(0) % _VOCABULARY
    index, target = torch.arange(tokens, device=_DEVICE), ids[0, 1:]
    if way == "chunked":
        logp, _ = policy(ids, index, target)
    else:
        table = torch.log_softmax(policy.hf(ids, use_cache=False).logits[0, :-1].float(), dim=-1)
        with torch.no_grad():
            _ = -(table.exp() * table).sum(-1)
        logp = table.gather(-1, target.unsqueeze(-1)).squeeze(-1)
    (-logp.mean()).backward()


def _peak_mib() -> float:
    if _DEVICE.type == "cuda":
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() / 2**20
    return process_peak() / 2**20


def _child(way: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=_VOCABULARY, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=2 * _TOKENS, tie_word_embeddings=True,
    )  # fmt: skip
    policy = Policy(LlamaForCausalLM(shape), temperature=1.0).to(_DEVICE)
    _run(policy, way, 8)
    before, started = _peak_mib(), time.monotonic()
    _run(policy, way, _TOKENS)
    print(json.dumps({"mib": _peak_mib() - before, "seconds": time.monotonic() - started}))


if __name__ == "__main__":
    _child(sys.argv[1])
