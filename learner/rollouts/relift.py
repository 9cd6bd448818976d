"""ReLIFT (arXiv 2506.07527): problems that no sample solved are held until there are enough of them, then the policy is
trained on their stored solutions.

    trained group, every sample wrong ─▶ held, newest in front ─▶ relift.batch of them ─▶ recorded ─▶ one update
                                         (in the checkpoint)        from the front          (on disk)   (in the loop)

With relift.batch = 128 and 100 held, 40 more make one update of the newest 128, and the oldest 12 stay.

Invariants: what is held is a function of the trained groups in their order, so a step that comes again leaves the same
held. A batch is on the disk before it trains; a step that comes again takes that one, whatever the recipe says by then.
`updates` counts the batches so far, rolled back or not: the weights after step n and `updates` batches are version
n + updates, which nobody has seen before. Nothing here is a rollout: the ledger never hears of it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from statistics import fmean
from typing import Any

from chorus.learner.curriculum.asked import target, teaching_refusal, to_teach
from chorus.learner.rollouts.admission import Admission
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import Rollout
from chorus.protocol.messages import RolloutGroup
from chorus.protocol.run_folder.demonstrations import (
    Demonstration,
    keep_batches,
    read_batch,
    recorded_steps,
    write_batch,
)
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.exits import CannotGoOn

log = logging.getLogger("chorus.learner")
_WRONG = 0.0
# Least accuracy of a group of each bin; nothing right is none of them (groups_all_wrong). The paper's, n = 8.
_BINS = {"easy": 0.75, "medium": 0.375, "hard": 0.0}


class Relift:
    """`restore` it before the first step. Raises CannotGoOn where no problem has a solution to train on."""

    def __init__(self, config: RunConfig, admission: Admission, run: RunFolder) -> None:
        self.config = config.relift
        self.held: list[tuple[str, str]] = []  # (problem id, template)
        self.updates = 0
        self._longest = config.relift.max_tokens or config.sampling.max_tokens
        self._admission = admission
        self._run = run
        self._skipped: Counter[str] = Counter()
        self._shown: set[str] = set()  # problems that were trained on
        self._again: list[float] = []  # accuracies of the step's groups of such problems
        if self.config.enabled:
            self._look_at_problems()

    def _look_at_problems(self) -> None:
        a = self._admission
        if a.tokenizer.eos_token_id is None:
            raise CannotGoOn("relift.enabled: the tokenizer has no end token, so no solution could end; give it one")
        usable, said = to_teach(a.problems, a.templates)
        if said:
            log.warning("relift: %d problems have a solution to train on; not: %s", usable, said)

    def restore(self, kept: Mapping[str, Any], done: int, again: Collection[int]) -> None:
        """`kept`: of the checkpoint of step `done`. `again`: recorded steps that come again."""
        a = self._admission
        self.held = [(id, name) for id, name in kept.get("held", ()) if id in a.by_id and name in a.templates]
        self.updates = kept.get("updates", 0)
        keep_batches(self._run, done, again)
        for step in recorded_steps(self._run):
            if step <= done:
                self._shown |= {d.problem_id for d in read_batch(self._run, step)}

    def kept(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"held": self.held, "updates": self.updates}

    def due(self, step: int, groups: Sequence[Rollout]) -> list[Demonstration]:
        """After the step's own update: hold what it showed to be too hard, and hand out a batch once there are enough.

        It is recorded by then. Empty: there are not enough, or ReLIFT is off and the step had none before a crash.
        """
        shown = [_accuracy(r.group) for r in groups if r.group.task.problem_id in self._shown]
        self._again = [accuracy for accuracy in shown if accuracy is not None]
        for rollout in groups if self.config.enabled else ():
            self._observe(rollout.group)
        batch = read_batch(self._run, step)
        if not batch and self.config.enabled and len(self.held) >= self.config.batch:
            batch = [self._demonstration(*held) for held in self.held[: self.config.batch]]
            write_batch(self._run, step, batch)
        for d in batch:
            if (held := (d.problem_id, d.template)) in self.held:
                self.held.remove(held)
        self.updates += bool(batch)
        self._shown |= {d.problem_id for d in batch}
        return batch

    def _observe(self, group: RolloutGroup) -> None:
        if any(s.grade.accuracy != _WRONG for s in group.samples):
            return  # a sample without a verdict may have been right
        task, problem = group.task, self._admission.by_id.get(group.task.problem_id)
        template = self._admission.templates.get(task.template)
        reason = "gone" if problem is None or template is None else teaching_refusal(problem, template)
        if reason is None and self.config.dedupe and any(id == task.problem_id for id, _ in self.held):
            reason = "held_already"
        if reason is None:
            self.held.insert(0, (task.problem_id, task.template))
        else:
            self._skipped[reason] += 1

    def _demonstration(self, problem_id: str, template: str) -> Demonstration:
        """The problem as it stands, without a hint, and its solution with the end token, which is in the last place of
        a solution that had to be cut."""
        a = self._admission
        problem, asked = a.by_id[problem_id], a.templates[template]
        text = target(problem, asked)
        end: Any = a.tokenizer.eos_token_id
        taught = [*a.tokenizer.encode(text, add_special_tokens=False)[: self._longest - 1], end]
        return Demonstration(problem_id, template, a.render(problem, asked), taught)

    def figures(self, groups: Sequence[Rollout]) -> dict[str, Any]:
        """What a step's record says of it; takes what was skipped since the last call."""
        if not self.config.enabled:
            return {}
        skipped, self._skipped = self._skipped, Counter()
        known = [a for r in groups if (a := _accuracy(r.group)) is not None]
        bins = Counter(next(name for name, least in _BINS.items() if a >= least) for a in known if a > 0)
        return {
            "hard_prompts": len(self.held),
            "hard_prompts_skipped": dict(skipped),
            "difficulty": {name: bins[name] / len(known) for name in _BINS} if known else None,
            "shown_groups": len(self._again),
            "shown_accuracy": fmean(self._again) if self._again else None,
        }


def _accuracy(group: RolloutGroup) -> float | None:
    known = [s.grade.accuracy for s in group.samples if s.grade.accuracy is not None]
    return fmean(known) if known else None
