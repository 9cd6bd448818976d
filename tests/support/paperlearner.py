"""A learner whose model is a list: what was trained, in order. Its ledger, collector, admission and folder are the real
ones; hands answer what is queued whenever the learner reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import redis

from chorus.learner.loop import Learner
from chorus.learner.parts import Parts, assemble
from chorus.learner.training.batch import TrainingSequence
from chorus.learner.training.distributed import Snapshot
from chorus.learner.training.supervised import SupervisedStats
from chorus.learner.training.token_stats import StepStats
from chorus.protocol.config.run import RunConfig
from chorus.protocol.config.settings import StepSettings
from chorus.protocol.ledger import Keys, entries_of, scripts
from chorus.protocol.ledger.keys import TASK_GROUP
from chorus.protocol.messages import Grade, Member, RolloutGroup, Sample, Task, Timing, Version, pack_floats, pack_ids
from chorus.protocol.run_folder import checkpoints
from chorus.protocol.run_folder.checkpoints import Manifest
from chorus.protocol.run_folder.demonstrations import Demonstration
from chorus.protocol.run_folder.folder import RunFolder

RUN = "run"
Hook = Callable[[str], None]  # called before every change of the world, with its name
Accuracies = tuple[float, ...] | Callable[[int], tuple[float, ...]]  # of a group's samples, in turn; or by its index


class PaperSaving:
    """A checkpoint that is on the disk once it has been looked after so often, or is waited for."""

    def __init__(self, finish: Callable[[], Path], looks: int) -> None:
        self._finish = finish
        self._looks = looks

    @property
    def done(self) -> bool:
        self._looks -= 1
        return self._looks < 0

    def wait(self) -> Path:
        return self._finish()


class PaperRanks:
    """`trained`: admission indices in the order of their training, `taught`: the problems of each supervised update,
    `settings`: those of each step, as the weights remember them; `reference_is`: `trained` at the last reset. `looks`:
    for how many of them a checkpoint is on its way."""

    def __init__(self, start_from: Path | None, hook: Hook) -> None:
        self.manifest = checkpoints.read_manifest(start_from) if start_from else None
        self.trained: list[int] = []
        self.taught: list[list[str]] = []
        self.settings: list[Any] = []
        self.reference_is: list[int] = []
        self.looks = 0
        self._hook = hook
        if start_from:
            self.load(start_from)

    def reference(self, sequences: list[TrainingSequence]) -> list[np.ndarray]:
        return [np.zeros(len(s.completion)) for s in sequences]

    def reset_reference(self, reset_optimizer: bool) -> None:
        self._hook("reset")
        self.reference_is = list(self.trained)

    def step(self, minibatches: list[list[TrainingSequence]], settings: StepSettings | None = None) -> StepStats:
        self._hook("train")
        sequences = [s for batch in minibatches for s in batch]
        self.settings.append(asdict(settings) if settings else None)
        self.trained += dict.fromkeys(round(-float(s.behaviour[0]) * 1000) for s in sequences)
        return StepStats(sequences=len(sequences))

    def supervise(self, batch: Sequence[Demonstration]) -> SupervisedStats:
        self._hook("supervise")
        self.taught.append([d.problem_id for d in batch])
        tokens = sum(len(d.target) for d in batch)
        return SupervisedStats(1.0, 1.0, 0.0, tokens, len(batch), grad_norm=1.0, lr=1e-6)

    def snapshot(self, version: Version, prefixes: list[list[int]]) -> Snapshot:
        plan: Any = None
        return Snapshot(version, plan, [], [])

    def save(self, folder: Path, manifest: Manifest) -> PaperSaving:
        path = checkpoints.folder_of(folder, manifest.step)
        (path / "state").mkdir(parents=True, exist_ok=True)
        known = [self.trained, self.taught, self.settings, self.reference_is]
        (path / "state" / "trained").write_text(json.dumps(known))

        def finish() -> Path:
            self._hook("manifest")
            checkpoints.write_manifest(path, manifest)
            return path

        return PaperSaving(finish, self.looks)

    def load(self, path: Path) -> None:
        known = json.loads((path / "state" / "trained").read_text())
        self.trained, self.taught, self.settings, self.reference_is = known


class Hands:
    """Generators and weight sync in one: every version is taken at once, every queued task answered.

    spare: how many of them can be held on a version. Their answers come when the learner has looked `late` times, or
    waits for them; leaves: they go away at its first look.
    """

    def __init__(
        self, client: redis.Redis, run: RunFolder, hook: Hook, accuracies: Accuracies, spare: int = 0, late: int = 0
    ) -> None:
        self.client = client
        self.run = run
        self.published: list[Version] = []
        self.spare = spare
        self.late = late
        self.leaves = False
        self.held: Version | None = None
        self._asked_step = 0
        self._looks = 0
        self._hook = hook
        self._accuracies = accuracies

    def publish(self, snapshot: Snapshot) -> None:
        self._hook("publish")
        self.published.append(snapshot.version)

    def wait_synced(self, at_least: int, deadline_s: float, check: Callable[[], None]) -> int:
        check()
        return at_least

    def check(self) -> None:
        pass

    def hold(self, most: int) -> int:
        self._hook("hold")
        self.held = self.published[-1] if self.spare else None
        self._asked_step = self.published[-1].step
        self._looks = 0
        return min(most, self.spare)

    def hold_is_lost(self) -> bool:
        if self.leaves:
            self.held, self.leaves = None, False
        return self.held is None

    def hold_again(self, fence: int) -> None:
        self._hook("hold again")
        self.held = Version(fence=fence, step=self._asked_step)

    def release(self) -> None:
        self.held = None

    def work(self, waits: bool = False) -> None:
        self._looks += 1
        if waits and self.held and self.leaves:
            return
        for queue in ("train", "eval") if waits or self._looks > self.late else ("train",):
            keys = Keys(RUN, queue)
            reply = self.client.xreadgroup(TASK_GROUP, "hand", {keys.tasks: ">"}, count=99)
            for id, fields in entries_of(reply):
                task = Task.decode(fields[b"d"])
                if task.exact and (self.held is None or self.held.step != task.min_version):
                    self._bury(keys, id)
                    continue
                self.client.xack(keys.tasks, TASK_GROUP, id)
                self.client.xadd(keys.rollouts, {"i": task.index, "d": self.answer(task)})

    def _bury(self, keys: Keys, id: bytes) -> None:
        dead = self.client.register_script(scripts.DEAD)
        dead([keys.tasks, keys.accounts, keys.dead, keys.digests], [TASK_GROUP, id, "abandoned", "", 99])

    def answer(self, task: Task) -> bytes:
        told = self._accuracies(task.index) if callable(self._accuracies) else self._accuracies
        accuracies = (told * task.group_size)[: task.group_size]
        version = self.held if task.exact and self.held else self.published[-1]
        samples = [
            Sample(
                token_ids=pack_ids([5, 6]),
                logprobs=pack_floats([-task.index / 1000] * 2),
                versions=[(version.fence, version.step, 2)],
                finish_reason="stop",
                grade=Grade(verdict="any", accuracy=accuracy, format=1.0),
            )
            for accuracy in accuracies
        ]
        timing = Timing(started=1.0, generated=2.0, graded=3.0)
        return RolloutGroup(task=task, generator_id="g", attempt=1, samples=samples, timing=timing).encode()

    def members(self) -> list[Member]:
        return []

    def close(self) -> None:
        pass


def config_of(model: Path, folder: Path, /, **sections: dict[str, Any]) -> RunConfig:
    folder.mkdir(exist_ok=True)
    train = folder / "train.jsonl"
    rows = [{"id": f"p{k}", "problem": f"{k}?", "answer": "7"} for k in range(40)]
    train.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe: dict[str, dict[str, Any]] = {
        "run": {"steps": 3},
        "model": {"path": str(model), "context": 400},
        "problems": {"train": [str(train)], "max_prompt_tokens": 300},
        "templates": {"names": ["qwen-math"]},
        "sampling": {"group_size": 2, "max_tokens": 16},
        "staleness": {"target": 1, "max": 4},
        "learner": {"groups_per_step": 2, "collect_deadline_s": 5.0, "checkpoint_every": 2},
        "trackers": {"tensorboard": False},
    }
    return RunConfig.model_validate({name: recipe.get(name, {}) | sections.get(name, {}) for name in recipe | sections})


def start(
    client: redis.Redis,
    config: RunConfig,
    folder: Path,
    hook: Hook = lambda name: None,
    accuracies: Accuracies = (1.0, 0.0),
    looks: int = 0,
    spare: int = 0,
    late: int = 0,
) -> tuple[Learner, Parts]:
    """A learner start on what lies in the folder and on the ledger."""
    run = RunFolder(folder)
    run.note.write_text('{"started_at": 0}')
    ranks = PaperRanks(checkpoints.latest(run.checkpoints), hook)
    ranks.looks = looks
    hands = Hands(client, run, hook, accuracies, spare, late)
    parts = assemble(config, run, RUN, client, ranks, lambda metrics: hands)
    _hooked(parts.ledger, ("record", "trained", "durable", "trim"), hook)
    _hooked(parts.groups, ("admit",), hook)
    _hooked(parts.recorder, ("record",), hook)
    _hooked(parts.ledger, ("read",), lambda name: hands.work())
    asked = parts.evaluations.ledger
    read = asked.read
    asked.read = lambda count, block_s: (hands.work(waits=block_s > 0), read(count, block_s))[1]  # type: ignore[method-assign]
    return Learner(parts), parts


def _hooked(part: Any, names: tuple[str, ...], hook: Hook) -> None:
    for name in names:
        setattr(part, name, _after_the_hook(getattr(part, name), name, hook))


def _after_the_hook(real: Callable[..., Any], name: str, hook: Hook) -> Callable[..., Any]:
    def called(*args: Any) -> Any:
        hook(name)
        return real(*args)

    return called
