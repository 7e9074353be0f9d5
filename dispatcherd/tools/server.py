"""A local endpoint for webhooks, and a page that shows them as they come.

Any path takes webhooks (POST); `GET /` is the page, `/_/…` what it asks for, and `GET /processed`
lists the ids that were taken, each once (the convention of `dispatcherd conformance`). Invariant:
it listens on loopback only; what it keeps and reads is bounded; the page loads nothing from
elsewhere, and only it may change something (origin). Leaves out: what is kept (inbox), what is
answered (manner), what is wrong with a request (diagnose).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from importlib.resources import files
from typing import Any

import orjson
from aiohttp import web

from dispatcherd.errors import DispatcherdError
from dispatcherd.tools.again import Sender
from dispatcherd.tools.diagnose import Scheme, diagnose
from dispatcherd.tools.inbox import Inbox, Received
from dispatcherd.tools.manner import BadManner, Manner, parse_manner, reply
from dispatcherd.tools.message import Message
from dispatcherd.tools.origin import may_change, may_look

HOST = "127.0.0.1"
MOST_BODY_BYTES = 4 * 1_048_576
_KEEPALIVE_SECONDS = 15.0
_DIAGNOSES_AT_ONCE = 4
_MOST_PAGES = 20
_PAGE = {
    "/": ("index.html", "text/html"),
    "/_/page.css": ("page.css", "text/css"),
    "/_/page.js": ("page.js", "text/javascript"),
}
_SAFE = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class CannotListen(DispatcherdError):
    """The port cannot be had."""


class Endpoint:
    """Receives, verifies, keeps, answers; from `start` to `stop`."""

    def __init__(
        self,
        secrets: Sequence[str],
        scheme: Scheme,
        manner: Manner,
        told: Callable[[Received], None],
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`told` is called with each request after its answer."""
        self.inbox = Inbox()
        self.manner = manner
        self.url = ""
        self.received = 0
        """Requests that have come, answered or not."""
        self._secrets = list(secrets)
        self._scheme = scheme
        self._told = told
        self._wall = wall
        self._sender = Sender(secrets, scheme)
        self._diagnosing = asyncio.Semaphore(_DIAGNOSES_AT_ONCE)
        self._runner: web.AppRunner | None = None
        self._pages = 0
        self._ending = asyncio.Event()

    async def start(self, port: int) -> str:
        """Listen on loopback; the URL. Raises CannotListen."""
        app = web.Application(middlewares=[_guard])
        for path in _PAGE:
            app.router.add_get(path, self._page)
        app.router.add_get("/processed", self._processed)
        app.router.add_get("/_/events", self._events)
        app.router.add_get("/_/requests/{number:\\d{1,12}}", self._request)
        app.router.add_post("/_/requests/{number:\\d{1,12}}/again", self._again)
        app.router.add_put("/_/manner", self._set_manner)
        app.router.add_post("/_/clear", self._clear)
        app.router.add_route("*", "/{path:(?!_/).*}", self._receive)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, HOST, port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise CannotListen(
                f"cannot listen on {HOST}:{port}: {error.strerror or error}. Choose another --port"
            ) from error
        self.url = f"http://{HOST}:{self._runner.addresses[0][1]}/"
        return self.url

    async def stop(self) -> None:
        """Stop listening."""
        self._ending.set()
        if self._runner is not None:
            await self._runner.cleanup()

    # --- webhooks --------------------------------------------------------------------------

    async def _receive(self, request: web.Request) -> web.StreamResponse:
        if request.method in ("GET", "HEAD"):
            return web.Response(status=405, text="Webhooks are POSTs.\n", headers={"allow": "POST"})
        at, started = self._wall(), time.monotonic()
        body = await _read(request)
        headers = tuple(
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers
        )
        if body is None:
            return web.json_response({"error": "body_too_large"}, status=413)
        async with self._diagnosing:
            message = Message(headers, body)
            found = await asyncio.to_thread(diagnose, message, self._secrets, at, self._scheme)
        self.received += 1
        taken = self.inbox.take(at, request.method, request.path_qs, headers, body, found)
        return await self._answer(request, taken, started)

    async def _answer(
        self, request: web.Request, taken: Received, started: float
    ) -> web.StreamResponse:
        causes = [finding.code for finding in taken.found.findings]
        answer = reply(self.manner, taken.found.ok, causes, taken.seen, taken.members)
        if answer.delay_seconds:
            with contextlib.suppress(TimeoutError):  # a delay that has passed is no failure
                await asyncio.wait_for(self._ending.wait(), answer.delay_seconds)
        taken.answer = "dropped" if answer.drop else str(answer.status)
        taken.seconds = time.monotonic() - started
        if taken.found.ok and not answer.drop and answer.status < 300:
            self.inbox.process(taken)
        self.inbox.keep(taken)
        self._told(taken)
        if answer.drop and request.transport is not None:
            request.transport.abort()
        if answer.body:
            answer.headers["content-type"] = "application/json"
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)

    async def _processed(self, _request: web.Request) -> web.Response:
        return _json({"processed": self.inbox.processed})

    # --- the page --------------------------------------------------------------------------

    async def _page(self, request: web.Request) -> web.Response:
        name, content_type = _PAGE[request.path]
        content = files("dispatcherd.tools").joinpath("page", name).read_text("utf-8")
        return web.Response(text=content, content_type=content_type, headers=_SAFE)

    async def _request(self, request: web.Request) -> web.Response:
        received = self.inbox.get(int(request.match_info["number"]))
        if received is None:
            return _json({"error": "it is not kept any more"}, 404)
        return _json(received.document())

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: `hello` with all there is, then each change as it comes."""
        if self._pages >= _MOST_PAGES:
            return _json({"error": f"{_MOST_PAGES} pages are open already"}, 503)
        response = web.StreamResponse(headers={**_SAFE, "content-type": "text/event-stream"})
        self._pages += 1
        try:
            with self.inbox.looking() as looker:
                await response.prepare(request)
                await response.write(_event("hello", self._hello()))
                while not self._ending.is_set() and not looker.behind:
                    try:
                        name, content = await asyncio.wait_for(
                            looker.queue.get(), _KEEPALIVE_SECONDS
                        )
                    except TimeoutError:
                        await response.write(b": still here\n\n")
                        continue
                    await response.write(_event(name, content))
        except ConnectionError:
            pass  # the page was closed
        finally:
            self._pages -= 1
        return response

    def _hello(self) -> dict[str, Any]:
        return {
            "url": self.url,
            "manner": self.manner.model_dump(),
            "requests": self.inbox.summaries(),
            "can_sign": self._sender.can_sign,
        }

    async def _set_manner(self, request: web.Request) -> web.Response:
        try:
            self.manner = parse_manner(await request.read())
        except BadManner as error:
            return _json({"error": str(error)}, 400)
        self.inbox.tell("manner", self.manner.model_dump())
        return _json(self.manner.model_dump())

    async def _clear(self, _request: web.Request) -> web.Response:
        self.inbox.clear()
        return _json({})

    async def _again(self, request: web.Request) -> web.Response:
        """Post a kept request again: as it came, or signed anew."""
        received = self.inbox.get(int(request.match_info["number"]))
        if received is None:
            return _json({"error": "it is not kept any more"}, 404)
        try:
            asked = orjson.loads(await request.read())
            url, sign = str(asked.get("url") or self._home(received)), bool(asked.get("sign"))
        except (orjson.JSONDecodeError, AttributeError):
            return _json({"error": 'give {"url": …, "sign": true or false}'}, 400)
        try:
            return _json(await self._sender.send(received, url, sign, self._wall()))
        except DispatcherdError as error:
            return _json({"error": str(error)}, 400)

    def _home(self, received: Received) -> str:
        return self.url.rstrip("/") + received.path


async def _read(request: web.Request) -> bytes | None:
    """The body; None where it is too large."""
    body = bytearray()
    async for part in request.content.iter_any():
        body += part
        if len(body) > MOST_BODY_BYTES:
            return None
    return bytes(body)


@web.middleware
async def _guard(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """See `origin`."""
    if request.path.startswith("/_/") or request.method in ("GET", "HEAD"):
        if not may_look(request.headers):
            return _json({"error": "the page answers to names of loopback only"}, 403)
        if request.method not in ("GET", "HEAD") and not may_change(request.headers):
            return _json({"error": "only the page itself may do that"}, 403)
    return await handler(request)


def _json(content: object, status: int = 200) -> web.Response:
    return web.Response(
        body=orjson.dumps(content) + b"\n",
        status=status,
        content_type="application/json",
        headers=_SAFE,
    )


def _event(name: str, content: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(content))


@contextlib.asynccontextmanager
async def serving(endpoint: Endpoint, port: int) -> AsyncIterator[str]:
    """The URL of a started endpoint, which is stopped at the end."""
    url = await endpoint.start(port)
    try:
        yield url
    finally:
        await endpoint.stop()
