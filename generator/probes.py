"""What a cluster asks a generator over HTTP: does it live, may work be expected of it, what are its figures.

    GET /healthz   200 while the event loop answers
    GET /readyz    200 and `ready`, or 503 and why not: the state's name, or how far the weights are behind
    GET /metrics   Prometheus

One port for all three (`generator.metrics_port`). They are served by the agent's own event loop, so that a loop
that stands still fails the liveness probe instead of hiding behind a thread that still answers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from chorus.protocol.runtime.addresses import listen_everywhere
from chorus.protocol.runtime.exits import CannotGoOn


def create_app(readiness: Callable[[], str], registry: CollectorRegistry) -> web.Application:
    """`readiness` says `ready`, or in a few words why not."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        said = readiness()
        return web.Response(text=f"{said}\n", status=200 if said == "ready" else 503)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    return app


@asynccontextmanager
async def served(app: web.Application, port: int) -> AsyncIterator[None]:
    """Serve `app` on all interfaces while the block runs; port 0: not at all. Raises CannotGoOn."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        if port:
            await _listen(runner, port)
        yield
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, port: int) -> None:
    try:
        await web.SockSite(runner, listen_everywhere(port)).start()
    except OSError as error:
        raise CannotGoOn(f"metrics_port {port}: can't listen on it ({error.strerror}); choose another") from None
