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
import re
import shutil
import subprocess
import tempfile
import time
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
        program = chromium()
        assert program is not None
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        # Chromium's sandbox refuses to run as root, which containers do; the pages are our own.
        root = ["--no-sandbox"] if os.geteuid() == 0 else []
        self._process = subprocess.Popen(
            [
                program,
                "--headless",
                "--remote-debugging-port=0",
                f"--user-data-dir={self._profile.name}",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
                "--no-first-run",
                "--disable-background-networking",
                *root,
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if found := re.search(r"DevTools listening on (ws://\S+)", line):
                self._socket = connect(found[1], max_size=None, open_timeout=PATIENCE_S, compression=None)
                return self
        raise AssertionError(f"{program} ended with {self._process.wait()} before it listened")

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._process.kill()
        self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()
        self._profile.cleanup()

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
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.call("Emulation.setEmulatedMedia", features=[scheme])
        page.go(url)
        return page


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
    """One tab. `complaints` are what its console would show in red."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.call = channel.call

    def go(self, url: str) -> None:
        """Navigate, and wait for the document and its scripts."""
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

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

    @property
    def complaints(self) -> list[str]:
        self.evaluate("0")
        found = []
        for event in self._channel.events:
            if event["method"] == "Runtime.exceptionThrown":
                found.append(str(event["params"]["exceptionDetails"]))
            elif event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
                found.append(event["params"]["entry"]["text"])
            elif event["method"] == "Runtime.consoleAPICalled" and event["params"]["type"] in ("error", "assert"):
                found.append(str(event["params"]["args"]))
        return found
