"""The viewer's application: the page, and as JSON what it shows.

    GET /api/rollouts?run=&step=&template=&verdict=&q=&sort=&limit=&offset=   {"rollouts": [...], "total": n}

`run` may be left out where there is one. It listens to the host names it is told and to no other, so that no page of
somebody else's can ask it through a name of its own; with a token, /api asks for it.
"""

from __future__ import annotations

import hmac
import json
import math
import re
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import Body, FastAPI, HTTPException, Query, Request
from starlette.background import BackgroundTask
from starlette.responses import FileResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.viewer import evaluations, groups, overview
from chorus.viewer.queries import FILTERS, MOST_ROWS, SHOWN, BadFilter, Question, question
from chorus.viewer.store import Rollouts, TooMuch

MEDIA = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
MOST_EXPORTED = 200_000
_ARRAYS = ("token_ids", "logprobs", "versions", "prompt", "prompt_ids")
_BY = ("template", "verdict", "level", "domain", "generator", "staleness", "hint_ratio", "kind")
_FIGURES = """
    count(*) AS samples, avg(reward) AS reward, avg(accuracy) AS accuracy, avg(format) AS format,
    avg((format < 1)::INT) AS format_failed, avg((verdict = 'no_answer')::INT) AS no_answer,
    avg(truncated::INT) AS truncated, avg(tokens) AS tokens, avg(staleness) AS staleness"""
# (run's folder, a stored sample) -> what the reward server's graders say of it today, explained
Judge = Callable[[RunFolder, dict[str, Any]], Awaitable[dict[str, Any]]]


class Reply(Response):
    """JSON as browsers read it: what is no finite number is null."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        try:
            text = json.dumps(content, ensure_ascii=False, allow_nan=False)
        except ValueError:
            text = json.dumps(_finite(content), ensure_ascii=False)
        return text.encode("utf-8", "replace")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def create_app(
    runs: Sequence[RunFolder],
    judging: Callable[[], AbstractAsyncContextManager[Judge]] | None = None,
    looking: Callable[[RunFolder], list[str]] | None = None,
    token: str | None = None,
    hosts: Sequence[str] = LOOPBACK,
) -> FastAPI:
    """Over these runs, of different names. judging: opened with the application; None: it can't judge again.

    looking: what the ledger of a run that goes on says of it, in lines.
    """
    stores = Stores(runs)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if judging is None:
            yield
            return
        async with judging() as app.state.judge:
            yield

    app = FastAPI(
        title="Chorus viewer", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan,
        default_response_class=Reply,
    )  # fmt: skip
    app.state.judge = None
    app.add_middleware(Door, token=token, hosts=hosts)
    _add_page(app)
    _add_refusals(app)
    _add_rollouts(app, stores)
    _add_groups(app, stores)
    _add_runs(app, stores, looking or (lambda run: []))
    return app


def _add_page(app: FastAPI) -> None:
    shared = files("chorus.reward_server.playground")  # the verifier's page and this one look alike
    for name, source in (("base.css", "style.css"), ("icon.svg", "icon.svg")):
        content = (shared / source).read_bytes()
        app.router.add_route(f"/static/{name}", _file(content, MEDIA[Path(name).suffix]), methods=["GET"])
    for item in (files("chorus.viewer") / "static").iterdir():
        if (suffix := Path(item.name).suffix) in MEDIA:
            path = "/" if item.name == "index.html" else f"/static/{item.name}"
            app.router.add_route(path, _file(item.read_bytes(), MEDIA[suffix]), methods=["GET"])


def _file(content: bytes, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        return Response(content, media_type=media_type, headers=HEADERS)

    return serve


class Stores:
    """Of each run: what it has trained on, and what its evaluations have asked (`of`)."""

    def __init__(self, runs: Sequence[RunFolder]) -> None:
        self.runs = {run.name: run for run in runs}
        self._opened: dict[tuple[str, str], Rollouts] = {}

    def run(self, name: str) -> RunFolder:
        if not name and len(self.runs) == 1:
            return next(iter(self.runs.values()))
        if name not in self.runs:
            raise HTTPException(404, f"run {name[:80]!r} is not shown here; there are {', '.join(self.runs)}")
        return self.runs[name]

    def __call__(self, name: str, of: str = "") -> Rollouts:
        run = self.run(name)
        if of and not (re.fullmatch(r"before|after|step-\d{6,}", of) and run.evaluated(of).exists()):
            raise HTTPException(404, f"the answers of {of[:40]!r} are not kept in {run.name}")
        if (run.name, of) not in self._opened:
            self._opened[run.name, of] = Rollouts(run, of)
        return self._opened[run.name, of]


def _question(request: Request) -> Question:
    given = {name: request.query_params.getlist(name) for name in FILTERS if name in request.query_params}
    return question(given, request.query_params.get("sort", ""))


def _add_refusals(app: FastAPI) -> None:
    @app.exception_handler(BadFilter)
    async def bad_filter(request: Request, error: Exception) -> Response:
        return Reply({"detail": str(error)}, 422)

    @app.exception_handler(TooMuch)
    async def too_much(request: Request, error: Exception) -> Response:
        return Reply({"detail": str(error)}, 503)

    @app.exception_handler(CannotGoOn)
    async def cannot(request: Request, error: Exception) -> Response:
        return Reply({"detail": str(error)}, 409)


def _add_rollouts(app: FastAPI, stores: Stores) -> None:
    @app.get("/api/rollouts")
    def rollouts(
        request: Request,
        run: str = "",
        of: str = "",
        limit: int = Query(100, ge=0, le=MOST_ROWS),
        offset: int = Query(0, ge=0),
        columns: str = "",
    ) -> Any:
        more = [name for name in columns.split(",") if name in _ARRAYS]
        return stores(run, of).page(_question(request), limit, offset, (*SHOWN, *more))

    @app.get("/api/breakdown")
    def breakdown(request: Request, run: str = "", of: str = "", by: str = "template") -> Any:
        if by not in _BY:
            raise BadFilter(f"by: {by[:40]!r} is nothing to count by")
        asked = _question(request)
        sql = f"""SELECT "{by}" AS name, {_FIGURES} FROM rollouts WHERE {asked.where}
            GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 200"""
        return {"rows": stores(run, of).rows(sql, asked.parameters)}

    @app.get("/api/export")
    def export(request: Request, run: str = "", of: str = "", file: str = "jsonl") -> Any:
        store, asked = stores(run, of), _question(request)
        if file == "parquet":
            folder = tempfile.TemporaryDirectory(prefix="chorus-view-")
            target = Path(folder.name) / f"{store.run.name}.parquet"
            store.export(asked, target)
            name = target.name
            return FileResponse(target, filename=name, headers=HEADERS, background=BackgroundTask(folder.cleanup))
        if file != "jsonl":
            raise BadFilter(f"file: {file[:40]!r} is neither parquet nor jsonl")
        page = store.page(asked, MOST_EXPORTED, 0)
        lines = "".join(json.dumps(_finite(row), ensure_ascii=False) + "\n" for row in page["rollouts"])
        named = {"Content-Disposition": 'attachment; filename="rollouts.jsonl"'}
        return Response(lines.encode("utf-8", "replace"), media_type="application/x-ndjson", headers=HEADERS | named)


def _add_groups(app: FastAPI, stores: Stores) -> None:
    @app.get("/api/group")
    def group(step: int, group: int, run: str = "", of: str = "") -> Any:
        found = groups.group_of(stores(run, of), step, group)
        if found is None:
            raise HTTPException(404, f"step {step} has trained no group {group}")
        return found | {"can_judge": app.state.judge is not None}

    @app.get("/api/problem")
    def problem(id: str, run: str = "", of: str = "") -> Any:
        return groups.problem_of(stores(run, of), id)

    @app.get("/api/compare")
    def compare(a: str = "", b: str = "", a_step: str = "", b_step: str = "", a_of: str = "", b_of: str = "") -> Any:
        asked = [question({"step": [step]}) for step in (a_step, b_step)]
        sides = [(each.where, each.parameters) for each in asked]
        return groups.compare(stores(a, a_of), stores(b, b_of), *sides)

    @app.post("/api/judge")
    async def judge(asked: dict[str, Any] = Body(...)) -> Any:
        if app.state.judge is None:
            raise HTTPException(409, "this server has no graders")
        store = stores(str(asked.get("run", "")), str(asked.get("of", "")))
        sql = """SELECT text, kind, gold, tests, "row", options, sub_answers, template, verdict, reward
            FROM rollouts
            WHERE step = ? AND "group" = ? AND sample = ?"""
        rows = store.rows(sql, [int(asked["step"]), int(asked["group"]), int(asked["sample"])])
        if not rows:
            raise HTTPException(404, "there is no such sample")
        then = {name: rows[0].pop(name) for name in ("verdict", "reward")}
        return {"then": then, "now": await app.state.judge(store.run, rows[0])}


def _add_runs(app: FastAPI, stores: Stores, looking: Callable[[RunFolder], list[str]]) -> None:
    @app.get("/api/runs")
    def runs() -> Any:
        return {"runs": [overview.standing(run) for run in stores.runs.values()]}

    @app.get("/api/overview")
    def one(run: str = "", since: int = 0) -> Any:
        return overview.overview(stores.run(run), since)

    @app.get("/api/live")
    def live(run: str = "") -> Any:
        return {"lines": looking(stores.run(run))}

    @app.get("/api/evaluations")
    def evaluated(run: str = "") -> Any:
        return evaluations.evaluations(stores.run(run))

    @app.get("/api/answers")
    def answers(
        suite: str,
        benchmark: str,
        run: str = "",
        level: str = "",
        subject: str = "",
        verdict: str = "",
        limit: int = Query(100, ge=0, le=MOST_ROWS),
        offset: int = Query(0, ge=0),
    ) -> Any:
        wanted = {"level": level, "subject": subject, "verdict": verdict}
        return evaluations.answers(stores.run(run), suite, benchmark, wanted, limit, offset)


class Door:
    """ASGI middleware: 421 for a foreign Host, 401 without the token where there is one."""

    def __init__(self, app: ASGIApp, token: str | None, hosts: Sequence[str]) -> None:
        self._app = app
        self._hosts = {host.lower() for host in hosts}
        self._expected = None if token is None else f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        refusal = self._refusal(scope["path"], headers)
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, path: str, headers: Mapping[bytes, bytes]) -> Response | None:
        # A page of somebody else's reaches a loopback address through a name of its own; the name gives it away.
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if "*" not in self._hosts and name not in self._hosts:
            detail = f"this viewer is not called {host[:80]!r}; open it under {sorted(self._hosts)[0]}, or see --host"
            return Reply({"detail": detail}, 421)
        given = headers.get(b"authorization", b"")
        if path.startswith("/api/") and self._expected and not hmac.compare_digest(given, self._expected):
            detail = "this viewer asks for its token (CHORUS_VIEW_TOKEN)"
            return Reply({"detail": detail}, 401, {"WWW-Authenticate": "Bearer"})
        return None
