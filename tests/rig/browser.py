"""A real browser: Debian's chromium, headless, asked by its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.rig.need import need
from tests.rig.waiting import wait_for

PROGRAM = shutil.which("chromium")
_TIMEOUT_SECONDS = 40.0


def need_browser() -> None:
    """Skips, or fails in CI, where there is no browser."""
    if PROGRAM is None:
        why = "chromium is not on this machine (Debian: apt install chromium)"
        need(why)


class Page:
    """One page of the browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self._session: str | None = None
        self.complaints: list[str] = []
        """What the page wrote to the console, and what it raised."""

    async def begin(self) -> None:
        """Open an empty page and listen to what it complains of."""
        made = await self.ask("Target.createTarget", url="about:blank")
        found = await self.ask("Target.attachToTarget", targetId=made["targetId"], flatten=True)
        self._session = found["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            await self.ask(f"{domain}.enable")

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of one command of the protocol."""
        self._number += 1
        number = self._number
        request: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session is not None:
            request["sessionId"] = self._session
        await self._socket.send_json(request)
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            while True:
                message = json.loads((await self._socket.receive()).data)
                self._note(message)
                if message.get("id") == number:
                    assert "error" not in message, message
                    return dict(message["result"])

    def _note(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"]))
        elif message.get("method") == "Runtime.consoleAPICalled" and params["type"] != "log":
            self.complaints.append(json.dumps(params["args"]))
        elif message.get("method") == "Log.entryAdded":
            self.complaints.append(params["entry"]["text"])

    async def open(self, url: str) -> None:
        """Go there."""
        await self.ask("Page.navigate", url=url)

    async def run(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        done = await self.ask(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    async def until(self, script: str, what: str) -> Any:
        """Until an expression is true."""
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            while True:
                value = await self.run(script)
                if value:
                    return value
                await asyncio.sleep(0.02)
        raise AssertionError(what)

    async def look(self, width: int, height: int, dark: bool = False) -> bytes:
        """A picture (PNG) of the page as it is on a screen of that size."""
        await self.size(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.ask("Emulation.setEmulatedMedia", features=[scheme])
        picture = await self.ask("Page.captureScreenshot", format="png")
        return base64.b64decode(picture["data"])

    async def size(self, width: int, height: int) -> None:
        """A screen of that size."""
        await self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )


class Browser:
    """A process of its own, with a profile of its own; from `start` to `stop`."""

    def __init__(self) -> None:
        assert PROGRAM is not None
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._process = subprocess.Popen(
            [PROGRAM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
             "--disable-dev-shm-usage", "--remote-debugging-port=0",
             f"--user-data-dir={self._folder.name}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._address = Path(self._folder.name) / "DevToolsActivePort"
        wait_for(self._listens, _TIMEOUT_SECONDS, "chromium")
        port, path = self._address.read_text().split("\n")[:2]
        self._url = f"ws://127.0.0.1:{port}{path}"

    def _listens(self) -> bool:
        assert self._process.poll() is None, "chromium ended at once"
        return self._address.exists() and "\n" in self._address.read_text()

    @asynccontextmanager
    async def page(self) -> AsyncIterator[Page]:
        """An empty page."""
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(self._url, max_msg_size=64 << 20) as socket,
        ):
            page = Page(socket)
            await page.begin()
            yield page

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait(10)
        self._folder.cleanup()
