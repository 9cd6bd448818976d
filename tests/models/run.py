"""Every architecture of tests/support/architectures.py through a real vLLM: `make models`.

Each trains two steps and exports; a vLLM that begins with the export must have the learner's log-probabilities, as
transformers must, and have them again after each of two syncs, all within 1e-4; and a resume must be exact to the bit.
Those of --lora do so through adapters, whose vLLM begins with the untouched model. Each is a process with a vLLM, and a
row of docs/models.md, where --write puts it in place of the one of before.

    python tests/models/run.py --only qwen3/gemma2 --lora llama --write
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import sys
import tempfile
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / "support")]
PAGE = ROOT / "docs" / "models.md"
LIMIT_S = 300
TOLERANCE = 1e-4
PREFIXES = [list(range(5, 5 + length)) for length in (3, 9, 24, 30)]
BEGIN, END = "<!-- table models, made by tests/models/run.py -->\n", "\n<!-- end -->"
HEAD = (
    "| model | seen | largest gap of two syncs | resumes | largest gap of the export |\n| --- | --- | --- | --- | --- |"
)


def main() -> int:
    from architectures import ARCHITECTURES
    from sender import Sender  # noqa: F401, with all that takes seconds to import

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="names, with / between; empty: all")
    parser.add_argument("--lora", default="", help="these through adapters, with / between")
    parser.add_argument("--write", action="store_true", help="put the rows into docs/models.md")
    asked = parser.parse_args()
    names = [name for name in ARCHITECTURES if not asked.only or name in asked.only.split("/")]
    runs = [f"{name}; whole" for name in names] + [f"{name}; adapters" for name in asked.lora.split("/") if name]
    failed = 0
    for run in runs:
        title = run.removesuffix("; whole").replace("; ", ", ")
        seen, ok = _seen(run)
        failed += not ok
        row = f"| {title} | {date.today()} | {seen} |"
        print(row, flush=True)
        if asked.write:
            PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), title, row), encoding="utf-8")
    return failed > 0


def _seen(run: str) -> tuple[str, bool]:
    """The row of one, and whether it is good; else what the last line of its words says.

    A process of its own, forked, since the libraries are imported once for all.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as words:
        process = multiprocessing.get_context("fork").Process(target=_apart, args=(run, words.fileno()))
        process.start()
        process.join(LIMIT_S)
        if process.is_alive():
            process.kill()  # its vLLM ends with it
            return f"**not done after {LIMIT_S} s** | | ", False
        words.seek(0)
        said = words.read().strip()
    last = said.rpartition("\n")[2]
    if not process.exitcode and last.startswith("seen: "):
        return last.removeprefix("seen: "), True
    if not process.exitcode and last.startswith("refused: "):
        return f"{last} | | ", True
    print(said[-3000:], file=sys.stderr, flush=True)
    return f"**{last[:300].replace('|', '/')}** | | ", False


def _apart(run: str, words: int) -> None:
    os.dup2(words, sys.stdout.fileno())
    os.dup2(words, sys.stderr.fileno())
    asyncio.run(_one(*run.split("; ")))


def written(page: str, title: str, row: str) -> str:
    """The page with this row in its table, in the order of the alphabet, in place of the one of the same title."""
    before, _, rest = page.partition(BEGIN)
    table, _, after = rest.partition(END)
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in table.splitlines()[2:]}
    lines = [line for _, line in sorted((rows | {title: row}).items())]
    return before + BEGIN + "\n".join([HEAD, *lines]) + END + after


async def _one(name: str, how: str) -> None:
    import torch
    from architectures import save_architecture
    from sender import Sender

    from chorus.generator.weight_sync import WeightSync
    from chorus.learner.training.distributed import DistributedTrainer
    from chorus.protocol.messages import Version
    from chorus.protocol.metrics.processes import GeneratorMetrics
    from chorus.protocol.run_folder.checkpoints import Manifest
    from chorus.protocol.runtime.exits import CannotGoOn

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model = save_architecture(name, Path(folder) / "model")
        config, device = _config(model, how), torch.device("cpu")
        try:
            crew = DistributedTrainer(config, device, None, check_exports=True)
        except CannotGoOn as error:
            print(f"refused: {str(error).partition(': ')[2]}", flush=True)
            return
        for _ in range(2):
            _step(crew)
        saved = crew.save(Path(folder), Manifest(2, 0, {})).wait()
        meant = crew.snapshot(Version(fence=1, step=2), PREFIXES)
        resumed = DistributedTrainer(config, device, saved)
        export, gaps = [_of_transformers(saved / "huggingface", meant)], []
        async with _engine(_config(model if how == "adapters" else saved / "huggingface", how), folder) as engine:
            if how == "whole":
                export.append(float((await engine.logprob_gaps(_offer(meant))).mean()))
            sender = Sender(config, WeightSync(engine, "g", False, GeneratorMetrics()))
            for step in (3, 4):
                _step(crew)
                report = await sender.sync(crew.snapshot(Version(fence=1, step=step), PREFIXES))
                assert report.ok, report.detail
                gaps.append(report.gap_mean)
        for _ in range(2):
            _step(resumed)
        again = resumed.trainer.policy.parameters()
        for (part, a), b in zip(crew.trainer.policy.named_parameters(), again, strict=True):
            assert torch.equal(a, b), f"{part} is another after a resume"
        for what, gap in (("the export", max(export)), ("a sync", max(gaps))):
            assert gap <= TOLERANCE, f"after {what} log-probabilities are {gap:.2g} apart"
        print(f"seen: {max(gaps):.1e} | to the bit | {max(export):.1e}", flush=True)


def _config(model: Path, how: str) -> Any:
    from chorus.protocol.config.run import RunConfig

    lora = {"lora": {"rank": 4, "alpha": 8}} if how == "adapters" else {}
    return RunConfig.model_validate(
        {
            "model": {"path": str(model), "dtype": "float32", "context": 128, **lora},
            "problems": {"train": ["any"], "max_prompt_tokens": 64},
            "templates": {"names": ["qwen-math"]},
            "sampling": {"max_tokens": 64},
            "learner": {"lr": 1e-3},
            "generator": {"vllm_args": ["--enforce-eager"], "max_num_seqs": 8, "kv_cache_gib": 1},
        }
    )


def _step(crew: Any) -> None:
    import numpy as np

    from chorus.learner.training.batch import TrainingSequence

    rows = [np.arange(5 + k, 37 + k, dtype=np.int32) for k in range(2)]
    behaviour = np.full(12, -4.0, dtype=np.float32)
    batch = [TrainingSequence(r[:20], r[20:], behaviour, a) for r, a in zip(rows, (1.0, -1.0), strict=True)]
    assert not crew.step([batch]).skipped_updates, "an update without finite gradients"


@asynccontextmanager
async def _engine(config: Any, folder: str) -> Any:
    from chorus.generator.vllm_engine import VllmEngine

    engine = VllmEngine(config, Path(folder) / "vllm.log", {min(os.sched_getaffinity(0))})
    try:
        await engine.start()
        yield engine
    finally:
        await engine.stop()


def _of_transformers(export: Path, meant: Any) -> float:
    """The largest gap of transformers, with the export, to the learner."""
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM

    from chorus.protocol.messages import unpack_floats, unpack_ids

    how: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": "eager"}
    model: Any = AutoModelForCausalLM.from_pretrained(export, **how)
    gaps = []
    for check in meant.checks:
        ids = torch.from_numpy(unpack_ids(check.prefix).astype(np.int64))[None]
        with torch.no_grad():
            logp = torch.log_softmax(model(ids).logits[0, -1], -1)[unpack_ids(check.token_ids).tolist()]
        gaps.append(float(np.abs(logp.numpy() - unpack_floats(check.logprobs)).mean()))
    return max(gaps)


def _offer(meant: Any) -> Any:
    from chorus.protocol.messages import SyncOffer

    return SyncOffer(
        version="1.2", group="g", backend="gloo", store_host="127.0.0.1", store_port=1, world_size=2, timeout_s=60.0,
        bucket_bytes=2**20, tensors=[], temperature=1.0, tolerance=TOLERANCE, checks=meant.checks,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
