"""The order of a step, and nothing else.

    collect ─▶ experience ─▶ store and record ─▶ train ─▶ free credits, admit ─▶ publish ─▶ record its metrics
            ─▶ next stage? ─▶ collapsed? back, or the end ─▶ checkpoint? ─▶ validate?

What is on the ledger before a step trains is all that a resumed learner needs to train it again; its rollouts are
written beside it (metrics/rollout_writer.py). What comes
before the first step and after the last one, checkpoints and the way back stand in lifecycle.py.
"""

from __future__ import annotations

import logging
import time

from chorus.learner.lifecycle import Lifecycle, Parts
from chorus.learner.metrics.recorder import Around
from chorus.learner.training.experience import make_experience, minibatches
from chorus.protocol.ledger import Rollout
from chorus.protocol.messages import WEIGHT_CHECKS, unpack_ids
from chorus.protocol.runtime.stopping import StopAsked

log = logging.getLogger("chorus.learner")


class Learner:
    """One learner start. `run` returns when all steps are trained and the summary is written. Rank 0 only.

    Raises StopAsked where a signal asked it to leave before; its last step is in a checkpoint then.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.life = Lifecycle(parts)

    def run(self) -> None:
        try:
            self.life.begin()
            while self.parts.done < self.parts.config.run.steps:
                self.step()
            self.life.end()
        except StopAsked:
            self.life.leave()
            raise
        finally:
            self.life.close()

    def step(self) -> None:
        p = self.parts
        p.stop.check()
        started, step = time.monotonic(), p.done + 1
        groups = self._collect(step)
        waited_s = time.monotonic() - started
        ids = [rollout.entry.id for rollout in groups]
        experience = make_experience(groups, p.config, step - 1, p.ranks.reference)
        parts = minibatches(experience, p.config.sampling.group_size, p.config.learner.updates_per_step)
        p.store.chosen(step, groups)
        p.ledger.record(step, ids)

        stats = p.ranks.step(parts)

        p.store.trained(step, experience, stats)
        p.ledger.trained(step, ids)
        p.done, p.untold[step] = step, ids
        p.groups.trained(groups)
        p.admission.observe_step(groups)
        p.groups.admit(step, p.config.run.steps - step)
        self.life.publish(prefixes_of(groups))
        around = Around(started, waited_s, p.groups.waiting, p.groups.take_filtered(), p.weights.members())
        p.recorder.record(step, groups, experience, stats, around)
        self._after(step)

    def _collect(self, step: int) -> list[Rollout]:
        p, deadline_s = self.parts, self.parts.config.learner.collect_deadline_s
        self.life.say("training", f"step {step} of {p.config.run.steps}")
        p.metrics.wait_share.begin()
        with p.metrics.waits.on("rollouts", "generators", deadline_s, f"step {step}"):
            groups = p.groups.next_step(p.done, p.config.run.steps - p.done, self._check)
        p.metrics.wait_share.worked()
        return groups

    def _check(self) -> None:
        """What ends a wait for groups."""
        self.parts.stop.check()
        self.parts.weights.check()

    def _after(self, step: int) -> None:
        """What a trained step may bring about."""
        p = self.parts
        if begun := p.admission.stages.advance(step, p.groups.next_index):
            log.info("stage %s begins after step %d: %s", begun.name, step, begun.why)
        if p.recorder.alarms.active and p.config.alarms.on_collapse != "warn":
            self.life.collapsed(p.recorder.alarms.active)
            return
        last = step == p.config.run.steps
        if last or step % p.config.learner.checkpoint_every == 0 or p.evaluations.due(step):
            self.life.checkpoint()
        self.life.validate()


def prefixes_of(groups: list[Rollout]) -> list[list[int]]:
    """Prompts for the weight check from the step's own rollouts: evenly chosen groups, half of a completion each."""
    chosen = groups[:: max(1, len(groups) // WEIGHT_CHECKS)][:WEIGHT_CHECKS]
    prefixes = []
    for rollout in chosen:
        completion = unpack_ids(rollout.group.samples[0].token_ids)
        prompt = unpack_ids(rollout.group.task.prompt_ids)
        prefixes.append([*prompt.tolist(), *completion[: len(completion) // 2].tolist()])
    return prefixes
