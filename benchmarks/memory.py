"""Memory of a learner's ranks: by what it grows while a model is loaded, then in a forward pass, and in an export.

A random model of half a billion parameters, in bfloat16 as hubs have them, is loaded in float32 by two and by four
ranks over gloo, which have imported everything. Peaks are the kernel's (VmHWM), files that are mapped included. Loading
may take 1.3 times a rank's part and the largest layer: what is no layer, the embedding above all, or a decoder layer.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.distributed.tensor import DTensor

from chorus.benchmarks.bench import Bench
from chorus.benchmarks.report import Row, at_most
from chorus.learner.training.policy import Policy
from chorus.learner.training.sharding import layers_of

GOAL = at_most(1.3)
_SHAPE = {
    "vocab_size": 32_000, "hidden_size": 1536, "intermediate_size": 4096, "num_hidden_layers": 16,
    "num_attention_heads": 12, "num_key_value_heads": 12, "tie_word_embeddings": True,
}  # fmt: skip
_LIMIT_S = 900


def measure(bench: Bench) -> Iterator[Row]:
    model = _model(bench.folder / "model", 2 if bench.quick else _SHAPE["num_hidden_layers"])
    for ranks in (2, 4):
        out = bench.folder / f"{ranks} ranks"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        subprocess.run([*command, "-m", __name__, str(model), str(out)], check=True, timeout=_LIMIT_S)
        found = [json.loads((out / f"{rank}.json").read_text()) for rank in range(ranks)]
        most = {key: max(rank[key] for rank in found) for key in found[0]}
        part, layer = most["part"], most["layer"]
        note = f"{ranks} ranks, {part:,.0f} MiB of parameters each; the largest layer is {layer:,.0f} MiB"
        name = "memory of a rank: growth while it loads, less the largest layer / its part"
        said = f"{note}; it grew by {most['load']:,.0f} MiB"
        yield Row(f"{name}, {ranks} ranks", "MiB", [most["load"] - layer], [part], GOAL, said)
        for what in ("forward pass", "export"):
            name = f"memory of a rank: growth at its first {what}, {ranks} ranks"
            yield Row(name, "MiB", [most[what]], [], None, note)


def _model(folder: Path, layers: int) -> Path:
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    told: dict[str, Any] = _SHAPE | {"num_hidden_layers": layers}
    config = LlamaConfig(**told, dtype="bfloat16", architectures=["LlamaForCausalLM"])
    config.save_pretrained(folder)
    with torch.device("meta"):
        shapes = {name: p.shape for name, p in LlamaForCausalLM(config).named_parameters()}
    torch.manual_seed(0)
    tensors = {name: (torch.randn(shape) * 0.02).to(torch.bfloat16) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def _status(key: str) -> float:
    """MiB of this process."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key)]
    return int(line.split()[1]) / 1024


def _begin() -> float:
    """What this process takes just now; its peak counts from here."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _rank(model: str, out: Path) -> None:
    import torch
    import torch.distributed as dist

    from chorus.learner.training import architecture, distributed
    from chorus.learner.training.export import Export
    from chorus.learner.training.policy import load_policy
    from chorus.learner.training.sharding import gathered, put_parts_back
    from chorus.protocol.config.run import RunConfig

    torch.set_num_threads(1)
    rank, _, device = distributed.join("")
    sections = {"model": {"path": model, "dtype": "float32"}, "problems": {"train": ["any"]}}
    config = RunConfig.model_validate(sections | {"templates": {"names": ["qwen-math"]}})
    dist.all_reduce(torch.ones(1))
    architecture.class_of(model)
    before = _begin()
    policy = load_policy(config, device)
    found = {"load": _status("VmHWM") - before}
    before = _begin()
    architecture.check_forward(policy, False, device)
    found["forward pass"] = _status("VmHWM") - before
    put_parts_back(policy)
    before = _begin()
    Export(policy, out / "export").write(lambda p: gathered(p.detach(), None), rank == 0)
    found["export"] = _status("VmHWM") - before
    found |= {"part": _part(policy) / 2**20, "layer": _largest(policy) / 2**20}
    out.mkdir(exist_ok=True)
    (out / f"{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def _part(policy: Policy) -> int:
    return sum(4 * p.to_local().numel() for p in policy.parameters() if isinstance(p, DTensor))


def _largest(policy: Policy) -> int:
    """Of what is gathered at a time: a decoder layer, or all that is none."""
    layers = [sum(4 * p.numel() for p in layer.parameters()) for layer in layers_of(policy.hf)]
    return max(*layers, sum(4 * p.numel() for p in policy.parameters()) - sum(layers))


if __name__ == "__main__":
    _rank(sys.argv[1], Path(sys.argv[2]))
