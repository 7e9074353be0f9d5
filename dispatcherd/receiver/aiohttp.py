"""A receiver as a route of an aiohttp application.

    setup(app, webhook, "/webhooks")

Invariant: no more than `max_body_bytes` are read; the application's `client_max_size` holds beside.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from dispatcherd.receiver.asynchronous import AsyncReceiver
from dispatcherd.receiver.errors import BodyTooLarge
from dispatcherd.receiver.front import require
from dispatcherd.receiver.results import Request


def setup(app: web.Application, receiver: AsyncReceiver, path: str) -> None:
    """Add the route, and tie the receiver's start and end to the application's."""

    async def around_the_app(_app: web.Application) -> AsyncIterator[None]:
        async with receiver:
            yield

    app.cleanup_ctx.append(around_the_app)
    app.router.add_post(path, handler(receiver))


def handler(receiver: AsyncReceiver) -> Callable[[web.Request], Awaitable[web.Response]]:
    """The handler alone, for a route of your own."""
    require(receiver, AsyncReceiver, "dispatcherd.receiver.wsgi")

    async def webhook_handler(request: web.Request) -> web.Response:
        body = bytearray()
        limit = min(receiver.max_body_bytes, request.client_max_size or receiver.max_body_bytes)
        too_large = False
        async for part in request.content.iter_any():
            body += part
            if len(body) > limit:
                too_large = True
                break
        peer = request.transport.get_extra_info("peername") if request.transport else None
        address = peer[0] if isinstance(peer, tuple) else None
        if too_large:
            answer = receiver.refuse(BodyTooLarge(limit), address)
        else:
            secure = request.transport and request.transport.get_extra_info("sslcontext")
            scheme = "https" if secure else "http"
            taken = Request(request.headers, bytes(body), address, scheme, request.method)
            answer = await receiver.handle(taken)
        response = web.Response(status=answer.status, body=answer.body)
        response.headers.update(answer.headers)
        return response

    return webhook_handler
