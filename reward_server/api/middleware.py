"""What stands before the routes: the body limit and the bearer token."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Gate:
    """ASGI middleware: 413 for a body over `max_body_bytes` (declared or streamed), 401 without the token.

    The token guards /v1 only: probes and scrapers reach /healthz, /readyz and /metrics without it.
    """

    def __init__(
        self, app: ASGIApp, max_body_bytes: int, token: str | None, on_refusal: Callable[[str], None] = lambda _: None
    ) -> None:
        self._app = app
        self._on_refusal = on_refusal  # for the metric: "token" or "too_large"
        self._max_body_bytes = max_body_bytes
        self._expected = None if token is None else f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if scope["path"].startswith("/v1/") and not self._admits(headers.get(b"authorization", b"")):
            self._on_refusal("token")
            message = "this server asks for its bearer token: send 'Authorization: Bearer TOKEN'"
            await _refuse(send, 401, message, [(b"www-authenticate", b"Bearer")])
            return
        declared = headers.get(b"content-length", b"0")
        # int() refuses thousands of digits with an error of its own.
        if not declared.isdigit() or len(declared) > 18 or int(declared) > self._max_body_bytes:
            await self._too_large(send)
            return
        body = await self._read(receive)
        if body is None:
            await self._too_large(send)
            return
        await self._app(scope, _replay(body, receive), send)

    def _admits(self, authorization: bytes) -> bool:
        # compare_digest: the time must not tell how much of the token was right.
        return self._expected is None or hmac.compare_digest(authorization, self._expected)

    async def _read(self, receive: Receive) -> bytes | None:
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return b"".join(chunks)
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > self._max_body_bytes:
                return None
            if not message.get("more_body", False):
                return b"".join(chunks)

    async def _too_large(self, send: Send) -> None:
        self._on_refusal("too_large")
        limit = f"{self._max_body_bytes} bytes"
        message = f"the request body is larger than this server's limit of {limit}; send smaller batches"
        await _refuse(send, 413, message, [(b"connection", b"close")])


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _refuse(send: Send, status: int, message: str, headers: list[tuple[bytes, bytes]]) -> None:
    content: dict[str, Any] = {"detail": message}
    start = {"type": "http.response.start", "status": status}
    await send({**start, "headers": [(b"content-type", b"application/json"), *headers]})
    await send({"type": "http.response.body", "body": json.dumps(content).encode()})
