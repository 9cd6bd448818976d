"""What a model and a recipe's data say of each other, looked at before anything starts: seconds, and no torch.

    positions ─▶ tokenizer ─▶ its size against the embedding ─▶ chat tokens ─▶ markers ─▶ rows as prompts ─▶ disk

Each fault is one line with the mend; what may be meant so is a warning. Of large sources a sample is looked at: the
learner renders every row while the generators start.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chorus.deploy.sizes import check_disk
from chorus.problems.rendering import Renderer, load_tokenizer
from chorus.problems.sources import Placed, load_placed
from chorus.protocol.config.run import RunConfig
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.runtime.model_folder import load_tokenizer as load_as_generators_do
from chorus.protocol.runtime.model_folder import model_folder, tensors_of
from chorus.protocol.templates.decoding import CompletionDecoder
from chorus.protocol.templates.template import Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

log = logging.getLogger("chorus.run")
CHATML = ("<|im_start|>", "<|im_end|>")
_MOST_PROMPTS = 2000  # rendered and tokenized: about a second
_TEXT = "Tom has 3 apples.\n\n  a\tb = 12 + x^2\n    return\nHe"
# As vLLM looks for it; the least of them counts.
_POSITIONS = (
    *("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length", "max_seq_length"),
    "seq_len",
)
_SCALED_ALREADY = ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling", "default")
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")


def first_contact(config: RunConfig, resumed: bool = False) -> None:
    """Raises CannotGoOn. The model must be here, or be the hub's to give. `resumed`: the disk holds a part of it."""
    folder = model_folder(config.model.path)
    shape = _shape(config.model.path, folder)
    _check_positions(config, shape)
    tokenizer = load_tokenizer(config.model.path)
    _check_round_trip(config.model.path, tokenizer)
    _check_size(config.model.path, tokenizer, embedding_rows(folder, shape))
    _check_chat_tokens(config, tokenizer)
    templates = config.choose_templates()
    _check_markers(config.model.path, tokenizer, templates)
    _check_prompts(config, tokenizer, templates)
    if not resumed:
        check_disk(config)


def _shape(path: str, folder: Path) -> dict[str, Any]:
    """Of the model's part that reads text."""
    try:
        told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        parts = [told.get(name) for name in ("text_config", "llm_config", "language_config")]
        return {**told, **next((part for part in parts if isinstance(part, dict)), {})}
    except (OSError, ValueError, AttributeError) as error:
        raise CannotGoOn(
            f"model.path {path}: its config.json can't be read ({error}); give a Hugging Face folder or a hub name"
        ) from None


def positions(shape: dict[str, Any]) -> tuple[int, str] | None:
    """How many tokens a sequence of this model can have, and the key that says so."""
    if isinstance(own := shape.get("model_max_length"), int):
        return own, "model_max_length"
    told = [(shape[key], key) for key in _POSITIONS if isinstance(shape.get(key), int)]
    if not told:
        return None
    most, key = min(told)
    scaling = shape.get("rope_scaling") or shape.get("rope_parameters") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in _SCALED_ALREADY and "gemma3" not in str(shape.get("model_type")):
        most = int(most * (scaling.get("factor") or 1.0))
    return most, key


def _check_positions(config: RunConfig, shape: dict[str, Any]) -> None:
    found, context = positions(shape), config.model.context
    if found is None or context <= found[0] or os.environ.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN") == "1":
        return
    needed = config.problems.max_prompt_tokens + config.sampling.max_tokens
    also = f", and problems.max_prompt_tokens + sampling.max_tokens, which are {needed}" if needed > found[0] else ""
    raise CannotGoOn(
        f"model.context is {context}, and the model {config.model.path} has {found[0]} positions ({found[1]} in its "
        f"config.json); set model.context to {found[0]} or less{also}"
    )


def _check_round_trip(path: str, tokenizer: PreTrainedTokenizerFast) -> None:
    """By both loaders: what the learner's makes ids of, the generators' makes text of."""
    generators = load_as_generators_do(path)
    ids = tokenizer.encode(_TEXT, add_special_tokens=False)
    if _without_first_blank(again := generators.decode(ids, skip_special_tokens=False)) != _TEXT:
        raise CannotGoOn(
            f"model.path {path}: its tokenizer does not give back what it reads: {_TEXT!r} comes back as {again!r}; "
            "give the tokenizer.json that the model was trained with (its pre-tokenizer and decoder keep blanks and "
            "newlines)"
        )


def _without_first_blank(text: str) -> str:
    """Which some tokenizers put before a text."""
    return text.removeprefix(" ")


def embedding_rows(folder: Path, shape: dict[str, Any]) -> int | None:
    """By the weights' own headers where they are here, else by config.json."""
    rows = (tensor[0] for name, tensor in tensors_of(folder) if name.endswith(_EMBEDDINGS))
    return next(rows, shape.get("vocab_size"))


def _check_size(path: str, tokenizer: PreTrainedTokenizerFast, rows: int | None) -> None:
    beyond = sorted((id, token) for token, id in tokenizer.get_vocab().items() if rows is not None and id >= rows)
    # A token for padding that was added alone is never asked for.
    if not beyond or [token for _, token in beyond] == [tokenizer.pad_token]:
        return
    shown = ", ".join(repr(token) for _, token in beyond[:3])
    raise CannotGoOn(
        f"model.path {path}: its tokenizer has {len(beyond)} tokens that its embedding of {rows} rows does not hold "
        f"({shown}); give the tokenizer that belongs to the model, or widen the model (resize_token_embeddings) and "
        "save both"
    )


def _check_chat_tokens(config: RunConfig, tokenizer: PreTrainedTokenizerFast) -> None:
    if config.templates.chat != "chatml":
        return
    missing = [token for token in CHATML if len(tokenizer.encode(token, add_special_tokens=False)) != 1]
    if not missing:
        return
    what = f"model.path {config.model.path}: its tokenizer does not know {' and '.join(missing)}"
    if tokenizer.chat_template:
        raise CannotGoOn(
            f'{what}, with which templates.chat = "chatml" writes turns, and the model has a chat format of its own; '
            'set templates.chat = "model"'
        )
    log.warning(
        '%s, so that the turns of templates.chat = "chatml" are plain text to it; right for a base model that never '
        'saw a chat, else give the model\'s tokenizer with its chat template and set templates.chat = "model"',
        what,
    )


def _check_markers(path: str, tokenizer: PreTrainedTokenizerFast, templates: dict[str, Template]) -> None:
    """A marker that can't come out of the tokenizer could never be earned."""
    decoder = CompletionDecoder(tokenizer.backend_tokenizer, templates.values())
    added = [re.escape(token.content) for token in tokenizer.added_tokens_decoder.values()]
    apart = re.compile(f"({'|'.join(added) or '(?!)'})")
    for template in templates.values():
        for marker in template.markers:
            written = f"So{marker}then"
            # Of a tag that swallows the blanks beside it in a prompt, a model still writes what it likes.
            ways = [written], [part for part in apart.split(written) if part]
            ids = [[id for part in way for id in tokenizer.encode(part, add_special_tokens=False)] for way in ways]
            read, *_ = texts = decoder.decode_batch(ids)
            if written not in map(_without_first_blank, texts):
                raise CannotGoOn(
                    f"template {template.name}: it pays for {marker!r}, and the tokenizer of model.path {path} gives "
                    f"{written!r} back as {read!r}; leave it out of templates.names, or give a model that can write it"
                )


def _check_prompts(config: RunConfig, tokenizer: PreTrainedTokenizerFast, templates: dict[str, Template]) -> None:
    """Rows of problems.train under every template of the run."""
    renderer = Renderer(tokenizer, config.templates.chat, config.templates.chat_arguments)
    asked = [templates[name] for name in config.templates.names]
    control = set(tokenizer.all_special_ids)
    limit = config.problems.max_prompt_tokens
    looked_at, fitting, shortest, odd = 0, 0, None, []
    for source, placed in _sampled(config, max(1, _MOST_PROMPTS // len(asked))):
        try:
            longest = max(len(renderer.ids(template, placed.problem.problem)) for template in asked)
        except CannotGoOn as error:
            raise CannotGoOn(f"problems.train {source}: {placed.where}: {error}") from None
        looked_at += 1
        fitting += longest <= limit
        shortest = longest if shortest is None else min(shortest, longest)
        if control & set(tokenizer.encode(placed.problem.problem, add_special_tokens=False)):
            odd.append(placed.where)
    if looked_at and not fitting:
        raise CannotGoOn(
            f"problems.train: each of the {looked_at} prompts that were looked at is longer than "
            f"problems.max_prompt_tokens = {limit} under one of the templates (the shortest has {shortest} tokens); "
            "raise it"
        )
    if fitting < looked_at:
        log.warning(
            "problems.train: %d of %d prompts that were looked at are longer than problems.max_prompt_tokens = %d, and "
            "will be left out",
            *(looked_at - fitting, looked_at, limit),
        )
    if odd:
        log.warning(
            "problems.train: %d of %d rows that were looked at hold special tokens of the model as text, the first at "
            "%s; the model reads them as its own: remove them",
            *(len(odd), looked_at, odd[0]),
        )


def _sampled(config: RunConfig, most: int) -> Iterator[tuple[str, Placed]]:
    """At most so many rows, evenly from the sources that are here."""
    sources = [source for source in config.problems.train if not source.startswith("hub:")]
    for source in sources:
        rows = load_placed(source, config.reward.row_needs)
        yield from ((source, placed) for placed in rows[:: -(-len(rows) * len(sources) // most)])
