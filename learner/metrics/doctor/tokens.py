"""A prompt as its tokenizer has cut it: what is odd about that, and the exact tokens around prompt and answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from chorus.protocol.messages import RolloutGroup, unpack_ids
from chorus.protocol.templates.template import Template

if TYPE_CHECKING:  # it takes seconds
    from transformers import PreTrainedTokenizerFast

SHOWN = 8  # tokens on each side of an edge
_LONGEST = 24  # characters of one
_CHAT_MARK = re.compile(r"<\|[^|<>\s]{1,32}\|>|<(?:start|end)_of_turn>")


def oddities(tokenizer: PreTrainedTokenizerFast, template: Template, ids: list[int], most: float) -> Iterator[str]:
    """What no tokenizer that fits the model and its chat format does to a prompt, in words.

    most: tokens a character.
    """
    text = decoded(tokenizer, ids)
    if unknown := sum(id == tokenizer.unk_token_id for id in ids):
        yield f"{unknown} of its {len(ids)} tokens are {tokenizer.unk_token!r}, which stands for what it does not know"
    for words in (template.system, template.user_suffix, template.prefill):
        if words.strip() not in text:
            yield f"decoded again, the prompt lacks the template's own words ({words.strip()[:40]!r})"
            break
    split = [m for m in dict.fromkeys(_CHAT_MARK.findall(text)) if len(_encoded(tokenizer, m)) > 1]
    if split:
        parts = " ".join(map(repr, tokenizer.convert_ids_to_tokens(_encoded(tokenizer, split[0]))))
        yield f"{', '.join(split)} of the chat format is no token of this model: it becomes {parts}"
    if text and len(ids) / len(text) > most:
        yield f"{len(ids)} tokens for {len(text)} characters"


def begin_fault(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> str | None:
    """A token that begins a text twice, or not at all where the tokenizer itself would put it."""
    begin = tokenizer.bos_token_id
    if begin is None or not ids:
        return None
    if ids[:2] == [begin, begin]:
        return f"prompts begin with {tokenizer.bos_token!r} twice"
    if ids[0] != begin and tokenizer.encode("1")[:1] == [begin]:
        return f"the tokenizer begins every text with {tokenizer.bos_token!r}, and prompts do not"
    return None


def edges(tokenizer: PreTrainedTokenizerFast, group: RolloutGroup, number: int = 0) -> list[str]:
    """The tokens at the end of a group's prompt, and where one of its answers begins and ends, with their ids."""
    prompt, sample = unpack_ids(group.task.prompt_ids).tolist(), group.samples[number]
    answer = unpack_ids(sample.token_ids).tolist()
    if len(answer) <= 2 * SHOWN:
        whole = [f"answer             {_pieces(tokenizer, answer)}"]
    else:
        whole = [f"answer begins with {_pieces(tokenizer, answer[:SHOWN])}"]
        whole += [f"answer ends with   {_pieces(tokenizer, answer[-SHOWN:])}"]
    whole[-1] += f"  ({sample.finish_reason}, {len(answer)} tokens)"
    begins = f"prompt begins with {_pieces(tokenizer, prompt[:SHOWN])}"
    return [begins, f"prompt ends with   {_pieces(tokenizer, prompt[-SHOWN:])}", *whole]


def named(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> str:
    """Token ids with their texts, for a sentence."""
    return ", ".join(f"{tokenizer.convert_ids_to_tokens(id)} ({id})" for id in ids) or "none"


def decoded(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> str:
    text = tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return str(text)


def _encoded(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


def _pieces(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> str:
    """Each token as the tokenizer writes it, with its id."""
    return " ".join(f"{str(tokenizer.convert_ids_to_tokens(id))[:_LONGEST]!r}:{id}" for id in ids)
