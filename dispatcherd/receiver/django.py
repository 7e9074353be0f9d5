"""A receiver as a Django view, for WSGI and for ASGI deployments.

    urlpatterns = [path("webhooks", view(webhook))]

The views are exempt from CSRF checks: the signature takes their place. Handlers run in threads of
their own: give the receiver `around=connections`, so that Django closes what they open.
Invariant: the body is read raw; Django's own limit (DATA_UPLOAD_MAX_MEMORY_SIZE) holds beside ours.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.db import close_old_connections
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from dispatcherd.receiver.asynchronous import AsyncReceiver
from dispatcherd.receiver.errors import BodyTooLarge
from dispatcherd.receiver.front import require
from dispatcherd.receiver.results import Answer, Request
from dispatcherd.receiver.threaded import Receiver


def view(receiver: Receiver) -> Callable[[HttpRequest], HttpResponse]:
    """The view."""
    require(receiver, Receiver, "async_view")

    def webhook_view(request: HttpRequest) -> HttpResponse:
        taken = _taken(request, receiver.max_body_bytes)
        if taken is None:
            too_large = BodyTooLarge(receiver.max_body_bytes)
            return _response(receiver.refuse(too_large, request.META.get("REMOTE_ADDR")))
        return _response(receiver.handle(taken))

    exempt: Callable[[HttpRequest], HttpResponse] = csrf_exempt(webhook_view)
    return exempt


def async_view(
    receiver: AsyncReceiver,
) -> Callable[[HttpRequest], Coroutine[Any, Any, HttpResponse]]:
    """The same as an asynchronous view, for ASGI."""
    require(receiver, AsyncReceiver, "view")

    async def webhook_view(request: HttpRequest) -> HttpResponse:
        taken = _taken(request, receiver.max_body_bytes)
        if taken is None:
            too_large = BodyTooLarge(receiver.max_body_bytes)
            return _response(receiver.refuse(too_large, request.META.get("REMOTE_ADDR")))
        return _response(await receiver.handle(taken))

    exempt: Callable[[HttpRequest], Coroutine[Any, Any, HttpResponse]] = csrf_exempt(webhook_view)
    return exempt


@contextmanager
def connections() -> Iterator[None]:
    """For `around`: closes the database connections that a handler's thread opened."""
    from django.db import connections as opened

    close_old_connections()
    try:
        yield
    finally:
        opened.close_all()


def _taken(request: HttpRequest, limit: int) -> Request | None:
    """The request as the receiver sees it; None if its body is too large."""
    try:
        body = request.body
    except RequestDataTooBig:
        return None
    if len(body) > limit:
        return None
    # Not request.scheme: with SECURE_PROXY_SSL_HEADER it is what any client's header says.
    asgi_scope = getattr(request, "scope", {})
    scheme = request.META.get("wsgi.url_scheme") or asgi_scope.get("scheme", "http")
    peer = request.META.get("REMOTE_ADDR")
    return Request(request.headers, body, peer, scheme, request.method or "")


def _response(answer: Answer) -> HttpResponse:
    return HttpResponse(answer.body, status=answer.status, headers=dict(answer.headers))
