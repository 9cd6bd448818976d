"""Shards that earlier versions wrote, `step-000012.msgpack.gz`, as parts of today."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from chorus.protocol.config.load import load_config
from chorus.protocol.config.run import RunConfig
from chorus.protocol.rewards import compose_group
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.rollout_rows import Decode, Reading, rows_of
from chorus.protocol.run_folder.rollouts import Part, read_step, save_table, table_of
from chorus.protocol.runtime.model_folder import load_tokenizer
from chorus.protocol.templates.decoding import CompletionDecoder


def decoder(run: Path, config: RunConfig) -> tuple[Decode, Decode]:
    """(completions, prompts) as text, by the tokenizer of the run's newest export, which moves with the folder, or else
    of the model it began with. Raises CannotGoOn where there is neither."""
    exports = sorted(run.glob("checkpoints/step-*/huggingface/tokenizer.json"))
    tokenizer = load_tokenizer(str(exports[-1].parent) if exports else config.model.path)
    completions = CompletionDecoder(tokenizer, config.choose_templates().values()).decode_batch
    return completions, lambda batch: tokenizer.decode_batch(batch, skip_special_tokens=False)


def reading_of(run: RunFolder) -> Reading:
    """How a run's rows are put into words, from its folder alone. Raises CannotGoOn."""
    config = load_config(run.config, (), {})
    completions, prompts = decoder(run.path, config)
    return Reading(prompts, completions, partial(compose_group, config.reward_spec))


def convert(part: Part, target: Path, reading: Reading | None) -> None:
    """Write a shard as a part that reads the same; the shard stays. Raises what `read_step` raises."""
    groups = read_step(part.path)
    save_table(target, table_of(rows_of(part.first, groups, reading, None)))
    if [r.group for r in read_step(target)] != [r.group for r in groups]:
        target.unlink()
        raise ValueError("it does not read the same as Parquet")
