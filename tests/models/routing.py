"""Which experts an engine takes for each token, and which the learner does: how often they differ, layer by layer.

A real vLLM samples from random models of experts, one prompt after another; what its routers chose is taken from them
by the callback that vLLM has for it. The learner then computes the same tokens: by its own choice, and once more by the
engine's, which is what a replay would do. A process for each model and dtype; a row of docs/models.md each.

    python tests/models/routing.py
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / "support")]
PROMPTS, COMPLETION = 32, 64
MODELS: dict[str, dict[str, Any]] = {
    "mixtral": {},
    "qwen3_moe": {},
    "qwen3_moe, 8 layers of 64 experts": {
        "hidden_size": 256, "num_hidden_layers": 8, "num_attention_heads": 4, "num_key_value_heads": 2,
        "num_experts": 64, "num_experts_per_tok": 8, "moe_intermediate_size": 64, "norm_topk_prob": True,
    },
}  # fmt: skip
HEAD = (
    "| model | dtype | choices that differ, by layer | tokens with any | gap, nats | with the engine's choices |\n"
    "| --- | --- | --- | --- | --- | --- |"
)


def main() -> int:
    print(HEAD, flush=True)
    failed = 0
    for name in MODELS:
        for dtype in ("float32", "bfloat16"):
            process = multiprocessing.get_context("spawn").Process(target=_row, args=(name, dtype))
            process.start()
            process.join(300)
            process.kill()
            failed += process.exitcode != 0
    return failed > 0


def _row(name: str, dtype: str) -> None:
    import numpy as np
    from architectures import ARCHITECTURES, save_architecture

    ARCHITECTURES[name] = ARCHITECTURES.get(name, {}) | MODELS[name]
    with tempfile.TemporaryDirectory() as folder:
        config = _config(save_architecture(name, Path(folder) / "model"), dtype)
        sampled = list(_sampled(config, Path(folder)))
        own, theirs, gaps, replayed = _computed(config, sampled)
    # [tokens, layers, chosen], which of them are no choice of the other's
    other = (~(theirs[..., :, None] == own[..., None, :]).any(-1)).astype(float)
    layers = " ".join(f"{100 * share:.2g}" for share in other.mean((0, 2)))
    tokens = 100 * other.any((1, 2)).mean()
    said = [name, dtype, f"{layers} %", f"{tokens:.2g} %", f"{np.mean(gaps):.2g}", f"{np.mean(replayed):.2g}"]
    print(f"| {' | '.join(said)} |", flush=True)


def _config(model: Path, dtype: str) -> Any:
    from chorus.protocol.config.run import RunConfig

    return RunConfig.model_validate(
        {
            "model": {"path": str(model), "dtype": dtype, "context": 128},
            "problems": {"train": ["any"], "max_prompt_tokens": 64},
            "templates": {"names": ["qwen-math"]},
            "sampling": {"max_tokens": COMPLETION},
            "generator": {
                "vllm_args": ["--enforce-eager", "--no-enable-prefix-caching"], "max_num_seqs": 8, "kv_cache_gib": 1,
            },
        }
    )  # fmt: skip


def _sampled(config: Any, folder: Path) -> Iterator[tuple[list[int], list[int], Any, Any]]:
    """Prompt, completion, its log-probabilities, and the experts [tokens, layers, chosen] of all but the last."""
    import numpy as np

    from chorus.generator.vllm_engine import arguments_of, environment_of
    from chorus.protocol.messages import pack_ids, unpack_floats, unpack_ids

    os.environ.update(environment_of(config, folder / "vllm.log", {min(os.sched_getaffinity(0))}))
    from chorus.generator.vllm_process import started

    engine = started(arguments_of(config))
    chosen: dict[int, list[Any]] = {}

    def listen(worker: Any) -> None:
        for module in worker.model_runner.model.modules():
            if type(module).__name__ == "MoERunner":
                kept = chosen.setdefault(module.layer_id, [])
                module.router.set_capture_fn(lambda ids, kept=kept: kept.append(ids.numpy().copy()))

    engine._engine.collective_rpc(listen)
    words = np.random.default_rng(0)
    for number in range(PROMPTS):
        prompt = words.integers(5, 60, 32).tolist()
        how = {"n": 1, "max_tokens": COMPLETION, "temperature": 1.0, "logprobs": 0, "seed": number, "ignore_eos": True}
        for kept in chosen.values():
            kept.clear()
        engine.call(number, "generate", prompt=pack_ids(prompt), sampling=how)
        answers: list[Any] = []
        while not answers:
            answers += engine.step()
        group = answers[0]["ok"]
        experts = np.stack([np.concatenate(chosen[layer]) for layer in sorted(chosen)], 1)
        yield prompt, unpack_ids(group["ids"]).tolist(), unpack_floats(group["logprobs"]), experts


def _computed(config: Any, sampled: list[tuple[list[int], list[int], Any, Any]]) -> tuple[Any, Any, Any, Any]:
    """The learner's choices, the engine's, and the gaps of log-probabilities by the one and by the other."""
    import numpy as np
    import torch

    from chorus.learner.training.policy import load_policy

    policy = load_policy(config, torch.device("cpu"))
    half = config.model.dtype == "bfloat16"
    own, theirs, gaps, replayed = [], [], [], []
    for prompt, completion, logprobs, experts in sampled:
        ids = torch.tensor([[*prompt, *completion]])
        index = torch.arange(len(prompt) - 1, ids.shape[1] - 1)
        for replay, told in ((False, gaps), (True, replayed)):
            given = torch.from_numpy(experts).long() if replay else None
            computing = torch.autocast("cpu", torch.bfloat16, enabled=half)
            with _routers(policy.hf, given) as choices, torch.no_grad(), computing:
                logp, _ = policy(ids[:, :-1], index, ids[0, 1:][index])
            told.append(np.abs(logp.float().numpy() - logprobs))
            if not replay:
                own.append(torch.stack(choices, 1).numpy())
        theirs.append(experts)
    return tuple(map(np.concatenate, (own, theirs, gaps, replayed)))


@contextmanager
def _routers(hf: Any, experts: Any) -> Iterator[list[Any]]:
    """What each layer's router chooses [tokens, chosen]; `experts` in its place where there are some."""
    import torch

    choices: list[Any] = []

    def hook(module: Any, _: Any, said: Any) -> Any:
        logits, scores, indices = said
        choices.append(indices)
        if experts is None:
            return None
        given = experts[:, len(choices) - 1]
        weights = torch.softmax(logits.float(), -1).gather(-1, given)
        if getattr(module, "norm_topk_prob", True):  # mixtral always does
            weights = weights / weights.sum(-1, keepdim=True)
        return logits, weights.to(scores.dtype), given

    routers = [module for module in hf.modules() if type(module).__name__.endswith("TopKRouter")]
    hooks = [router.register_forward_hook(hook) for router in routers]
    try:
        yield choices
    finally:
        for each in hooks:
            each.remove()


if __name__ == "__main__":
    sys.exit(main())
