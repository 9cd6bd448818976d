"""Look at runs in a browser: curves, every answer, every token, also while they train.

Everything stays on this machine: the page asks no other host for anything, and the server answers this machine alone
unless it has a token.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import click

from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime import logs
from chorus.protocol.runtime.command_line import PATH, command, option
from chorus.protocol.runtime.exits import CannotGoOn

TOKEN_VARIABLE = "CHORUS_VIEW_TOKEN"
PORT = 8200


@command(
    "view",
    help=__doc__,
    epilog=f"With {TOKEN_VARIABLE} set, the page asks for that token; without it, only this machine is answered.",
    examples=["chorus view", "chorus view runs/demo-20261121-231924", "chorus view runs/a runs/b --port 0"],
)
@click.argument("runs", type=PATH, nargs=-1, help="folders of runs, or of a folder of runs (default: runs)")
@option("--host", default="127.0.0.1", help="address to listen on")
@option("--port", type=click.IntRange(0, 65535), default=PORT, help="0 picks a free one")
@option("--workers", type=int, default=1, help="grader processes for judging again")
def main(runs: tuple[Path, ...], host: str, port: int, workers: int) -> int:
    token = os.environ.get(TOKEN_VARIABLE) or None
    loopback = host in ("127.0.0.1", "::1", "localhost")
    if not loopback and token is None:
        raise CannotGoOn(
            f"--host {host}: whoever reaches it could read the runs; set {TOKEN_VARIABLE} to a token, or leave --host "
            "out"
        )
    folders = find_runs(runs or (Path("runs"),))
    import uvicorn

    from chorus.viewer.app import LOOPBACK, create_app

    hosts = LOOPBACK if loopback else ("*",)
    app = create_app(folders, lambda: judging(workers), live_lines, token, hosts)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise CannotGoOn(
            f"cannot listen on {host} port {port}: {error.strerror}; is a viewer running there? choose another --port"
        ) from None
    at = f"[{host}]" if ":" in host else host
    logs.announce(f"view: http://{at}:{listener.getsockname()[1]}/ ({len(folders)} runs)")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn drains, then raises the signal again
    uvicorn.Server(uvicorn.Config(app, access_log=False, log_config=None, log_level="warning")).run(sockets=[listener])
    return os.EX_OK


def find_runs(paths: tuple[Path, ...]) -> list[RunFolder]:
    """The runs that are named, or that lie in a folder that is named; the newest first. Raises CannotGoOn."""
    from chorus.cli.inspect.standing import is_run

    found: dict[str, RunFolder] = {}
    for path in paths:
        if not path.is_dir():
            raise CannotGoOn(f"{path}: no such folder; give folders of runs, or the folder that holds them")
        inside = [path] if is_run(RunFolder(path)) else [p for p in path.iterdir() if is_run(RunFolder(p))]
        for each in sorted(inside, key=lambda p: p.stat().st_mtime, reverse=True):
            run = RunFolder(each.resolve())
            if found.setdefault(run.name, run).path != run.path:
                raise CannotGoOn(f"{found[run.name].path} and {run.path} have the same name; rename one of the folders")
    if not found:
        raise CannotGoOn(f"{', '.join(map(str, paths))}: there is no run in it yet; train one, or give another folder")
    return list(found.values())


def live_lines(run: RunFolder) -> list[str]:
    """Of a run that goes on: who waits for whom, the accounts, the members; of another, what its files say."""
    from chorus.cli.inspect.live import find, format_accounts, from_files
    from chorus.cli.inspect.status import format_members
    from chorus.cli.inspect.why import explain
    from chorus.protocol.runtime.redis import server_time

    found, lines = find(str(run.path), None), []
    for live in found.live:
        lines += explain(live.client, live.run_id, live.accounts, server_time(live.client))
        lines += [*format_accounts(live.run_id, live.accounts).splitlines()[1:]]
        lines += format_members(live.client, live.run_id).splitlines()
    return lines or from_files(run.path, found.why_not)


@asynccontextmanager
async def judging(workers: int) -> AsyncIterator[Any]:
    """Graders with each run's own settings, started when they are first asked for."""
    from chorus.cli.evaluate.grading import Grading, local_grading
    from chorus.cli.inspect.regrade import settings_of
    from chorus.protocol.config.load import load_config

    started: dict[Path, tuple[Grading, str, list[str]]] = {}
    async with AsyncExitStack() as stack:

        async def judge(run: RunFolder, sample: dict[str, Any]) -> dict[str, Any]:
            if run.path not in started:
                config = load_config(run.config, (), {})
                settings = settings_of(config, workers)
                grading = await stack.enter_async_context(local_grading(settings=settings))
                started[run.path] = grading, config.reward.mode, [term.grader for term in settings.reward.terms]
            grading, mode, terms = started[run.path]
            return await grading.explain(item_of(sample, mode) | ({"terms": terms} if terms else {}))

        yield judge


def item_of(sample: dict[str, Any], mode: str) -> dict[str, Any]:
    """A stored sample as the graders are asked about it."""
    from chorus.protocol.messages import grading_of

    given = grading_of(sample["kind"], sample["gold"], sample["tests"], sample["row"])
    more = {name: sample[name] for name in ("options", "sub_answers") if sample[name]}
    return {"completion": sample["text"], "template": sample["template"], "mode": mode} | given | more
