"""Chromium without a screen, told what to do through two pipes; neither a driver nor the network is needed.

Source: the Chrome DevTools Protocol, https://chromedevtools.github.io/devtools-protocol.
"""

import base64
import json
import os
import select
import shlex
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--headless=new",
    "--no-sandbox",  # root has none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
]
SECONDS = 60  # for an answer; a busy machine starts Chromium in 10


def find() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One tab. Whatever it says lands in `events`: requests, messages of the console, errors."""

    def __init__(self, binary: str, profile: Path):
        self.events: list[dict[str, Any]] = []
        self._number, self._buffer, self._session = 0, b"", None
        commands, self._out = os.pipe()
        self._in, answers = os.pipe()
        # The protocol is spoken on descriptors 3 and 4.
        command = shlex.join([binary, *FLAGS, f"--user-data-dir={profile}"])
        self._process = subprocess.Popen(
            ["bash", "-c", f"exec {command} 3<&{commands} 4>&{answers}"],
            pass_fds=(commands, answers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(commands), os.close(answers)
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
        os.close(self._in), os.close(self._out)

    def open(self, page: Path | str, width: int, height: int = 800) -> None:
        """Shows a file or an address in a window of this width, until all is loaded."""
        self._show("about:blank")  # the page before may still be asking for something
        self._width = width
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=width < 600)  # fmt: skip
        self._show(page if isinstance(page, str) else page.absolute().as_uri())

    def _show(self, url: str) -> None:
        self.events.clear()
        self.send("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._receive()

    def evaluate(self, expression: str) -> Any:
        """The value of JavaScript."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def faults(self) -> list[str]:
        """What a reader of the page would stumble over."""
        pictures = "[...document.images].filter(x => !x.complete || !x.naturalWidth).map(x => x.alt)"
        found = [f"a picture does not show: {alt}" for alt in self.evaluate(pictures)]
        found += [f"it asks for {url}" for url in self.requests[1:]]
        wide = self.evaluate("document.documentElement.scrollWidth") - self._width
        return found + self.complaints + ([f"it is {wide} pixels too wide"] if wide > 0 else [])

    def screenshot(self, file: Path) -> None:
        """The whole page."""
        data = self.send("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        file.write_bytes(base64.b64decode(data))

    @property
    def complaints(self) -> list[str]:
        """Errors and warnings of the page."""
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded", "Network.loadingFailed")
        return [json.dumps(event) for event in self.events if event["method"] in kinds]

    @property
    def requests(self) -> list[str]:
        """Addresses that were asked for, data within the page aside."""
        sent = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith("data:")]

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _receive(self) -> dict[str, Any]:
        """The next message; an event is kept."""
        until = time.monotonic() + SECONDS
        while b"\0" not in self._buffer:
            ready, *_ = select.select([self._in], [], [], max(0, until - time.monotonic()))
            data = os.read(self._in, 1 << 20) if ready else b""
            assert data, f"Chromium says nothing (exit status {self._process.poll()})"
            self._buffer += data
        text, self._buffer = self._buffer.split(b"\0", 1)
        message = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message
