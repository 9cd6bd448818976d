"""Submit, resize and end a run on Slurm.

submit ──▶ folder, secrets, scripts ──▶ head ──▶ learner and generators, once the head runs
scale  ──▶ one more array, or elements that drain
cancel ──▶ the learner writes a checkpoint, generators drain, the head ends last
"""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from chorus.deploy.prepare import prepare
from chorus.deploy.slurm import engine
from chorus.deploy.slurm.engine import Job
from chorus.deploy.slurm.scripts import Wishes, scripts
from chorus.deploy.wishes import chosen_by_machine
from chorus.protocol.config.run import RunConfig
from chorus.protocol.run_folder.files import read_json, write_json, write_whole
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.identity import identify
from chorus.protocol.runtime.exits import CannotGoOn

ROLES = ("head", "learner", "generator")


@dataclass(frozen=True)
class Files:
    """What lies in a run's folder for Slurm."""

    run: RunFolder

    @property
    def folder(self) -> Path:
        return self.run.path / "slurm"

    @property
    def jobs(self) -> Path:
        return self.folder / "jobs"

    @property
    def head(self) -> Path:
        return self.folder / "head"

    @property
    def stop(self) -> Path:
        return self.folder / "stop"

    @property
    def password(self) -> Path:
        return self.folder / "redis-password"

    @property
    def token(self) -> Path:
        return self.folder / "reward-token"

    def not_wanted(self, element: str) -> Path:
        """The mark of a generator that was cancelled."""
        return self.folder / f"stop-{element}"

    def numbers(self, *roles: str) -> list[str]:
        """The jobs that were submitted, oldest first. Raises CannotGoOn where there is none."""
        try:
            rows = [line.split() for line in self.jobs.read_text().splitlines()]
        except OSError:
            raise CannotGoOn(
                f"{self.run.path}: no jobs of Slurm are noted in it; give the folder of a run that `chorus slurm "
                "submit` has made"
            ) from None
        return [number for role, number in rows if role in roles]

    def note(self, role: str, number: str) -> None:
        with self.jobs.open("a") as file:
            file.write(f"{role} {number}\n")


def submit(config: RunConfig, recipe: Path, run: RunFolder, wishes: Wishes, resumed: bool) -> list[tuple[str, str]]:
    """Make the run ready and put its jobs into the queue: (role, number) of each. Raises CannotGoOn."""
    before = os.umask(0o077)
    try:
        return _submit(config, recipe, run, wishes, resumed)
    finally:
        os.umask(before)


def _submit(config: RunConfig, recipe: Path, run: RunFolder, wishes: Wishes, resumed: bool) -> list[tuple[str, str]]:
    files = Files(run)
    if resumed and files.jobs.is_file() and (left := engine.queued(files.numbers(*ROLES))):
        raise CannotGoOn(f"{run.path}: its job {left[0].id} is in the queue still; `chorus slurm cancel` ends it first")
    note = {"recipe": str(recipe), "started_at": time.time(), **read_json(run.note)}
    own = {"own_redis": not config.redis.url, "own_reward_server": not config.reward.url}
    write_json(run.note, note | own | {"chosen": chosen_by_machine(config)})
    prepare(with_devices(config, wishes), recipe, run.path, Path(config.run.dir).absolute() / ".cache")
    identify(run.path, run.path.resolve().name)
    _make_secrets(files)
    for old in (files.stop, files.head, files.jobs, *files.folder.glob("stop-*")):
        old.unlink(missing_ok=True)
    for name, text in scripts(config, run.path.resolve(), run.run_id, wishes).items():
        write_whole(files.folder / name, text)
    return _submit_all(files, wishes.generators)


def with_devices(config: RunConfig, wishes: Wishes) -> RunConfig:
    """The placement in numbers of devices, which tell how many there are: which ones they are is Slurm's choice.
    The learner's have other numbers than a generator's: these two never share a device here."""
    ours, ranks = wishes.generator_gpus, wishes.learner_nodes * max(1, wishes.learner_gpus)
    placement = {
        "learner_ranks": ranks if ranks > 1 else None,
        "learner_gpus": list(range(ours, ours + wishes.learner_gpus)) or None,
        "generator_gpus": [list(range(ours))] if ours else None,
    }
    model = Path(config.model.path)  # absolute, wherever the run is resumed from later
    return config.model_copy(
        update={
            "placement": config.placement.model_copy(update=placement),
            "generator": config.generator.model_copy(update={"replicas": wishes.generators}),
            "model": config.model.model_copy(update={"path": str(model.absolute())} if model.is_dir() else {}),
        }
    )


def scale(run: RunFolder, wanted: int) -> tuple[list[str], list[str]]:
    """Elements that are new and elements that drain, so that as many are left as are wanted."""
    files = Files(run)
    _check_goes_on(files)
    here = generators(files)
    if wanted > len(here):
        more = wanted - len(here)
        number = engine.submit(files.folder / "generator.sbatch", f"--array=0-{more - 1}")
        files.note("generator", number)
        return [f"{number}_{n}" for n in range(more)], []
    # Those that wait in the queue cost nothing; of the others the newest have least in their caches.
    here.reverse()
    spare = sorted(here, key=lambda job: job.is_running)[: len(here) - wanted]
    for job in spare:
        files.not_wanted(job.id).touch()
        (engine.ask if job.is_running else engine.cancel)(job.id)
    return [], [job.id for job in spare]


def generators(files: Files) -> list[Job]:
    """Those in the queue that shall stay, oldest first."""
    return [job for job in jobs(files, "generator") if not files.not_wanted(job.id).exists()]


def jobs(files: Files, role: str) -> list[Job]:
    """What the queue holds of a role, in the order in which it was submitted."""
    numbers = files.numbers(role)

    def order(job: Job) -> tuple[int, int]:
        element = job.id.partition("_")[2]
        return numbers.index(job.array), int(element) if element.isdecimal() else -1

    return sorted(engine.queued(numbers), key=order)


def cancel(run: RunFolder) -> None:
    """Ask all of them to end in order; none is queued again."""
    files = Files(run)
    numbers = files.numbers(*ROLES)
    if not files.stop.exists():
        files.stop.write_text("cancelled\n")
    head = files.numbers("head")
    for job in engine.queued(numbers):
        if not job.is_running:
            engine.cancel(job.id)
        elif job.id not in head:  # that one ends by itself, after the others
            engine.ask(job.id)


def _check_goes_on(files: Files) -> None:
    files.numbers()
    if files.stop.exists():
        raise CannotGoOn(
            f"{files.run.path}: the run is over ({files.stop.read_text().strip()}); go on with `chorus slurm submit "
            f"--resume {files.run.path}`"
        )


def _make_secrets(files: Files) -> None:
    files.folder.mkdir(mode=0o700, exist_ok=True)
    for path in (files.password, files.token):
        if not path.exists():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(24) + "\n")


def _submit_all(files: Files, generators: int) -> list[tuple[str, str]]:
    submitted: list[tuple[str, str]] = []
    options: list[str] = []
    try:
        for role in ROLES:
            array = [f"--array=0-{generators - 1}"] if role == "generator" else []
            number = engine.submit(files.folder / f"{role}.sbatch", *options, *array)
            submitted.append((role, number))
            files.note(role, number)
            if role == "head":  # no node waits for it in vain
                options = [f"--dependency=after:{number}"]
    except CannotGoOn:
        for _, number in submitted:
            engine.cancel(number)
        raise
    return submitted
