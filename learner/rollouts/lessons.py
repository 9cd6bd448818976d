"""Fine-tuning on critiques: `[finetune]`'s examples as token ids, and which of them make each update.

Every pass over the examples is a permutation of its own, by the run's seed; updates take `finetune.batch` of them in
turn, over the ends of passes. So the batch of a step is a function of seed, step and examples, and what was recorded
before a crash is trained again as it was recorded.

An example's prompt asks to critique a candidate, in the run's chat format and without a template's texts; its target is
the critique and the end token. Special tokens in texts are broken up: nobody's candidate ends the user's turn.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import chain, count, islice
from random import Random
from typing import Any

from chorus.learner.rollouts.admission import Admission
from chorus.problems.critiques import Critique, escaped, load_critiques, question
from chorus.protocol.config.run import RunConfig
from chorus.protocol.run_folder.demonstrations import Demonstration, read_batch, write_batch
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.templates.template import Template

log = logging.getLogger("chorus.learner")
BARE = Template(name="critique", category="free-form", system="", answer_place="in the critique's last box")


class Lessons:
    """Raises CannotGoOn where a source can't be read or every example is too long."""

    def __init__(self, config: RunConfig, admission: Admission, run: RunFolder) -> None:
        self._config = config
        self._admission = admission
        self._run = run
        longest = config.finetune.max_tokens or config.model.context
        try:
            critiques = [c for source in config.finetune.data for c in load_critiques(source)]
        except (OSError, ValueError) as error:
            raise CannotGoOn(f"finetune.data: {error}") from None
        examples = [self._example(k, critique) for k, critique in enumerate(critiques)]
        self.examples = [d for d in examples if len(d.prompt) + len(d.target) <= longest]
        if not self.examples:
            raise CannotGoOn(f"finetune.data: none of {len(examples)} critiques fits into {longest} tokens; raise that")
        if left_out := len(examples) - len(self.examples):
            log.warning("finetune.data: %d of %d critiques are left out: too long", left_out, len(examples))

    def _example(self, number: int, c: Critique) -> Demonstration:
        tokenizer: Any = self._admission.tokenizer
        if (end := tokenizer.eos_token_id) is None:
            raise CannotGoOn("finetune.data: the tokenizer has no end token, so no critique could end; give it one")
        special = tokenizer.all_special_tokens
        prompt = self._admission.ids(BARE, question(escaped(c.problem, special), escaped(c.candidate, special)))
        head, verdict = escaped(c.critique.strip(), special), ""
        place = head.lower().rfind(c.verdict)
        if place >= 0:
            head, verdict = head[:place], head[place:]
        words = [tokenizer.encode(text, add_special_tokens=False) if text else [] for text in (head, verdict)]
        return Demonstration(f"critique/{number}", BARE.name, prompt, [*words[0], *words[1], end], len(words[1]))

    def batch(self, step: int) -> list[Demonstration]:
        """Of a step, from 1. On the disk before it returns; what was recorded before a crash comes again."""
        if not (batch := read_batch(self._run, step)):
            size = self._config.finetune.batch
            batch = [self.examples[k] for k in islice(self._order(), (step - 1) * size, step * size)]
            write_batch(self._run, step, batch)
        return batch

    def _order(self) -> Iterator[int]:
        return chain.from_iterable(map(self._passes, count()))

    def _passes(self, number: int) -> list[int]:
        order = list(range(len(self.examples)))
        Random(f"{self._config.run.seed} lessons {number}").shuffle(order)
        return order

    def passes(self, step: int) -> float:
        """Over the examples, up to the end of a step."""
        return step * self._config.finetune.batch / len(self.examples)
