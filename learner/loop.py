"""The order of a step, and nothing else.

    collect ─▶ decide ─▶ experience ─▶ store and record ─▶ train ─▶ supervised update? ─▶ free credits, admit ─▶ publish
            ─▶ record its metrics ─▶ next stage? ─▶ collapsed? back, or the end ─▶ checkpoint? ─▶ validate?

What is on the ledger before a step trains is all that a resumed learner needs to train it again; its rollouts are
written beside it (metrics/rollout_writer.py). What comes before the first step and after the last one, checkpoints and
the way back stand in lifecycle.py.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from chorus.learner.lifecycle import Lifecycle
from chorus.learner.metrics.recorder import Around
from chorus.learner.parts import Parts
from chorus.learner.training.control import Decisions
from chorus.learner.training.experience import make_experience, minibatches
from chorus.protocol.config.settings import StepSettings
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
        self._check()
        started, step = time.monotonic(), p.done + 1
        groups = self._collect(step)
        waited_s = time.monotonic() - started
        ids = [rollout.entry.id for rollout in groups]
        decisions, settings = self._decide(step, groups)
        left_out = p.admission.stages.filters_overlong
        experience = make_experience(groups, p.config, p.version, p.ranks.reference, decisions, left_out)
        parts = minibatches(experience, p.config.learner.updates_per_step)
        p.store.chosen(step, groups, p.version, decisions.gates)
        p.recorder.begin(groups)
        p.ledger.record(step, ids)

        with p.groups.reading():
            stats = p.ranks.step(parts, settings)
        batch = p.relift.due(step, groups)  # recorded by now, as the step's groups are
        supervised = p.ranks.supervise(batch).figures() if batch else {}

        p.store.trained(step, experience, stats)
        p.ledger.trained(step, ids)
        p.done, p.untold[step] = step, ids
        p.groups.trained(groups)
        p.admission.observe_step(groups, decisions.gates)
        p.groups.admit(step, p.config.run.steps - step, p.version)
        self.life.publish(prefixes_of(groups))
        methods = p.control.figures(step, decisions) | p.relift.figures(groups) | supervised
        around = Around(started, waited_s, p.groups.waiting, p.groups.take_filtered(), p.weights.members(), methods)
        p.control.observe(p.recorder.record(step, groups, experience, stats, around))
        self._after(step)

    def _decide(self, step: int, groups: list[Rollout]) -> tuple[Decisions, StepSettings]:
        """What the steps so far and the stage say of this one. A reset of the reference comes first of all: rewards ask
        it, too."""
        p = self.parts
        decisions = p.control.at(step, groups)
        if decisions.reset is not None:
            log.info("step %d: the reference policy becomes the current one (%s)", step, decisions.reset)
            p.ranks.reset_reference(p.config.reference.reset_optimizer)
        indices = [rollout.group.task.index for rollout in groups]
        settings = p.admission.stages.settings(indices, decisions.coefficients)
        own = {"kl_coefficient": settings.kl_coefficient, "entropy_coefficient": settings.entropy_coefficient}
        return replace(decisions, **own), settings

    def _collect(self, step: int) -> list[Rollout]:
        p, deadline_s = self.parts, self.parts.config.learner.collect_deadline_s
        self.life.say("training", f"step {step} of {p.config.run.steps}")
        p.metrics.wait_share.begin()
        with p.metrics.waits.on("rollouts", "generators", deadline_s, f"step {step}"):
            groups = p.groups.next_step(p.done, p.config.run.steps - p.done, self._check, p.version)
        p.metrics.wait_share.worked()
        return groups

    def _check(self) -> None:
        """What ends a wait for groups, and what can be done in it."""
        self.parts.stop.check()
        self.parts.weights.check()
        self.life.settle(wait=False)
        self.life.hear(wait=False)

    def _after(self, step: int) -> None:
        """What a trained step may bring about."""
        p = self.parts
        if begun := p.admission.stages.advance(step, p.groups.next_index):
            log.info("stage %s begins after step %d: %s", begun.name, step, begun.why)
        if (signs := p.recorder.alarms.collapse) and p.config.alarms.on_collapse != "warn":
            self.life.collapsed(signs)
            return
        last = step == p.config.run.steps
        if last or step % p.config.learner.checkpoint_every == 0 or p.evaluations.due(step):
            self.life.checkpoint()
        self.life.validate()


class FineTuning(Learner):
    """Critiques in the rollouts' place (`chorus finetune`): no group is admitted, and the ledger's accounts stay empty.

    take, recorded ─▶ train ─▶ publish, where answers follow ─▶ record its metrics ─▶ checkpoint? ─▶ validate?
    """

    def step(self) -> None:
        p = self.parts
        assert p.lessons
        self._check()
        started, step = time.monotonic(), p.done + 1
        self.life.say("training", f"step {step} of {p.config.run.steps}")
        batch = p.lessons.batch(step)

        stats = p.ranks.supervise(batch)

        p.done, p.untold[step] = step, []
        if p.evaluations.due(step) or step == p.config.run.steps:
            self.life.publish([[*d.prompt, *d.target[: len(d.target) // 2]] for d in batch[:WEIGHT_CHECKS]])
        p.recorder.record_lesson(step, stats, started, p.lessons.passes(step))
        self._after(step)


def prefixes_of(groups: list[Rollout]) -> list[list[int]]:
    """Prompts for the weight check from the step's own rollouts: evenly chosen groups, half of a completion each."""
    chosen = groups[:: max(1, len(groups) // WEIGHT_CHECKS)][:WEIGHT_CHECKS]
    prefixes = []
    for rollout in chosen:
        completion = unpack_ids(rollout.group.samples[0].token_ids)
        prompt = unpack_ids(rollout.group.task.prompt_ids)
        prefixes.append([*prompt.tolist(), *completion[: len(completion) // 2].tolist()])
    return prefixes
