"""The playground at `/`: a page that grades one completion and shows the way to its verdict.

Plain files, served as they lie here. The page asks nothing of any other host, runs no inline script, and puts
untrusted text on the screen as text only; the headers below make the browser hold it to that. Its own files
need no token: they hold no secret, and the page asks for the token that `/v1` wants.
"""

from __future__ import annotations

from importlib.resources import files

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FILES = {
    "index.html": "text/html; charset=utf-8",
    "docs.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "docs.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "app.js": "text/javascript; charset=utf-8",
    "docs.js": "text/javascript; charset=utf-8",
    "api.js": "text/javascript; charset=utf-8",
    "examples.js": "text/javascript; charset=utf-8",
    "form.js": "text/javascript; charset=utf-8",
    "highlight.js": "text/javascript; charset=utf-8",
    "view.js": "text/javascript; charset=utf-8",
}
PAGES = {"index.html": "/", "docs.html": "/docs"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # a server that was upgraded must not meet yesterday's script
}


def add_playground(app: FastAPI) -> None:
    """Serve the pages at `/` and `/docs`, and their files under `/playground/`."""
    for name, media_type in FILES.items():
        path = PAGES.get(name, f"/playground/{name}")
        app.router.routes.append(_route(path, (files(__name__) / name).read_bytes(), media_type))


def _route(path: str, content: bytes, media_type: str) -> Route:
    async def serve(request: Request) -> Response:
        return Response(content, media_type=media_type, headers=HEADERS)

    return Route(path, serve, methods=["GET"])  # and HEAD, which Starlette adds
