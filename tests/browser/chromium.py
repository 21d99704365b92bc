"""Debian's Chromium without a window, spoken to over two pipes in the Chrome DevTools Protocol.

Pipes and not a port: nobody else on the machine can speak to the browser, nothing has to be
installed beside it, and a browser whose tests were killed ends by itself when the pipes close.
Everything that it writes lies in one temporary folder, which is gone afterwards. Why there is no
driver: docs/decisions/0043.

Source: https://chromedevtools.github.io/devtools-protocol/ (domains Target, Page, Runtime, Log,
Network, Emulation, Input); --remote-debugging-pipe: JSON messages that end with a zero byte.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

REQUIRED = "FEDMETA_REQUIRE_TOOLS"
"""Set where the browser must be there (.ci/run): a missing one then fails instead of skipping."""

PATIENCE = 60.0
"""Seconds that one answer may take; a machine that is busy with other tests is slow."""

HEIGHT = 900
"""Height of the window, in CSS pixels."""

OPTIONS = (
    "--headless",
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-pings",
    "--disable-breakpad",
    "--disable-sync",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-domain-reliability",
    "--disable-features=Translate,OptimizationHints,MediaRouter,DialMediaRouteProvider",
    # No name resolves and no address is reached but through a proxy that is not there: what asks
    # for anything is seen to ask, and gets nothing.
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--proxy-server=127.0.0.1:1",
    "--proxy-bypass-list=<-loopback>",
)

KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), "Space": (32, " ")}


class BrowserError(Exception):
    """The browser ended, kept silent, or refused what it was asked."""


@dataclass(frozen=True)
class Look:
    """How a page is looked at.

    Attributes:
        scheme: the colours that the reader's system prefers.
        width: of the window, in CSS pixels.
        media: what the page is laid out for.
    """

    scheme: Literal["light", "dark"]
    width: int
    media: Literal["screen", "print"] = "screen"

    def __str__(self) -> str:
        return f"{self.scheme}-{self.width}-{self.media}"


@dataclass
class Page:
    """One tab.

    Attributes:
        events: everything that the browser reported about the tab, in order.
    """

    _browser: Chromium
    _target: str
    _session: str
    events: list[dict[str, Any]] = field(default_factory=list)

    def call(self, method: str, **arguments: object) -> dict[str, Any]:
        """The answer to one command of the protocol."""
        return self._browser.call(method, arguments, self._session)

    def open(self, url: str, *, scripts: bool = True) -> None:
        """Load a page and wait until it and all that it asks for are there, or refused."""
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.events.clear()
        failed = self.call("Page.navigate", url=url).get("errorText")
        if failed:
            raise BrowserError(f"{url}: {failed}")
        self._browser.wait_for(self.events, "Page.loadEventFired")
        if scripts:  # two frames: layout and whatever it asks for have happened
            self.evaluate("new Promise(d => requestAnimationFrame(() => requestAnimationFrame(d)))")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited where it is a promise; plain JSON."""
        found = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in found:
            raise BrowserError(json.dumps(found["exceptionDetails"])[:2000])
        return found["result"].get("value")

    def look(self, look: Look) -> None:
        """Lay the page out for this look; nothing moves, so that what is asked next is settled."""
        self.call(
            "Emulation.setEmulatedMedia",
            media=look.media,
            features=[
                {"name": "prefers-color-scheme", "value": look.scheme},
                {"name": "prefers-reduced-motion", "value": "reduce"},
            ],
        )
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=look.width, height=HEIGHT, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def press(self, key: str) -> None:
        """Press and release a key of KEYS."""
        code, text = KEYS[key]
        name = text if key == "Space" else key
        common = {"key": name, "code": key, "windowsVirtualKeyCode": code}
        down = {"type": "keyDown", "text": text} if text else {"type": "rawKeyDown"}
        self.call("Input.dispatchKeyEvent", **common, **down)
        self.call("Input.dispatchKeyEvent", **common, type="keyUp")

    def screenshot(self) -> bytes:
        """The whole page, below the window too, as PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        found = self.call(
            "Page.captureScreenshot", captureBeyondViewport=True, clip=clip, optimizeForSpeed=True
        )
        return base64.b64decode(found["data"])

    def pdf(self) -> bytes:
        """The page on A4 paper, as a reader prints it: no look is in force, here and afterwards."""
        self.call("Emulation.setEmulatedMedia", media="", features=[])
        found = self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)
        return base64.b64decode(found["data"])

    def close(self) -> None:
        """Close the tab."""
        self._browser.call("Target.closeTarget", {"targetId": self._target})


class Chromium:
    """A running browser; made by `running`."""

    def __init__(self, process: int, commands: int, answers: int) -> None:
        self.process = process
        self._commands = commands
        self._answers = answers
        self._count = 0
        self._buffer = b""
        self._pages: dict[str, Page] = {}

    def page(self) -> Page:
        """A new, empty tab that reports its console and its requests."""
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        attached = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})
        page = Page(self, target, attached["sessionId"])
        self._pages[attached["sessionId"]] = page
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        return page

    def call(
        self, method: str, arguments: dict[str, object] | None = None, session: str | None = None
    ) -> dict[str, Any]:
        """Send one command and wait for its answer. Raises BrowserError."""
        self._count += 1
        message: dict[str, object] = {"id": self._count, "method": method}
        message |= {"params": arguments or {}} | ({"sessionId": session} if session else {})
        self._send(json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE
        while True:
            found = self._receive(deadline, method)
            if found.get("id") == self._count:
                if "error" in found:
                    raise BrowserError(f"{method}: {found['error']}")
                answer: dict[str, Any] = found["result"]
                return answer

    def wait_for(self, events: list[dict[str, Any]], method: str) -> None:
        """Return as soon as the event is among the page's events. Raises BrowserError."""
        deadline = time.monotonic() + PATIENCE
        while not any(event["method"] == method for event in events):
            self._receive(deadline, method)

    def end(self) -> None:
        """Close the browser and all its processes."""
        with contextlib.suppress(BrowserError):
            self.call("Browser.close")
        os.close(self._commands)
        os.close(self._answers)
        handle = os.pidfd_open(self.process)
        try:
            select.select([handle], [], [], 10)
        finally:
            os.close(handle)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)

    def _send(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self._commands, data) :]
        except BrokenPipeError as error:
            raise BrowserError("the browser ended") from error

    def _receive(self, deadline: float, awaited: str) -> dict[str, Any]:
        """The next message; an event is kept with its page, too."""
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], deadline - time.monotonic())
            if not ready:
                raise BrowserError(f"no answer in {PATIENCE:.0f} s: {awaited}")
            more = os.read(self._answers, 2**20)
            if not more:
                raise BrowserError(f"the browser ended: {awaited}")
            self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(line)
        page = self._pages.get(found.get("sessionId", ""))
        if page is not None and "method" in found:
            page.events.append(found)
        return found


def program() -> Path | None:
    """Where the browser is; None: not installed."""
    found = shutil.which("chromium")
    return None if found is None else Path(found)


@contextlib.contextmanager
def running() -> Iterator[Chromium]:
    """Start the browser; gone afterwards. Raises FileNotFoundError where it is not installed."""
    found = program()
    if found is None:
        raise FileNotFoundError("Chromium is not installed: make browser")
    # Its Unix socket lies in it, and a path of one has at most 107 bytes: no deep folder will do.
    with tempfile.TemporaryDirectory(prefix="fedmeta-chromium-", dir="/tmp") as home:
        browser = _start(found, home)
        try:
            yield browser
        finally:
            browser.end()


def _start(path: Path, home: str) -> Chromium:
    # Root has no sandbox of its own to drop into: Chromium refuses to start as root with one. The
    # pages are the tests' own, and no address is reached.
    words = [str(path), *OPTIONS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    words += [f"--user-data-dir={home}/profile", "about:blank"]
    environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "TZ": "UTC"}
    environment |= {"HOME": home, "TMPDIR": home, "XDG_RUNTIME_DIR": home}
    to_read, commands = os.pipe()
    answers, to_write = os.pipe()
    # The browser reads from 3 and writes to 4. Both ends are moved out of the way first, so that
    # none is overwritten while they are put there.
    high = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, 10) for one in (to_read, to_write)]
    actions = [
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, high[0], 3),
        (os.POSIX_SPAWN_DUP2, high[1], 4),
    ]
    try:
        process = os.posix_spawn(path, words, environment, file_actions=actions, setsid=True)
    finally:
        for one in (to_read, to_write, *high):
            os.close(one)
    return Chromium(process, commands, answers)
