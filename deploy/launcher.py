"""`chorus run`: a whole run on this machine, from one recipe to one folder.

    prepare ──▶ redis ──▶ reward server, generators, learner ──▶ supervise ──▶ stop all ──▶ curves, summary
    (folder, starter;     ╰────────────── the clock runs ──────────────╯
     no clock yet)

The folder `runs/<name>/` holds config.json (resolved: with the addresses that were chosen), run.json (when it
started), logs/, and what the learner writes. Services that the recipe names by an address (`redis.url`,
`reward.url`) are used, not started. Each command is the one that the containers run.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chorus.deploy.builds import check_builds
from chorus.deploy.curves import draw_learning_curves
from chorus.deploy.dry_run import does_not_fit
from chorus.deploy.first_contact import first_contact
from chorus.deploy.placement import Placement, card_gib, graders, place, visible_cores, visible_gpus
from chorus.deploy.progress import Progress
from chorus.deploy.services import Chosen, reward_server_service, service_environment, services_of, valkey_service
from chorus.deploy.supervisor import Service, ServiceFailed, Supervisor
from chorus.deploy.wishes import as_wished, chosen_by_machine
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger.lease import await_free
from chorus.protocol.run_folder.files import read_json, write_json, write_whole
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.hold import held
from chorus.protocol.run_folder.identity import Asked, identify
from chorus.protocol.run_folder.start import look_ahead
from chorus.protocol.runtime import logs
from chorus.protocol.runtime.exits import CANNOT_GO_ON, CannotGoOn
from chorus.protocol.runtime.processes import Guarded, free_port, spawn_guarded
from chorus.protocol.runtime.redis import await_redis, connect
from chorus.starter.resolve import BUILT

REDIS_DEADLINE_S = 30.0
STARTER_DEADLINE_S = 900.0
POLL_S = 0.2


class Interrupted(Exception):
    """A person or a service manager asked to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def run(
    config: RunConfig,
    recipe: str,
    *,
    resume: Path | None = None,
    made: Path | None = None,
    asked: Asked = "",
    view: bool = False,
    services: Callable[[Chosen], list[Service]] = services_of,
) -> int:
    """Carry out a run in the foreground; returns the exit status. Call it from the main thread.

    `resume` is the folder of a run that was cut short; `config` is then that of its config.json, and `asked` what shall
    become of a copy or of a run whose ledger is lost. `view`: serve the run's page meanwhile. `made` is a folder that
    `new_folder` made. `services` exists so that tests can supervise scripted processes. Raises CannotGoOn.
    """
    if resume is not None:
        config = as_wished(config, RunFolder(resume))
    placement = place(config, visible_cores(), visible_gpus())
    check_builds(placement)
    folder = RunFolder(resume or made or new_folder(config, recipe))
    with _signals_as_exceptions(), held(folder.path), Progress(folder) as progress:
        identify(folder.path, folder.path.resolve().name, asked)
        before = folder.config.read_bytes() if resume is not None else b""
        folder.status.unlink(missing_ok=True)
        supervisor = Supervisor(folder.logs, progress.note)
        page: Guarded | None = None
        if placement.learner_gpus and (foreseen := does_not_fit(config, placement, card_gib())):
            progress.note(foreseen)
        try:
            chosen = _prepare(config, recipe, folder, placement, resume is not None, asked, progress.note)
            page = _serve_page(folder, progress.note) if view else None
            _start(supervisor, chosen, services)
            while not supervisor.tick():
                progress.update()
                time.sleep(POLL_S)
            progress.update()
        except Interrupted as interrupt:
            progress.note(f"{interrupt}: stopping; once more kills at once")
            status = 128 + interrupt.number
        except ServiceFailed as failure:
            progress.close()
            print(f"chorus run: {failure}", file=sys.stderr)
            status = failure.status
            if before and status == CANNOT_GO_ON and not folder.status.exists():
                write_whole(folder.config, before)  # refused before its learner began: the run is as it was
        else:
            status = os.EX_OK
        finally:
            _stop(supervisor)
            if page is not None:
                page.kill()
    _finish(folder, progress, status)
    return status


def new_folder(config: RunConfig, recipe: str) -> Path:
    """Make the folder of a new run, with `logs` in it. Raises CannotGoOn."""
    prefix = config.run.name or Path(recipe).stem
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for n in range(1, 1000):
        folder = Path(config.run.dir) / (f"{prefix}-{stamp}" if n == 1 else f"{prefix}-{stamp}-{n}")
        try:
            (folder / "logs").mkdir(parents=True)
            return folder
        except FileExistsError:
            continue
        except OSError as error:
            raise CannotGoOn(f"run.dir {config.run.dir}: {error.strerror}; give a folder that can be written") from None
    raise CannotGoOn(f"run.dir {config.run.dir}: no free name for a run; tidy it up")


def _prepare(
    config: RunConfig,
    recipe: str,
    run: RunFolder,
    placement: Placement,
    resumed: bool,
    asked: Asked,
    note: Callable[[str], None],
) -> Chosen:
    """Choose addresses, build the starter if the model is one, write config.json and run.json."""
    known = _what_is_known(run) if resumed else {}
    own_redis, own_reward = not config.redis.url, not config.reward.url
    changes = {"generator": {"replicas": placement.replicas}, "redis": {}, "reward": {}}
    if own_redis:
        changes["redis"]["url"] = f"redis://127.0.0.1:{free_port()}/0"
    else:
        client = connect(config.redis.url)
        await_free(client, run.run_id)
        if resumed:
            look_ahead(client, run, asked)
    if own_reward:
        changes["reward"]["workers"] = graders(config, placement)
        changes["reward"]["url"] = f"http://127.0.0.1:{free_port()}"
    changes["placement"] = {
        "learner_gpus": placement.learner_gpus or None,
        "generator_gpus": placement.generator_gpus or None,
    }
    changes["run"] = {"name": config.run.name or Path(recipe).stem}
    if Path(config.model.path).is_dir():  # wherever `--resume`, `replay` or `eval` is called later
        changes["model"] = {"path": str(Path(config.model.path).absolute())}
    resolved = _with(config, changes)
    write_json(run.config, resolved.model_dump(mode="json"))
    if config.model.path in BUILT:
        starter = _build_starter(run, Path(config.run.dir) / ".cache", note)
        resolved = _with(resolved, {"model": {"path": str(starter)}})
        write_json(run.config, resolved.model_dump(mode="json"))
        first_contact(resolved)
    known = {"recipe": recipe, "started_at": time.time(), **known}
    own = {"own_redis": own_redis, "own_reward_server": own_reward}
    write_json(run.note, known | own | {"chosen": chosen_by_machine(config)})
    note(f"{run.path}: {placement.describe()}")
    return Chosen(resolved, run, placement, own_redis, own_reward, resumed)


def _what_is_known(run: RunFolder) -> dict[str, Any]:
    if not (known := read_json(run.note)):
        raise CannotGoOn(f"--resume {run.path}: it has no run.json that can be read; give the folder of a run")
    return known


def _with(config: RunConfig, changes: dict[str, dict[str, Any]]) -> RunConfig:
    """A copy with other values in some sections. (Read anew, the environment would override them again.)"""
    sections = {name: getattr(config, name).model_copy(update=values) for name, values in changes.items()}
    return config.model_copy(update=sections)


def _build_starter(run: RunFolder, cache: Path, note: Callable[[str], None]) -> Path:
    """In a process of its own, so that torch does not stay in this one's memory."""
    note("the starter policy: built now if it is not in the cache yet (two to four minutes, once)")
    log = run.logs / "starter.log"
    argv = [
        sys.executable,
        "-P",
        "-m",
        "chorus.cli.main",
        "starter",
        str(run.config),
        "--cache",
        str(cache),
    ]
    builder = spawn_guarded(argv, name="starter", log=log, env=service_environment())
    try:
        status = builder.wait(STARTER_DEADLINE_S)
    except TimeoutError:
        raise CannotGoOn(
            f"the starter policy was not built within {STARTER_DEADLINE_S:g} s: this machine is too busy; build it "
            f"apart with `chorus starter {run.config} --cache {cache}`, then start again; see {log}"
        ) from None
    finally:
        builder.kill()
    words = [line for line in log.read_text().splitlines() if line.strip()] or ["no words"]
    if status != 0:
        raise CannotGoOn(f"the starter policy could not be built: {logs.message_of(words[-1].strip())}; see {log}")
    return Path(words[-1].strip())


def _serve_page(run: RunFolder, note: Callable[[str], None]) -> Guarded:
    """Beside the run, which does not depend on it."""
    port = free_port()
    argv = [sys.executable, "-P", "-m", "chorus.cli.main", "view", str(run.path), "--port", str(port)]
    page = spawn_guarded(argv, name="view", log=run.logs / "view.log", env=service_environment())
    note(f"its page: http://127.0.0.1:{port}/")
    return page


def _start(supervisor: Supervisor, chosen: Chosen, services: Callable[[Chosen], list[Service]]) -> None:
    if chosen.own_redis:
        supervisor.start(valkey_service(chosen))
        await_redis(chosen.config.redis.url, REDIS_DEADLINE_S)
    if chosen.own_reward_server:
        supervisor.start(reward_server_service(chosen))
    for service in services(chosen):
        supervisor.start(service)


def _stop(supervisor: Supervisor) -> None:
    """In order and with patience; a signal meanwhile takes the patience away."""
    try:
        supervisor.stop()
    except Interrupted:
        supervisor.kill()


def _finish(run: RunFolder, progress: Progress, status: int) -> None:
    if run.metrics.exists():
        try:
            draw_learning_curves(run)
        except OSError as error:
            progress.note(f"learning_curves.png can't be written: {error.strerror}")
    progress.summary(status)


@contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    def interrupt(number: int, _: object) -> None:
        raise Interrupted(number)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
