"""The tables of docs/gpus.md and deploy/README.md, as the dry run's own functions count them.

python deploy/tools/gpu_tables.py      (from the repository's root; a test compares)
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from chorus.deploy.hours import Speed, duration, expected
from chorus.deploy.learner_state import state_of
from chorus.deploy.memory import GIB, activation_bytes, fewest, verdict, weight_bytes
from chorus.deploy.placement import place
from chorus.deploy.shapes import Model, model_of
from chorus.deploy.sizes import redis_bytes, size
from chorus.protocol.config.load import load_config
from chorus.protocol.config.run import RunConfig

ROOT = Path(__file__).resolve().parents[2]
FLAGSHIP, SMALL = "recipes/qwen2.5-math-1.5b.toml", "recipes/qwen2.5-0.5b.toml"
ASYNC = "recipes/qwen2.5-math-1.5b_async.toml"
CARDS = (24, 80, 141)
LEAN_CARD = 80
CHECKPOINTED = "learner.gradient_checkpointing=true"


@dataclass(frozen=True)
class Machine:
    """A setting that was chosen for `cards` of `gib`; `mean` completion tokens are assumed."""

    title: str
    cards: int
    gib: int
    recipe: str
    settings: tuple[str, ...] = ()
    mean: int = 800

    @property
    def command(self) -> str:
        return " ".join(["chorus run", self.recipe, *(f"--set {shlex.quote(each)}" for each in self.settings)])

    @property
    def dry_run(self) -> str:
        return f"{self.command} --dry-run --gpus {self.cards} --gpu-gib {self.gib} --mean-tokens {self.mean}"


MACHINES = (
    Machine("1 x 24 GB", 1, 24, SMALL, mean=400),
    Machine("1 x 80 GB", 1, 80, FLAGSHIP, ("generator.gpu_memory=0.4", "learner.token_budget=4096")),
    Machine("2 x 80 GB", 2, 80, ASYNC, ("learner.token_budget=8192",)),
    Machine("4 x 80 GB", 4, 80, ASYNC, ("placement.learner_ranks=2",)),
    Machine("8 x 80 GB, synchronous as published", 8, 80, FLAGSHIP, ("placement.learner_ranks=4",)),
    Machine("8 x 80 GB, asynchronous", 8, 80, ASYNC, ("placement.learner_ranks=4",)),
    Machine(
        "8 x 80 GB, 7 billion parameters", 8, 80, ASYNC,
        ("model.path=Qwen/Qwen2.5-Math-7B", "placement.learner_ranks=4", CHECKPOINTED),
    ),
    Machine(
        "16 x 80 GB on two nodes, 7 billion", 16, 80, ASYNC,
        ("model.path=Qwen/Qwen2.5-Math-7B", "placement.learner_ranks=8", CHECKPOINTED),
    ),
)  # fmt: skip
MODELS = (
    ("Qwen/Qwen2.5-0.5B", SMALL), ("Qwen/Qwen2.5-Math-1.5B", FLAGSHIP), ("Qwen/Qwen2.5-3B", FLAGSHIP),
    ("Qwen/Qwen2.5-Math-7B", FLAGSHIP), ("Qwen/Qwen3-8B", FLAGSHIP), ("meta-llama/Llama-3.1-8B", FLAGSHIP),
    ("Qwen/Qwen2.5-14B", FLAGSHIP), ("Qwen/Qwen2.5-32B", FLAGSHIP), ("Qwen/Qwen2.5-72B", FLAGSHIP),
)  # fmt: skip


def _loaded(recipe: str, *settings: str) -> tuple[RunConfig, Model]:
    config = load_config(ROOT / recipe, settings, {})
    model = model_of(config.model.path)
    assert model is not None, recipe
    return config, model


def fewest_table() -> str:
    """Of every model the fewest cards, learner + generator, and what has to be set then."""
    rows = ["| model | recipe | " + " | ".join(f"{gib} GB" for gib in CARDS) + " |", "| --- " * (2 + len(CARDS)) + "|"]
    for name, recipe in MODELS:
        config, model = _loaded(recipe, f"model.path={name}")
        cells = []
        for gib in CARDS:
            found = fewest(config, model, gib)
            if not found.cards:
                cells.append("none")
                continue
            held = "shared" if found.cards == 1 else f"{found.split[0]} + {found.split[1]}"
            keys = [change for change in found.changes if not change.startswith("placement.")]
            cells.append(f"{found.cards} ({held})" + "".join(f", {_MARKS[key.partition('=')[0]]}" for key in keys))
        rows.append(f"| `{name}` | `{Path(recipe).stem}` | {' | '.join(cells)} |")
    return "\n".join(rows)


_CODED, _HALF, _AWAY = "learner.optimizer=adamw8bit", "learner.master=bfloat16", "learner.offload=optimizer"
LEAN = (
    ("adamw", ()),
    ("adamw8bit", (_CODED,)),
    ("adamw8bit, bfloat16 master", (_CODED, _HALF)),
    ("the same, moments on the host", (_CODED, _HALF, _AWAY)),
    ("adapters of rank 32", ("model.lora.rank=32",)),
)


def lean_table() -> str:
    """Of every model the learner's state, and the fewest cards of 80 GB, with each way to keep less."""
    rows = ["| model | " + " | ".join(title for title, _ in LEAN) + " |", "| --- " * (1 + len(LEAN)) + "|"]
    for name, recipe in MODELS:
        cells = []
        for _, settings in LEAN:
            config, model = _loaded(recipe, f"model.path={name}", *settings)
            found = fewest(config, model, LEAN_CARD)
            cells.append(f"{size(state_of(config, model).on_cards)}, {found.cards or 'none'}")
        rows.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(rows)


LONG = (
    "model.context=32768", "sampling.max_tokens=31744", "problems.max_prompt_tokens=1024",
    "learner.token_budget=32768", CHECKPOINTED,
)  # fmt: skip
_HOST, _BOTH = "learner.offload=activations", "learner.offload=both"
LONGER = (
    ("layers checkpointed", ()),
    ("activations on the host", (_HOST,)),
    ("adamw8bit, bfloat16 master", (_CODED, _HALF)),
    ("the same, activations and moments on the host", (_CODED, _HALF, _BOTH)),
)
LONG_RANKS = 8  # that a micro-batch's memory is told for


def long_table() -> str:
    """Of every larger model what a micro-batch of one sequence of 32k tokens keeps on a card, and the fewest cards."""
    rows = ["| model | " + " | ".join(title for title, _ in LONGER) + " |", "| --- " * (1 + len(LONGER)) + "|"]
    for name, recipe in MODELS[3:]:
        cells = []
        for _, settings in LONGER:
            config, model = _loaded(recipe, f"model.path={name}", *LONG, *settings)
            assert model.shape is not None
            kept = size(activation_bytes(config, model.shape, model.count, LONG_RANKS))
            cells.append(f"{kept}, {fewest(config, model, LEAN_CARD).cards or 'none'}")
        rows.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(rows)


_MARKS = {"learner.token_budget": "b", "learner.gradient_checkpointing": "c", "generator.gpu_memory": "m"}


def machines_table() -> str:
    rows = ["| machine | command | learner, a rank | expected |", "| --- | --- | --- | --- |"]
    for machine in MACHINES:
        config, model = _loaded(machine.recipe, *machine.settings)
        placement = place(config, [0, 1], list(range(machine.cards)))
        found = verdict(config, model, placement, machine.gib)
        hours = expected(config, model, placement, Speed(mean_tokens=machine.mean))
        assert hours is not None
        assert found.as_is is None, machine.title
        need = found.needs.learner
        rows.append(
            f"| {machine.title} | `{machine.command}` | {need.bytes / GIB:,.1f} of {need.room / GIB:,.1f} GiB | "
            f"{duration(3600 * hours.whole)} |"
        )
    return "\n".join(rows)


def sizes_table() -> str:
    """What deploy/README.md derives requests and limits from."""
    rows = [
        "| recipe, model | learner, a rank: state + activations | generator: weights | on Redis at a time |",
        "| --- | --- | --- | --- |",
    ]
    asynchronous = ("staleness.target=1", "staleness.max=4")
    for title, ranks, settings in (
        ("`qwen2.5-math-1.5b`, one rank", 1, asynchronous),
        ("the same, `learner.gradient_checkpointing`, as in overlay `gpu`", 1, (*asynchronous, CHECKPOINTED)),
        ("the same on four ranks, as in overlay `gpu-4`", 4, asynchronous),
        (
            "the same recipe, Qwen2.5-Math-7B, four ranks, with gradient checkpointing, as in overlay `gpu-7b`", 4,
            (*asynchronous, CHECKPOINTED, "model.path=Qwen/Qwen2.5-Math-7B"),
        ),
    ):  # fmt: skip
        config, model = _loaded(FLAGSHIP, *settings)
        assert model.shape is not None
        activations = activation_bytes(config, model.shape, model.count, ranks)
        rows.append(
            f"| {title} | {size(16 * model.count / ranks)} + {size(activations)} | "
            f"{size(weight_bytes(config, model, 1))} | {size(redis_bytes(config))} |"
        )
    return "\n".join(rows)


TABLES = {
    "docs/gpus.md": {"fewest": fewest_table, "lean": lean_table, "long": long_table, "machines": machines_table},
    "deploy/README.md": {"sizes": sizes_table},
}


def written(text: str, file: str) -> str:
    """The page with its tables as they are counted today."""
    for name, table in TABLES[file].items():
        found = re.search(rf"(<!-- table {name}[^\n]*-->\n).*?\n<!-- end -->", text, re.DOTALL)
        assert found, f"{file} has no place for the table {name}"
        text = f"{text[: found.start()]}{found[1]}\n{table()}\n\n<!-- end -->{text[found.end() :]}"
    return text


def main() -> None:
    for file in TABLES:
        page = ROOT / file
        page.write_text(written(page.read_text(encoding="utf-8"), file), encoding="utf-8")


if __name__ == "__main__":
    main()
