"""A receiver as a WSGI application: mount it, or let a server serve it alone.

WSGI gives `A-B` and `A_B` the same name; let the server drop headers with underscores (gunicorn and
waitress do), or a client behind a trusted proxy could add to `X-Forwarded-For`. Invariant: no more
than `max_body_bytes` are read. Leaves out: Flask's and Django's own requests (flask, django).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http.client import responses
from typing import TYPE_CHECKING, Any

from dispatcherd.receiver.errors import BodyTooLarge
from dispatcherd.receiver.front import require
from dispatcherd.receiver.results import Answer, Request
from dispatcherd.receiver.threaded import Receiver

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def app(receiver: Receiver) -> Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]:
    """The WSGI application. It answers whatever path it is asked for."""
    require(receiver, Receiver, "dispatcherd.receiver.asgi")

    def webhook_app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        answer = answer_to(receiver, environ)
        status = f"{answer.status} {responses.get(answer.status, '')}".strip()
        length = ("content-length", str(len(answer.body)))
        start_response(status, [*answer.headers, length])
        return [answer.body]

    return webhook_app


def answer_to(receiver: Receiver, environ: dict[str, Any]) -> Answer:
    """What to answer to the request of that environment."""
    limit = receiver.max_body_bytes
    peer = environ.get("REMOTE_ADDR")
    length = environ.get("CONTENT_LENGTH") or ""
    if length.isascii() and length.isdigit():
        wanted = min(int(length[:18]), limit + 1)
    else:
        # Without a length only a server that marks the end of the input can be read from.
        wanted = limit + 1 if environ.get("wsgi.input_terminated") else 0
    body = environ["wsgi.input"].read(wanted) if wanted else b""
    if len(body) > limit:
        return receiver.refuse(BodyTooLarge(limit), peer)
    headers = [
        (name[5:].replace("_", "-"), value)
        for name, value in environ.items()
        if name.startswith("HTTP_")
    ]
    scheme = environ.get("wsgi.url_scheme", "http")
    return receiver.handle(Request(headers, body, peer, scheme, environ["REQUEST_METHOD"]))
