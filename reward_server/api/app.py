"""The HTTP interface: facts about completions and the simply composed reward.

    POST /v1/grade  /v1/grade/batch  /v1/explain  /v1/cluster  /v1/render      GET /v1/templates  /v1/graders
    GET /healthz (the process answers)  /readyz (every grader is warm)  /metrics      GET / (the playground)

This process grades nothing itself: it counts markers, composes rewards, and hands everything that needs
algebra to the pool. It imports neither sympy nor torch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException

from chorus.protocol.metrics.waits import watch_event_loop
from chorus.protocol.templates.template import render_chatml
from chorus.reward_server.api import schemas
from chorus.reward_server.api.asking import BadItemError, NoSandboxError
from chorus.reward_server.api.middleware import Gate
from chorus.reward_server.api.service import Service, log
from chorus.reward_server.api.settings import Settings
from chorus.reward_server.playground import add_playground
from chorus.reward_server.pool.pool import PoolFailedError, QueueFullError


def create_app(settings: Settings) -> FastAPI:
    """The application; its lifespan starts and stops the graders."""
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.pools.start()
        lag = asyncio.create_task(watch_event_loop(service.metrics.event_loop_lag_seconds, log))
        yield
        lag.cancel()
        await service.pools.close()

    app = FastAPI(title="Chorus reward server", version="1", lifespan=lifespan, docs_url=None, redoc_url=None)
    refused = service.metrics.refused
    app.add_middleware(
        Gate,
        max_body_bytes=settings.max_body_bytes,
        token=settings.token,
        on_refusal=lambda reason: refused.labels(reason).inc(),
    )
    _add_error_handlers(app, service)
    _add_grading(app, service)
    _add_templates(app, service)
    _add_probes(app, service)
    add_playground(app)
    return app


def _add_grading(app: FastAPI, service: Service) -> None:
    @app.post("/v1/grade", response_model=schemas.GradeResponse)
    async def grade(request: schemas.GradeRequest) -> Response:
        return JSONResponse(await service.grade(request, "grade"))

    @app.post("/v1/grade/batch", response_model=schemas.BatchResponse)
    async def grade_batch(request: schemas.BatchRequest) -> Response:
        service.check_batch(len(request.items), "items")
        return JSONResponse({"results": await service.grade_batch(request.items)})

    @app.post("/v1/explain", response_model=schemas.ExplainResponse)
    async def explain(request: schemas.GradeRequest) -> Response:
        return JSONResponse(await service.grade(request, "explain"))

    @app.post("/v1/cluster", response_model=schemas.ClusterResponse)
    async def cluster(request: schemas.ClusterRequest) -> Response:
        service.check_batch(len(request.completions), "completions")
        return JSONResponse(await service.cluster(request))


def _add_templates(app: FastAPI, service: Service) -> None:
    @app.get("/v1/templates", response_model=schemas.TemplatesResponse)
    async def templates() -> Response:
        return JSONResponse({"templates": [template.model_dump() for template in service.templates.values()]})

    @app.get("/v1/graders", response_model=schemas.GradersResponse)
    async def graders() -> Response:
        return JSONResponse(service.graders())

    @app.post("/v1/render", response_model=schemas.RenderResponse)
    async def render(request: schemas.RenderRequest) -> Response:
        template = service.template(request.template, "template")
        return JSONResponse({"prompt": render_chatml(template, request.problem), "prefill": template.prefill})


def _add_probes(app: FastAPI, service: Service) -> None:
    @app.get("/healthz")
    async def healthz() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get("/readyz")
    async def readyz() -> Response:
        pool = service.pools
        state = {"ready": pool.ready, "warm_workers": pool.warm_workers, "workers": pool.workers}
        state |= {"failed": pool.failed, "sandbox": service.sandbox}
        return JSONResponse(state, 200 if pool.ready else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        media_type = "text/plain; version=0.0.4; charset=utf-8"
        return PlainTextResponse(service.metrics.exposition(), media_type=media_type)


def _add_error_handlers(app: FastAPI, service: Service) -> None:
    """Every refusal is {"detail": one sentence}."""

    def refuse(status: int, reason: str, message: str, headers: dict[str, str] | None = None) -> Response:
        service.metrics.refused.labels(reason).inc()
        return JSONResponse({"detail": message}, status, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        if "json" not in request.headers.get("content-type", ""):
            return refuse(422, "invalid", "the body must be JSON: send the header 'Content-Type: application/json'")
        return refuse(422, "invalid", _sentence(error))

    @app.exception_handler(StarletteHTTPException)
    async def http_error(request: Request, error: StarletteHTTPException) -> Response:
        if error.status_code == 400:  # FastAPI's answer to a body that no JSON parser gets through
            return refuse(422, "invalid", "the body is not JSON: it is not UTF-8, or nested too deeply")
        return JSONResponse({"detail": error.detail}, error.status_code, error.headers)

    @app.exception_handler(BadItemError)
    async def bad_item(request: Request, error: BadItemError) -> Response:
        return refuse(422, "invalid", str(error))

    @app.exception_handler(NoSandboxError)
    async def no_sandbox(request: Request, error: NoSandboxError) -> Response:
        return refuse(501, "no_sandbox", str(error))

    @app.exception_handler(QueueFullError)
    async def queue_full(request: Request, error: QueueFullError) -> Response:
        return refuse(429, "queue_full", str(error), {"Retry-After": str(error.retry_after_s)})

    @app.exception_handler(PoolFailedError)
    async def pool_failed(request: Request, error: PoolFailedError) -> Response:
        return refuse(503, "no_graders", str(error))


def _sentence(error: RequestValidationError) -> str:
    """The first problem, with its path: `items[3].gold: Field required`."""
    first = error.errors()[0]
    path = ""
    for part in first["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    if first["type"] == "json_invalid":
        return f"the body is not JSON: {first.get('ctx', {}).get('error', first['msg'])}"
    return f"{path.removeprefix('.body').removeprefix('.') or 'body'}: {first['msg']}"
