"""A receiver as an ASGI application, for FastAPI, Starlette, or a server alone.

    app = FastAPI(lifespan=asgi.lifespan(webhook))
    app.router.add_route("/webhooks", asgi.app(webhook), methods=["POST"])

Add it as a route, not as a mount: a mount redirects `/webhooks` to `/webhooks/`, and to a sender
of webhooks a redirect is a failure. Who reads `X-Forwarded-*`: either the server (uvicorn does by
default, for peers on 127.0.0.1; `--forwarded-allow-ips` names others), then give no
`trusted_proxies` here; or the receiver, then start uvicorn with `--no-proxy-headers`.
Invariant: no more than `max_body_bytes` are kept in memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

from dispatcherd.receiver.asynchronous import AsyncReceiver
from dispatcherd.receiver.errors import BodyTooLarge
from dispatcherd.receiver.front import require
from dispatcherd.receiver.results import Answer, Request

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Disconnected(Exception):
    """The client went away before its request was complete: nobody waits for an answer."""


def app(receiver: AsyncReceiver) -> App:
    """The ASGI application. It answers whatever path it is asked for."""
    return App(receiver)


class App:
    """See `app`. A class, because Starlette takes a function for one of its own views."""

    def __init__(self, receiver: AsyncReceiver) -> None:
        require(receiver, AsyncReceiver, "dispatcherd.receiver.wsgi")
        self._receiver = receiver

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"a webhook receiver answers http, not {scope['type']}")
        client = scope.get("client")
        peer = client[0] if client else None
        try:
            body = await self._read(receive)
        except Disconnected:
            return
        if body is None:
            too_large = BodyTooLarge(self._receiver.max_body_bytes)
            await _send(send, self._receiver.refuse(too_large, peer))
            return
        request = Request(
            scope["headers"], body, peer, scope.get("scheme", "http"), scope["method"]
        )
        await _send(send, await self._receiver.handle(request))

    async def _read(self, receive: Receive) -> bytes | None:
        """The body; None if it is too large."""
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._receiver.max_body_bytes:
                return None
            if not message.get("more_body", False):
                break
        return b"".join(parts)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Served alone, the server's start and end are the receiver's."""
        await receive()
        await self._receiver.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._receiver.close()
        await send({"type": "lifespan.shutdown.complete"})


def lifespan(receiver: AsyncReceiver) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """For `FastAPI(lifespan=…)` and `Starlette(lifespan=…)`: starts and drains the receiver."""

    @asynccontextmanager
    async def webhook_lifespan(_app: Any) -> AsyncIterator[None]:
        async with receiver:
            yield

    return webhook_lifespan


async def _send(send: Send, answer: Answer) -> None:
    headers = [(name.encode(), value.encode()) for name, value in answer.headers]
    headers.append((b"content-length", str(len(answer.body)).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
