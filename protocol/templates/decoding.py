"""A completion's token ids as the text that is graded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from chorus.protocol.templates.template import Template

if TYPE_CHECKING:  # who only serves grades has none
    from tokenizers import Tokenizer

_TAG = re.compile(r"</?[A-Za-z][\w-]*>")


class CompletionDecoder:
    """Completions as text: without the tokens that steer a model (its end, padding, turns of a chat), and with the tags
    that templates ask for, where they are special tokens of the model, too."""

    def __init__(self, tokenizer: Tokenizer, templates: Iterable[Template]) -> None:
        asked = [part for t in templates for part in (*t.markers, t.prefill, *_TAG.findall(t.system))]
        self._tokenizer = tokenizer
        self._left_out = {
            id
            for id, token in tokenizer.get_added_tokens_decoder().items()
            if token.special and not any(token.content in part for part in asked)
        }

    def decode_batch(self, sequences: Sequence[Sequence[int]]) -> list[str]:
        kept = [[id for id in ids if id not in self._left_out] for ids in sequences]
        return self._tokenizer.decode_batch(kept, skip_special_tokens=False)
