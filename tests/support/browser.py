"""A headless Chromium, driven over its DevTools protocol: no driver binary, no framework, one web socket.

    with Browser() as browser:
        page = browser.open("http://127.0.0.1:8100/")
        page.until("document.title")
        page.press("Enter", ctrl=True)

Protocol: https://chromedevtools.github.io/devtools-protocol/ (stable domains Page, Runtime, Input, Network, Log,
Emulation, Accessibility).
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE_S = 30  # a busy machine is slow, and no test measures time with this
MODIFIERS = {"ctrl": 2, "shift": 8}
KEYS = {"Enter": (13, "\r"), "Tab": (9, None), "Escape": (27, None), " ": (32, " ")}


def chromium() -> str | None:
    """The path of a Chromium: $CHORUS_CHROMIUM, else the first known name on PATH; None when there is none."""
    return os.environ.get("CHORUS_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One Chromium process with a profile of its own; `open` gives a fresh page."""

    def __enter__(self) -> Browser:
        with ExitStack() as stack:
            profile = stack.enter_context(TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True))
            process = _start(Path(profile))
            stack.callback(process.wait)
            stack.callback(os.killpg, process.pid, signal.SIGKILL)  # its name may be a script that starts the program
            address = _address(Path(profile) / "DevToolsActivePort", process)
            opening = connect(address, max_size=None, open_timeout=PATIENCE_S, compression=None)
            self._socket = stack.enter_context(opening)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def open(self, url: str, width: int = 1440, height: int = 1000, dark: bool = False) -> Page:
        """A new page, in storage of its own, once its document is loaded."""
        channel = Channel(self._socket)
        context = channel.call("Target.createBrowserContext")["browserContextId"]
        target = channel.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = channel.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(Channel(self._socket, session))
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            page.call(f"{domain}.enable")
        page.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        page.dark(dark)
        page.go(url)
        return page


def _start(profile: Path) -> subprocess.Popen[bytes]:
    program = chromium()
    assert program is not None, "no Chromium here"
    # Chromium's sandbox refuses to run as root, which containers do; the pages are our own.
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    quiet = ["--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run"]
    quiet += ["--disable-background-networking"]
    remote = ["--headless", "--remote-debugging-port=0", f"--user-data-dir={profile}"]
    command = [program, *remote, *quiet, *root, "about:blank"]
    quiet_output = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, **quiet_output, start_new_session=True)


def _address(file: Path, process: subprocess.Popen[bytes]) -> str:
    """The web socket that Chromium listens on, which it writes into its profile: a port and a path."""
    deadline = time.monotonic() + PATIENCE_S
    while not file.exists() or len(lines := file.read_text().split()) < 2:
        assert process.poll() is None, f"Chromium ended with {process.returncode} before it listened"
        assert time.monotonic() < deadline, "Chromium does not listen"
        time.sleep(0.02)
    return f"ws://127.0.0.1:{lines[0]}{lines[1]}"


class Channel:
    """Calls over the browser's socket, of the browser itself or of one session; events are kept by the caller."""

    _next_id = 0

    def __init__(self, socket: ClientConnection, session: str | None = None) -> None:
        self._socket, self._session = socket, session
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        Channel._next_id += 1
        number = Channel._next_id
        message = {"id": number, "method": method, "params": params}
        self._socket.send(json.dumps(message | ({"sessionId": self._session} if self._session else {})))
        while True:
            reply = json.loads(self._socket.recv(timeout=PATIENCE_S))
            if reply.get("id") == number:
                assert "error" not in reply, f"{method}: {reply['error']}"
                return reply["result"]
            if reply.get("sessionId") == self._session:
                self.events.append(reply)


class Page:
    """One tab."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.call = channel.call

    def go(self, url: str) -> None:
        """Navigate, and wait for the document and its scripts."""
        assert "errorText" not in (moved := self.call("Page.navigate", url=url)), moved
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def dark(self, dark: bool) -> None:
        """What the reader's system prefers."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; promises are awaited."""
        reply = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in reply, reply["exceptionDetails"]
        return reply["result"].get("value")

    def until(self, expression: str) -> Any:
        """Wait until the expression is truthy, and return it."""
        deadline = time.monotonic() + PATIENCE_S
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < deadline, f"never true: {expression}"
            time.sleep(0.02)
        return value

    def press(self, key: str, **modifiers: bool) -> None:
        """A key, as a person presses it: press("Enter", ctrl=True)."""
        number, text = KEYS[key]
        held = sum(MODIFIERS[name] for name, down in modifiers.items() if down)
        base = {"key": key, "code": key, "windowsVirtualKeyCode": number, "modifiers": held}
        self.call("Input.dispatchKeyEvent", type="keyDown", **base, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **base)

    def type(self, selector: str, text: str) -> None:
        """Replace a field's content by typed text."""
        self.evaluate(f"(e => {{ e.focus(); e.select(); }})(document.querySelector({json.dumps(selector)}))")
        self.call("Input.insertText", text=text)

    def text(self, selector: str) -> str:
        return self.evaluate(f"document.querySelector({json.dumps(selector)}).textContent")

    def screenshot(self) -> bytes:
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    @property
    def requests(self) -> list[str]:
        """Every address that the page asked for."""
        self.evaluate("0")  # what has happened until now has then arrived
        events = self._channel.events
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        """What the console has shown in red since the last call."""
        self.evaluate("0")
        found, rest = [], []
        for event in self._channel.events:
            text = _complaint(event["method"], event["params"])
            (rest if text is None else found).append(event if text is None else text)
        self._channel.events[:] = rest
        return found


def _complaint(method: str, params: dict[str, Any]) -> str | None:
    if method == "Runtime.exceptionThrown":
        return str(params["exceptionDetails"])
    if method == "Log.entryAdded" and params["entry"]["level"] == "error":
        return params["entry"]["text"]
    if method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
        return str(params["args"])
    return None
