"""The draw of templates over a run: who draws with which weights at which admission.

A draw is a function of the run's seed, the epoch and the problem's id, under weights that are a function of the
step a group is admitted for and, where the recipe says `adaptive`, of the rollouts of the steps before:

    observe(step, groups) after every step ─▶ variance by template over the last `window` steps ─▶ weights
    restore(run, step) at a resume reads the same steps from the run's stored rollouts: same weights

So there is no state to save: what a resumed run needs is on disk before its steps train.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np

from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import Rollout
from chorus.protocol.rewards import OPEN, Gates, compose_group
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.rollouts import read_step, stored_steps
from chorus.protocol.templates.sampling import adapted, base_weights, draw
from chorus.protocol.templates.template import Template

MIN_GROUPS = 4  # a template with fewer groups in the window keeps its weight: too little is known of it


class TemplateDraw:
    """Raises CannotGoOn for a mixture that can't be drawn from at some step of the run."""

    def __init__(self, config: RunConfig, templates: Mapping[str, Template]) -> None:
        self.config = config
        self.templates = templates
        self._seen: deque[dict[str, list[float]]] = deque(maxlen=self._window)
        for step in sorted({1, *(stage.from_step for stage in config.templates.schedule)}):
            base_weights(*config.templates.at(step), templates, step)

    @property
    def _window(self) -> int:
        adaptive = self.config.templates.adaptive
        return adaptive.window if adaptive else 0

    def weights(self, step: int) -> dict[str, float]:
        """Template to its chance at a step, sum 1, by what has been observed so far."""
        base = base_weights(*self.config.templates.at(step), self.templates, step)
        adaptive = self.config.templates.adaptive
        return adapted(base, self.variance(), adaptive.bound) if adaptive else base

    def at(self, index: int, epoch: int, problem_id: str) -> str:
        """The template of an admission index. Its step is the one that it would train in if none were dropped."""
        weights = self.weights(index // self.config.learner.groups_per_step + 1)
        uniform = len(set(weights.values())) == 1
        return draw(self.config.run.seed, epoch, problem_id, list(weights), None if uniform else weights)

    def variance(self) -> dict[str, float]:
        """Mean variance of the rewards within a group, by template, over the window."""
        found: dict[str, list[float]] = {}
        for step in self._seen:
            for name, values in step.items():
                found.setdefault(name, []).extend(values)
        return {name: float(np.mean(values)) for name, values in found.items() if len(values) >= MIN_GROUPS}

    def observe(self, groups: list[Rollout], gates: Gates = OPEN) -> None:
        """Take in the groups of one step, in the order of steps. gates: of its reward."""
        if not self._window:
            return
        step: dict[str, list[float]] = {}
        for ready in sorted(groups, key=lambda r: r.group.task.index):
            parts = compose_group(self.config.reward_spec, ready.group.samples, gates)
            known = [part.total for part in parts if part.total is not None]
            if len(known) > 1:
                step.setdefault(ready.group.task.template, []).append(float(np.var(known)))
        self._seen.append(step)

    def restore(self, run: RunFolder, step: int) -> None:
        """Observe again what the run had observed after `step`."""
        self._seen.clear()
        if not self._window:
            return
        gates = {record["step"]: Gates.of_record(record) for record in run.records()}
        for number, path in stored_steps(run):
            if step - self._window < number <= step:
                self.observe(read_step(path), gates.get(number, OPEN))
