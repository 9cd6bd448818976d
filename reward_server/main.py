"""`chorus reward-server`: the verifier service alone. It needs neither Redis nor torch, and a recipe only if it is to
compose rewards, and to know templates, as that recipe's run does."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import uvicorn
from pydantic import ValidationError

from chorus.protocol.config.load import load_config
from chorus.protocol.rewards import RewardSpec
from chorus.protocol.runtime import logs
from chorus.reward_server.api.app import create_app
from chorus.reward_server.api.settings import Settings

TOKEN_VARIABLE = "CHORUS_REWARD_TOKEN"
KEEP_ALIVE_S = 75  # longer than the pause between two groups: a connection must not close under a request
DRAIN_GRACE_S = 5  # beyond one grade's limit, for requests in flight at SIGTERM


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM or Ctrl-C, then drain. Returns 0; 1 when it cannot listen; 2 for bad settings."""
    arguments = _parser().parse_args(argv)
    try:
        settings = _settings(arguments)
        app = create_app(settings)  # reads the templates
    except ValidationError as error:
        first = error.errors()[0]
        return _fail(2, f"{'.'.join(map(str, first['loc'])) or 'settings'}: {first['msg']}")
    except ValueError as error:
        return _fail(2, str(error))
    try:
        listener = _listen(arguments.host, arguments.port)
    except OSError as error:
        hint = "is another server running there? choose another --port"
        return _fail(1, f"cannot listen on {arguments.host} port {arguments.port}: {error.strerror}; {hint}")
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="chorus reward-server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: loopback only)")
    parser.add_argument("--port", type=int, default=8100, help="port; 0 picks a free one (default 8100)")
    parser.add_argument(
        "--recipe",
        type=Path,
        help="a recipe, or a run's config.json: its [reward] and templates.files count, unless options say otherwise",
    )
    parser.add_argument("--workers", type=int, help="grader processes (default: the recipe's; else one a core)")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="of one grade (default: the recipe's; else 5)")
    parser.add_argument(
        "--templates",
        type=Path,
        nargs="*",
        default=[],
        metavar="PATH",
        help="more templates: files or folders, beside the recipe's",
    )
    parser.add_argument("--reward-json", metavar="JSON", help='composition, for example {"compose": "format_gated"}')
    parser.add_argument(
        "--max-queue", type=int, default=4096, help="grades waiting or in progress before 429 (default 4096)"
    )
    parser.epilog = f"With {TOKEN_VARIABLE} set, /v1 asks for that bearer token."
    return parser


def _settings(arguments: argparse.Namespace) -> Settings:
    fields: dict[str, Any] = {"workers": len(os.sched_getaffinity(0))}
    templates: list[Path] = []
    if arguments.recipe is not None:
        recipe = load_config(arguments.recipe)
        spec = RewardSpec(**recipe.reward.model_dump(include=set(RewardSpec.model_fields)))
        fields = {"workers": recipe.reward.workers, "timeout_s": recipe.reward.timeout_s, "reward": spec}
        templates = [Path(file) for file in recipe.templates.files]
    if arguments.reward_json is not None:
        fields["reward"] = RewardSpec.model_validate_json(arguments.reward_json)
    if arguments.workers is not None:
        fields["workers"] = arguments.workers
    if arguments.timeout is not None:
        fields["timeout_s"] = arguments.timeout
    return Settings(
        **fields,
        max_queue=arguments.max_queue,
        templates=tuple(dict.fromkeys([*templates, *arguments.templates])),
        token=os.environ.get(TOKEN_VARIABLE),
    )


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket, so that a port in use is known before any grader starts."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    return listener


def _fail(code: int, message: str) -> int:
    logs.last_word(f"reward-server: {message}")
    return code


if __name__ == "__main__":
    sys.exit(main())
