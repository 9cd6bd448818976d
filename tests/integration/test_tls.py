"""Redis behind TLS (`rediss://`): the ledger works over it, and a server that nobody vouches for is refused.

The bundled Valkey is built without TLS: here it stands behind a terminator, as one often does. Where there is a
`redis-server` with TLS of its own, that one as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
import redis

from chorus.protocol.ledger import LearnerLedger
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.runtime.redis import await_redis, connect, connect_async
from chorus.protocol.runtime.redis_store import RedisStore

PASSWORD = "s3cret"
pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here, which makes the certificate")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    words += ["-subj", "/CN=chorus", "-addext", "subjectAltName=IP:127.0.0.1"]
    for name in ("ours", "other"):
        files = ["-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.pem"]
        subprocess.run(["openssl", *words, *files], check=True, capture_output=True, timeout=30)
    return folder


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@contextlib.contextmanager
def terminated(port: int, certificate: Path) -> Iterator[int]:
    """TLS in front of a port, in a thread."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "ours.pem", certificate / "ours.key")
    loop, ready, found = asyncio.new_event_loop(), threading.Event(), [0]

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                target.write(data)
                await target.drain()
        target.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    async def start() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        found[0] = server.sockets[0].getsockname()[1]
        ready.set()

    loop.create_task(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        assert ready.wait(10)
        yield found[0]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


@contextlib.contextmanager
def served(certificate: Path) -> Iterator[int]:
    """A redis-server that speaks TLS itself."""
    if (program := shutil.which("redis-server")) is None:
        pytest.skip("no redis-server here")
    port = _free_port()
    files = [f"--tls-{what}-file={certificate}/ours.{end}" for what, end in (("cert", "pem"), ("key", "key"))]
    words = ["--port", "0", "--tls-port", str(port), "--requirepass", PASSWORD, "--save", "", "--dir", str(certificate)]
    words += [word for file in files for word in file.split("=")]
    words += ["--tls-ca-cert-file", f"{certificate}/ours.pem", "--tls-auth-clients", "no"]
    process = subprocess.Popen([program, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(params=["terminator", "redis-server"])
def address(request: pytest.FixtureRequest, certificate: Path) -> Iterator[str]:
    """Without the certificate that vouches for it."""
    with contextlib.ExitStack() as stack:
        if request.param == "redis-server":
            port = stack.enter_context(served(certificate))
        else:
            inner = request.getfixturevalue("flaky_redis").url
            redis.Redis.from_url(inner).config_set("requirepass", PASSWORD)
            port = stack.enter_context(terminated(urlsplit(inner).port or 0, certificate))
        yield f"rediss://:{PASSWORD}@127.0.0.1:{port}/0"


def trusting(address: str, certificate: Path, name: str) -> str:
    return f"{address}?ssl_ca_certs={quote(str(certificate / name))}"


async def test_the_ledger_and_the_rendezvous_work_over_tls(address: str, certificate: Path) -> None:
    url = trusting(address, certificate, "ours.pem")
    client = connect(url)
    ledger = LearnerLedger(client, "run")
    ledger.admit(0, [b"task"], 1)
    assert ledger.accounts().outstanding == 1
    store = RedisStore(client, "group", 5.0)
    store.set("key", "value")
    assert store.get("key") == b"value"
    async with connect_async(url) as other:
        assert await other.ping()
        started = time.monotonic()
        assert not await other.xread({"nothing": "0"}, block=200)
        assert time.monotonic() - started > 0.15


@pytest.mark.parametrize(
    ("name", "reason"), [("other.pem", "a certificate of somebody else's"), ("", "none that this system knows")]
)
def test_a_server_that_nobody_vouches_for_is_refused(address: str, certificate: Path, name: str, reason: str) -> None:
    url = trusting(address, certificate, name) if name else address
    with pytest.raises(CannotGoOn, match="certificate verify failed") as refused:
        await_redis(url, deadline_s=0.3)
    assert PASSWORD not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_plain_words_are_no_use_at_its_port(address: str) -> None:
    plain = redis.Redis.from_url(address.replace("rediss", "redis"), socket_timeout=1.0)
    with plain, pytest.raises(redis.RedisError):
        plain.ping()
