"""The starter's tokenizer: one token for a phrase, one for a number, bytes for everything else.

The text is first cut into the fixed phrases of the templates, runs of digits, and the rest; a cut that is in
the vocabulary becomes one token, any other falls back to its UTF-8 bytes. So every text round-trips exactly,
and the prompts of the demo have about twenty tokens.
"""

import re
from collections.abc import Iterable
from typing import Any, cast

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from chorus.protocol.templates.template import Template
from chorus.starter.solutions import WORDS, layout_pieces

END_OF_TEXT = "<|endoftext|>"  # padding
END_OF_TURN = "<|im_end|>"  # ends a completion
SPECIAL = [END_OF_TEXT, "<|im_start|>", END_OF_TURN]
END_OF_TEXT_ID, _, END_OF_TURN_ID = range(3)  # the special tokens come first in the vocabulary
NUMBERS = [str(n) for n in range(100)]


def build_tokenizer(templates: Iterable[Template], words: Iterable[str] = ()) -> PreTrainedTokenizerFast:
    """A tokenizer that knows these words and the templates' phrases; ids depend on the sets, not on their order."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())  # 256 printable stand-ins, one a byte
    phrases = sorted(
        _phrases(templates) | set(words), key=lambda phrase: (-len(phrase), phrase)
    )  # the longest match wins
    units = [*SPECIAL, *alphabet, *(_as_bytes(text) for text in [*phrases, *NUMBERS])]
    vocabulary = {unit: number for number, unit in enumerate(dict.fromkeys(units))}

    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    cut = "|".join([*(re.escape(phrase) for phrase in phrases), r"[0-9]+"])
    byte_level: Any = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = cast(
        Any, pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(cut), "isolated"), byte_level])
    )
    tokenizer.decoder = cast(Any, decoders.ByteLevel())
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TURN,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )


def _phrases(templates: Iterable[Template]) -> set[str]:
    """Every fixed phrase of prompts and completions that is longer than one byte."""
    phrases = {"system\n", "user\n", "assistant\n", *WORDS}
    for template in templates:
        phrases.update([template.system, template.user_suffix, template.prefill, *layout_pieces(template)])
    return {phrase for phrase in phrases if len(phrase.encode()) > 1}


def _as_bytes(text: str) -> str:
    """The text in the byte-level alphabet, as the model's vocabulary spells it."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return "".join(piece for piece, _ in byte_level.pre_tokenize_str(text))
