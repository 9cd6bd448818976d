"""Every architecture of tests/support/architectures.py through a real vLLM: `make models`.

Each trains two steps with a sync after each, the weight check within 1e-4; resumes to the bit; and exports a folder
that transformers and vLLM both load to the learner's log-probabilities. Those of --lora do so through adapters, too.
One process each, a row of docs/models.md each.

    python tests/models/run.py --only qwen3/gemma2 --lora llama
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / "support")]
LIMIT_S = 300
TOLERANCE = 1e-4
PREFIXES = [list(range(5, 5 + length)) for length in (3, 9, 24, 30)]


def main() -> int:
    from architectures import ARCHITECTURES

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="names, with / between; empty: all")
    parser.add_argument("--lora", default="llama/qwen2", help="these through adapters, with / between")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one is not None:
        return asyncio.run(_one(*asked.one.split("; ")))
    names = [name for name in ARCHITECTURES if not asked.only or name in asked.only.split("/")]
    runs = [f"{name}; whole" for name in names] + [f"{name}; lora" for name in asked.lora.split("/") if name]
    print(f"| model, {date.today()} | trains | gap of the syncs | resumes | gap of the export |")
    print("| --- | --- | --- | --- | --- |", flush=True)
    failed = 0
    for run in runs:
        command = [sys.executable, __file__, "--one", run]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
            row = done.stdout.strip().rpartition("\n")[2]
            if done.returncode or not row.startswith("|"):
                last = (done.stderr.strip() or done.stdout.strip()).rpartition("\n")[2]
                row, failed = f"| {run} | {last[:300]} | | | |", failed + 1
                print(done.stderr[-3000:], file=sys.stderr, flush=True)
        except subprocess.TimeoutExpired:
            row, failed = f"| {run} | not done after {LIMIT_S} s | | | |", failed + 1
        print(row, flush=True)
    return failed > 0


async def _one(name: str, how: str) -> int:
    import torch
    from architectures import save_architecture

    from chorus.learner.training.distributed import DistributedTrainer
    from chorus.protocol.messages import Version
    from chorus.protocol.run_folder.checkpoints import Manifest

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model = save_architecture(name, Path(folder) / "model")
        config, device = _config(model, how), torch.device("cpu")
        crew = DistributedTrainer(config, device, None, check_exports=True)
        async with _engine(config, folder) as engine:
            gaps = await _syncs(config, crew, engine)
        saved = crew.save(Path(folder), Manifest(2, 0, {}))
        meant = crew.snapshot(Version(1, 3), PREFIXES)
        crew.step(_minibatches())
        resumed = DistributedTrainer(config, device, saved)
        resumed.step(_minibatches())
        again = resumed.trainer.policy.parameters()
        for (part, a), b in zip(crew.trainer.policy.named_parameters(), again, strict=True):
            assert torch.equal(a, b), f"{part} is another after a resume"
        export = await _exported(_config(saved / "huggingface", "whole"), meant, folder)
        title = name if how == "whole" else f"{name}, adapters"
        print(f"| {title} | yes | {max(gaps):.1e} | to the bit | {export:.1e} |", flush=True)
    return 0


def _config(model: Path, how: str) -> Any:
    from chorus.protocol.config.run import RunConfig

    lora = {"lora": {"rank": 4, "alpha": 8}} if how == "lora" else {}
    return RunConfig.model_validate(
        {
            "model": {"path": str(model), "dtype": "float32", "context": 128, **lora},
            "problems": {"train": ["any"], "max_prompt_tokens": 64},
            "templates": {"names": ["qwen-math"]},
            "sampling": {"max_tokens": 64},
            "learner": {"lr": 1e-3},
            "generator": {"vllm_args": ["--enforce-eager"], "max_num_seqs": 8},
        }
    )


def _minibatches() -> Any:
    import numpy as np

    from chorus.learner.training.batch import TrainingSequence

    rows = [np.arange(5 + k, 37 + k, dtype=np.int32) for k in range(2)]
    behaviour = np.full(12, -4.0, dtype=np.float32)
    return [[TrainingSequence(r[:20], r[20:], behaviour, a) for r, a in zip(rows, (1.0, -1.0), strict=True)]]


def _engine(config: Any, folder: str) -> Any:
    from contextlib import asynccontextmanager

    from chorus.generator.vllm_engine import VllmEngine

    @asynccontextmanager
    async def started() -> Any:
        engine = VllmEngine(config, Path(folder) / "vllm.log", {min(os.sched_getaffinity(0))})
        try:
            await engine.start()
            yield engine
        finally:
            await engine.stop()

    return started()


async def _syncs(config: Any, crew: Any, engine: Any) -> list[float]:
    """As the model is, then after each of two steps."""
    from sender import Sender

    from chorus.generator.weight_sync import WeightSync
    from chorus.protocol.messages import Version
    from chorus.protocol.metrics.processes import GeneratorMetrics

    sender = Sender(config, WeightSync(engine, "g", False, GeneratorMetrics()))
    gaps = []
    for step in range(3):
        if step:
            assert not crew.step(_minibatches()).skipped_updates
        report = await sender.sync(crew.snapshot(Version(1, step), PREFIXES))
        assert report.ok, report.detail
        assert report.gap_mean <= TOLERANCE, f"step {step}: log-probabilities are off by {report.gap_mean:.2g}"
        gaps.append(report.gap_mean)
    return gaps


async def _exported(config: Any, meant: Any, folder: str) -> float:
    """The largest gap of transformers and of vLLM, each with the export, to the learner."""
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM

    from chorus.protocol.messages import SyncOffer, unpack_floats, unpack_ids

    how: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": "eager"}
    model: Any = AutoModelForCausalLM.from_pretrained(config.model.path, **how)
    gaps = []
    for check in meant.checks:
        ids = torch.from_numpy(unpack_ids(check.prefix).astype(np.int64))[None]
        with torch.no_grad():
            logp = torch.log_softmax(model(ids).logits[0, -1], -1)[unpack_ids(check.token_ids).tolist()]
        gaps.append(float(np.abs(logp.numpy() - unpack_floats(check.logprobs)).mean()))
    assert max(gaps) <= TOLERANCE, f"transformers and the learner are {max(gaps):.2g} apart on the export"
    offer = SyncOffer(
        version="1.3", group="g", backend="gloo", store_host="127.0.0.1", store_port=1, world_size=2, timeout_s=60.0,
        bucket_bytes=2**20, tensors=[], temperature=1.0, tolerance=TOLERANCE, checks=meant.checks,
    )  # fmt: skip
    async with _engine(config, folder) as engine:
        found = await engine.logprob_gaps(offer)
    assert float(found.mean()) <= TOLERANCE, f"vLLM and the learner are {found.mean():.2g} apart on the export"
    return max(*gaps, float(found.mean()))


if __name__ == "__main__":
    sys.exit(main())
