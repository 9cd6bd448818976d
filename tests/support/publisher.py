"""A place that publishes files over HTTP: knows Range, and can break off, be away, or answer with something else."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Publisher:
    """`breaks`: after so many bytes the connection is lost, once. `asked`: (path, first byte) of every request."""

    files: dict[str, bytes] = field(default_factory=dict)
    breaks: dict[str, int] = field(default_factory=dict)
    knows_ranges: bool = True
    asked: list[tuple[str, int]] = field(default_factory=list)
    url: str = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        found = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        first = int(found[1]) if found and self.knows_ranges else 0
        path = request.path.lstrip("/")
        self.asked.append((path, int(found[1]) if found else 0))
        if path not in self.files:
            request.send_error(404)
            return
        whole = self.files[path]
        body = whole[first:]
        request.send_response(206 if first else 200)
        if first:
            request.send_header("Content-Range", f"bytes {first}-{len(whole) - 1}/{len(whole)}")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[: self.breaks.pop(path, len(body))])


@contextmanager
def publishing(publisher: Publisher) -> Iterator[Publisher]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            publisher.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    publisher.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield publisher
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
