"""A learner's start, its checkpoints, its way back and its end.

    assemble: its parts, as earlier learners left them (parts.py)
    begin:    first weights to everybody ─▶ evaluate
    ...       steps (loop.py) with checkpoints, validations, and the way back where a policy collapsed
    end:      last weights taken ─▶ evaluate ─▶ summary

After a crash the same walk begins at the newest checkpoint: what it holds is acknowledged, what came after it is undone
and trained again from the recorded entries, in the recorded order.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial

from chorus.learner.metrics.alarms import FLAT
from chorus.learner.metrics.summary import good_syncs, summarize
from chorus.learner.parts import Parts, Saving
from chorus.learner.training.checkpoint import WRITE_DEADLINE_S
from chorus.learner.training.export import to_dtype
from chorus.protocol.messages import WEIGHT_CHECKS, Version
from chorus.protocol.run_folder import checkpoints
from chorus.protocol.run_folder.checkpoints import Manifest
from chorus.protocol.run_folder.files import write_json
from chorus.protocol.run_folder.identity import read_identity
from chorus.protocol.run_folder.problem_set import fingerprint
from chorus.protocol.runtime import logs
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.runtime.redis import server_time

log = logging.getLogger("chorus.learner")


@dataclass(frozen=True)
class _Begun:
    """A checkpoint that is being written since `at`."""

    saving: Saving
    manifest: Manifest
    at: float


class Lifecycle:
    """Everything a learner does beside its steps."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._saving: _Begun | None = None
        self._offered: Version | None = None  # last

    def begin(self) -> None:
        """Give everybody the weights, and evaluate. Raises CannotGoOn where no generator takes them in time."""
        p = self.parts
        if p.evaluations.missed:
            self._ask_again(*p.evaluations.missed)
        self._give(p.version)
        if not p.done:
            self._evaluate("before")
        else:
            self._everywhere()
        self.validate()  # a crash may have come between the checkpoint and its validation

    def _give(self, version: int) -> None:
        """The weights as they are, under this number; until a generator has them."""
        p = self.parts
        self._publish(version, self._first_prefixes())
        self.say("waiting", "for a generator with fresh weights")
        deadline_s = p.config.generator.start_deadline_s + p.config.learner.sync_deadline_s
        if p.weights.wait_synced(1, deadline_s, p.stop.check) == 0:
            raise CannotGoOn(
                f"no generator had passed the weight check after {deadline_s:g} s; see the generators' logs"
            )

    def _everywhere(self) -> None:
        """Until all who sample have these weights: some may have those of steps that were undone, whose number is no
        smaller, so that they would answer for these."""
        p = self.parts
        now = server_time(p.client)
        at_work = sum(member.state == "ready" and member.alive(now) for member in p.weights.members())
        p.weights.wait_synced(at_work, p.config.learner.sync_deadline_s, p.stop.check)

    def _ask_again(self, step: int, version: int) -> None:
        """Training had gone on when its learner ended, and of the answers there is nothing: back to those weights, as
        long as it takes."""
        p = self.parts
        log.info("step %d: its validation was under way when the learner ended, and is asked again", step)
        p.ranks.load(checkpoints.folder_of(p.run.checkpoints, step))
        self._give(version)
        self._everywhere()
        p.evaluations.ask(step, version, exact=False)
        self.hear()
        p.ranks.load(checkpoints.folder_of(p.run.checkpoints, p.done))

    def end(self) -> None:
        """Evaluate the last weights and sum the run up."""
        p = self.parts
        self.settle()
        p.weights.wait_synced(1, p.config.learner.sync_deadline_s, p.stop.check)
        self._evaluate("after")
        tokens = p.recorder.generated_tokens(p.weights.members())
        told = summarize(p.run, p.config, good_syncs(p.client, p.run_id), p.ledger.accounts(), tokens)
        identity = read_identity(p.run.path)
        lineages = [asdict(begun) for begun in identity.begun] if identity else []
        write_json(p.run.summary, told | {"validation": p.evaluations.summary(), "lineages": lineages})
        self.say("done", "")

    def leave(self) -> None:
        """What a learner leaves that is asked to stop: a checkpoint, where steps were trained since the newest one."""
        p = self.parts
        if p.untold:
            self.checkpoint()
        self.settle()
        self.say("stopped", f"after step {p.done}")

    def close(self) -> None:
        self.parts.weights.close()
        self.parts.recorder.close()
        self.parts.store.close()

    def publish(self, prefixes: list[list[int]]) -> None:
        """Offer the weights as they are. `prefixes`: what the weight check asks about."""
        self._publish(self.parts.version, prefixes)

    def _publish(self, number: int, prefixes: list[list[int]]) -> None:
        version = Version(fence=self.parts.ledger.fence, step=number)
        logs.tell(version=str(version))
        self._offered = version
        self.parts.weights.publish(self.parts.ranks.snapshot(version, prefixes))

    def checkpoint(self, rolled_back_to: int | None = None) -> None:
        """Begin one, which is written while training goes on; `settle` acknowledges what it holds."""
        p = self.parts
        self.settle()
        p.durable += sum(map(len, p.untold.values()))
        manifest = Manifest(
            *(p.done, p.ledger.fence, p.untold, rolled_back_to),
            lineage=p.lineage,
            trained=p.durable,
            admitted=p.groups.next_index,
            problems=fingerprint(p.admission.digests),
            at=time.time(),
            methods={
                "relift": p.relift.kept(),
                "control": p.control.kept(),
                "validation": p.evaluations.kept(),
            },
        )
        p.untold = {}
        p.store.flush()  # what is acknowledged is gone from Redis
        self._saving = _Begun(p.ranks.save(p.run.checkpoints, manifest), manifest, time.monotonic())

    def settle(self, wait: bool = True) -> None:
        """Acknowledge what the checkpoint on its way holds, once it is on the disk: in this order, so that a crash
        between the two loses nothing. Raises what writing it has raised."""
        p, begun = self.parts, self._saving
        if begun is None or not (wait or begun.saving.done):
            return
        self._saving = None
        with p.metrics.waits.on("checkpoint", "the disk", WRITE_DEADLINE_S, f"step {begun.manifest.step}"):
            begun.saving.wait()
        p.metrics.checkpoint_s.observe(time.monotonic() - begun.at)
        step = begun.manifest.step
        p.metrics.durable_step.set(step)
        p.ledger.durable(step, begun.manifest.all_entries)
        p.ledger.trim()
        p.store.durable(step)
        self._prune()

    def collapsed(self, alarms: Mapping[str, str]) -> None:
        """Back to the oldest of the newest learner.keep_checkpoints and on from there with the problems that come next,
        or the end; of a run that was flat from its beginning, the end.

        What was trained stays trained in the accounts: the way back undoes weights, and no group comes again. What the
        undone weights have sampled is stale. A validation that is due is one of the weights that the run goes on with.
        """
        p = self.parts
        answer, asked, why = p.config.alarms.on_collapse, p.config.alarms.max_rollbacks, "; ".join(alarms.values())
        self.settle()
        self.hear()
        p.evaluations.decide(p.done)
        better = answer == "rollback" and not set(FLAT) >= alarms.keys()
        back = checkpoints.oldest(p.run.checkpoints, p.config.learner.keep_checkpoints) if better else None
        gone_back = len(checkpoints.rollbacks(p.run.checkpoints))
        if back is None or gone_back >= asked:
            self.checkpoint()
            self.settle()
            none = "there is no checkpoint to go back to" if better else "no earlier step was any better"
            missing = f"it went back {gone_back} times before" if back else none
            raise CannotGoOn(
                f"alarms.on_collapse = {answer} ended the run after step {p.done}"
                f"{f' ({missing})' if answer == 'rollback' else ''}: {why}. "
                "Its checkpoint is written; to go on anyway: --resume with --set alarms.on_collapse=warn"
            )
        target = checkpoints.read_manifest(back).step
        log.warning("step %d: back to the weights and the optimizer of step %d: %s", p.done, target, why)
        p.ranks.load(back)
        p.control.restore(checkpoints.read_manifest(back).methods.get("control", {}), gone_back_at=p.done)
        self._advance()
        p.groups.undo(p.ledger.fence)
        self.checkpoint(rolled_back_to=target)
        self.settle()
        p.recorder.forget_alarms()
        self._give(p.version)
        self._everywhere()
        self._ask()

    def validate(self) -> None:
        """At the end of a step: hear what is to decide now, ask where it is due, and decide.

        While it is answered training goes on, where the recipe lets it decide later and a generator can be spared to
        stay on these weights. Otherwise nothing is published meanwhile: all answers are of this step's weights.
        """
        p, asked = self.parts, self.parts.evaluations
        if asked.over(p.done):
            self.hear()
        self._ask()
        asked.decide(p.done)

    def _ask(self) -> None:
        """A validation of these weights, where it is due."""
        p, asked = self.parts, self.parts.evaluations
        if asked.due(p.done) and not asked.known(p.done):
            later = p.config.evaluation.decides_after and p.done < p.config.run.steps
            held = p.weights.hold(p.config.evaluation.replicas) if later else 0
            asked.ask(p.done, p.version, exact=bool(held))
            if not held:
                if later:
                    log.info("step %d: no generator can be spared for its validation; training waits", p.done)
                self.hear()

    def hear(self, wait: bool = True) -> None:
        """The answers to the validation that is under way."""
        p, started = self.parts, time.monotonic()
        asked = p.evaluations.under_way
        if asked is None:
            return
        result = p.evaluations.hear(self._progress(f"validating step {asked.step}", self._hold_again) if wait else None)
        if result is None:
            return
        p.weights.release()
        if self._offered and self._offered.fence != p.ledger.fence:
            # Who was given the old weights again has them under a newer fence than the newest weights.
            self.publish(self._first_prefixes())
        self._prune()  # of the one that was selected until now
        p.recorder.evaluated(result["step"], "validation", result)
        p.recorder.leave_out(time.monotonic() - started)

    def _hold_again(self) -> None:
        """Those who were held on the weights that answer are gone, and the others have newer ones: under a new fence
        the old ones are taken once more."""
        p, asked = self.parts, self.parts.evaluations.under_way
        if asked and asked.exact and p.weights.hold_is_lost():
            log.warning("step %d: nobody has the weights of its validation any more; they are given again", asked.step)
            self._advance()
            p.weights.hold_again(p.ledger.fence)

    def _advance(self) -> None:
        """Versions from now on are newer than all before, whatever their step."""
        p = self.parts
        p.evaluations.ledger.fence = p.ledger.advance()
        p.metrics.fence.set(p.ledger.fence)

    def say(self, phase: str, detail: str) -> None:
        """What a person who watches sees."""
        write_json(self.parts.run.status, {"phase": phase, "detail": detail})

    def _progress(self, phase: str, look: Callable[[], None] = lambda: None) -> Callable[[str], None]:
        """Called several times a second while answers are waited for."""

        def progress(detail: str) -> None:
            self.parts.stop.check()
            self.say(phase, detail)
            look()

        return progress

    def _evaluate(self, name: str) -> None:
        p = self.parts
        if p.evaluations.asked(name):
            result = p.evaluations.evaluate(p.done, p.version, name, self._progress(f"evaluating {name}"))
            p.recorder.evaluated(p.done, name, result)

    def _first_prefixes(self) -> list[list[int]]:
        return [self.parts.admission.at(k)[1].ids for k in range(WEIGHT_CHECKS)]

    def _prune(self) -> None:
        p = self.parts
        steps = {
            p.evaluations.selected_step(),
            p.evaluations.open_step(),
            *checkpoints.before(p.run.checkpoints, p.recorder.alarms.began),
        }
        learner, dtype = p.config.learner, p.config.model.dtype
        thin = partial(to_dtype, dtype=dtype) if learner.keep_exports == "all" else None
        checkpoints.prune(p.run.checkpoints, learner.keep_checkpoints, steps, thin)
