"""The learner's own visits: as each of its first steps ends, over all groups so far. What was found is said once."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from chorus.learner.metrics.doctor.examine import MIN_GROUPS, Look, examine
from chorus.learner.metrics.doctor.tokens import edges
from chorus.protocol.config.run import RunConfig
from chorus.protocol.messages import RolloutGroup
from chorus.protocol.rewards import Gates
from chorus.protocol.templates.template import Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

log = logging.getLogger("chorus.learner")


class Doctor:
    """Feed it every step in order, with its record."""

    def __init__(
        self, config: RunConfig, tokenizer: PreTrainedTokenizerFast, templates: Mapping[str, Template]
    ) -> None:
        self.config = config
        self._tokenizer = tokenizer
        self._templates = templates
        self._groups: list[RolloutGroup] = []
        self._gates: list[Gates] = []
        self._filtered: Counter[str] = Counter()
        self._said: set[str] = set()
        self._done = False

    def look(
        self, step: int, groups: list[RolloutGroup], filtered: Mapping[str, int], record: Mapping[str, Any]
    ) -> list[str]:
        """What this step newly shows, a sentence each; nothing after the first `doctor.steps`, once there are groups
        enough to judge."""
        if self._done or (step > self.config.doctor.steps and not self._groups):  # resumed in its middle
            return []
        if not self._groups:
            log.info("the tokens of a first answer: %s", "; ".join(edges(self._tokenizer, groups[0])))
        self._groups += groups
        self._gates += [Gates.of_record(record)] * len(groups)
        self._filtered.update(filtered)
        memory = record.get("memory_peak"), record.get("memory_limit")
        seen = (self._tokenizer, self._templates, self._filtered, *memory, self._gates)
        look = Look(self.config, self._groups, *seen)
        new = [finding for finding in examine(look) if finding.name not in self._said]
        self._said |= {finding.name for finding in new}
        if step >= self.config.doctor.steps and len(self._groups) >= MIN_GROUPS:
            self._done, self._groups, self._gates = True, [], []
        return [f"step {step}: {finding.text}" for finding in new]
