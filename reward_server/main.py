"""The verifier service alone.

It needs neither Redis nor torch, and a recipe only if it is to compose rewards, and to know templates, as that recipe's
run does.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import click
import uvicorn
from pydantic import ValidationError

from chorus.protocol.config.load import load_config
from chorus.protocol.rewards import RewardSpec
from chorus.protocol.runtime import logs
from chorus.protocol.runtime.command_line import PATH, command, option
from chorus.reward_server.api.app import create_app
from chorus.reward_server.api.settings import OF_RECIPE, Settings
from chorus.reward_server.graders.own import unusable

TOKEN_VARIABLE = "CHORUS_REWARD_TOKEN"
KEEP_ALIVE_S = 75  # longer than the pause between two groups: a connection must not close under a request
DRAIN_GRACE_S = 5  # beyond one grade's limit, for requests in flight at SIGTERM


@command(
    "reward-server",
    help=__doc__,
    epilog=f"With {TOKEN_VARIABLE} set, /v1 asks for that bearer token.",
    examples=["chorus reward-server --port 8100 --recipe recipes/demo.toml"],
)
@option("--host", default="127.0.0.1", help="address to listen on")
@option("--port", type=click.IntRange(0, 65535), default=8100, help="0 picks a free one")
@option(
    "--recipe",
    type=PATH,
    help="a recipe, or a run's config.json: its [reward] and templates.files count, unless options say otherwise",
)
@option("--workers", type=int, help="grader processes (default: the recipe's; else one a core)")
@option("--timeout", type=float, metavar="SECONDS", help="of one grade (default: the recipe's; else 5)")
@option(
    "--templates", type=PATH, several=True, metavar="PATH...", help="templates beside the recipe's: files or folders"
)
@option("--reward-json", metavar="JSON", help='composition, for example {"compose": "format_gated"}')
@option("--max-queue", type=int, default=4096, help="grades waiting or in progress before 429")
def main(host: str, port: int, **options: Any) -> int:
    """Serve until SIGTERM or Ctrl-C, then drain. Returns 0; 1 when it cannot listen; 2 for bad settings."""
    try:
        settings = _settings(**options)
        app = create_app(settings)  # reads the templates
        if (why := unusable(settings.graders)) is not None:
            return _fail(2, why)
    except ValidationError as error:
        first = error.errors()[0]
        return _fail(2, f"{'.'.join(map(str, first['loc'])) or 'settings'}: {first['msg']}; see --help")
    except ValueError as error:
        return _fail(2, str(error))
    try:
        listener = _listen(host, port)
    except OSError as error:
        hint = "is another server running there? choose another --port"
        return _fail(1, f"cannot listen on {host} port {port}: {error.strerror}; {hint}")
    host, port = listener.getsockname()[:2]
    address = f"[{host}]" if ":" in host else host
    logs.announce(
        f"reward-server: http://{address}:{port} (workers {settings.workers}, "
        f"limit {settings.timeout_s:g} s a grade, {'token' if settings.token else 'no token'})"
    )
    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,  # its lines take the form of ours
        log_level="warning",
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(2 * settings.timeout_s) + DRAIN_GRACE_S,
    )
    # uvicorn drains, then raises the signal again; without these handlers that would end us with its number.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    uvicorn.Server(config).run(sockets=[listener])
    return 0


def _settings(
    recipe: Path | None,
    workers: int | None,
    timeout: float | None,
    templates: tuple[Path, ...],
    reward_json: str | None,
    max_queue: int,
) -> Settings:
    fields: dict[str, Any] = {"workers": len(os.sched_getaffinity(0))}
    if recipe is not None:
        config = load_config(recipe)
        spec = RewardSpec(**config.reward.model_dump(include=set(RewardSpec.model_fields)))
        fields = config.reward.model_dump(include=OF_RECIPE) | {"reward": spec}
        templates = (*map(Path, config.templates.files), *templates)
    if reward_json is not None:
        fields["reward"] = RewardSpec.model_validate_json(reward_json)
    given = {"workers": workers, "timeout_s": timeout}
    return Settings(
        **fields | {name: value for name, value in given.items() if value is not None},
        max_queue=max_queue,
        templates=tuple(dict.fromkeys(templates)),
        token=os.environ.get(TOKEN_VARIABLE),
    )


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens: a port in use is known before any grader starts, and who read the address may connect."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    listener.listen(2048)  # uvicorn's own backlog
    return listener


def _fail(code: int, message: str) -> int:
    logs.last_word(f"chorus reward-server: {message}")
    return code


if __name__ == "__main__":
    sys.exit(main())
