"""A pytest plugin for whoever sends or receives webhooks. Installed, its fixtures are there.

- `webhook_secret`: a fresh secret.
- `signed_request`: makes genuine requests, to be broken as the test likes.
- `webhook_receiver`: an HTTP server on loopback that verifies and keeps what arrives.

    def test_an_order_is_taken_in(client, signed_request):
        request = signed_request({"type": "order.created", "data": {}}, secret=SECRET)
        assert client.post("/webhooks", data=request.body, headers=request.headers).status == 200

Invariant: whatever is kept is bounded. Leaves out: your application; serve it, or call its client.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from dispatcherd.receiver.errors import Refusal
from dispatcherd.receiver.event import Event
from dispatcherd.receiver.results import refusal_answer
from dispatcherd.receiver.signing import new_secret, sign_headers
from dispatcherd.receiver.threaded import Receiver

_KEPT = 1_000


@dataclass(frozen=True)
class SignedRequest:
    """A request as a sender makes it. Use `headers` and `body` with any client."""

    id: str
    body: bytes
    headers: dict[str, str]

    def tampered(self) -> SignedRequest:
        """The same with another body."""
        return replace(self, body=self.body + b" ")

    def without(self, header: str) -> SignedRequest:
        """The same without one header."""
        kept = {name: value for name, value in self.headers.items() if name != header.lower()}
        return replace(self, headers=kept)


class RequestFactory:
    """Makes signed requests."""

    def __init__(self, secret: str) -> None:
        self.secret = secret

    def __call__(
        self,
        content: Any = None,
        *,
        secret: str | Sequence[str] | None = None,
        id: str | None = None,
        age_seconds: float = 0.0,
        version: str = "1",
        attempt: int = 1,
    ) -> SignedRequest:
        """A genuine request, signed `age_seconds` ago (negative: ahead).

        `content`: bytes as they are, a list of events for a batch (each gets an `id` if it has
        none), or anything else as JSON. `secret`: one, or several during a rotation.
        """
        if isinstance(content, list):
            content = [{"id": f"evt_{uuid.uuid4().hex}", **event} for event in content]
            id = id or f"batch_{uuid.uuid4().hex}"
        if content is None:
            content = {"type": "test.ping", "data": {"hello": "world"}}
        id = id or f"evt_{uuid.uuid4().hex}"
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        secrets: Sequence[str] = [self.secret]
        if secret is not None:
            secrets = [secret] if isinstance(secret, str) else secret
        headers = {
            "content-type": "application/json",
            **sign_headers(secrets, id, round(time.time() - age_seconds), body),
            "x-webhook-version": version,
            "webhook-attempt": str(attempt),
        }
        return SignedRequest(id, body, headers)


@dataclass
class WebhookServer:
    """An HTTP server that verifies and keeps what arrives."""

    url: str
    secret: str
    events: deque[Event] = field(default_factory=lambda: deque(maxlen=_KEPT))
    """The events of genuine requests, duplicates included."""
    refused: deque[Refusal] = field(default_factory=lambda: deque(maxlen=_KEPT))
    """Why other requests were turned away."""
    status: int = 200
    """What genuine requests are answered with; set it to see what a sender makes of it."""
    headers: dict[str, str] = field(default_factory=dict)
    """More headers for those answers, such as {"retry-after": "3"}."""
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def wait_for(self, count: int, timeout_seconds: float = 10.0) -> list[Event]:
        """The events, once there are at least `count`. Raises AssertionError."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.events) >= count, timeout_seconds):
                why = f"; refused: {self.refused[-1]}" if self.refused else ""
                raise AssertionError(f"{len(self.events)} of {count} webhooks came{why}")
            return list(self.events)

    def keep(self, events: Sequence[Event], refusal: Refusal | None) -> None:
        """Keep what one request brought."""
        with self._changed:
            self.events.extend(events)
            if refusal is not None:
                self.refused.append(refusal)
            self._changed.notify_all()


def serve(secret: str) -> tuple[WebhookServer, Callable[[], None]]:
    """A started server, and what stops it."""
    receiver = Receiver([secret])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def do_POST(self) -> None:
            length = min(int(self.headers.get("content-length", 0)), receiver.max_body_bytes)
            body = self.rfile.read(length)
            status, more, text = kept.status, dict(kept.headers), b"{}"
            try:
                kept.keep(receiver.verify_message(self.headers.items(), body).events, None)
            except Refusal as refusal:
                kept.keep((), refusal)
                answer = refusal_answer(refusal)
                status, more, text = answer.status, dict(answer.headers), answer.body
            self.send_response(status)
            for name, value in {**more, "content-length": str(len(text))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet: what came is in `events` and `refused`."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    kept = WebhookServer(f"http://127.0.0.1:{server.server_port}/", secret)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def stop() -> None:
        server.shutdown()
        server.server_close()

    return kept, stop


@pytest.fixture
def webhook_secret() -> str:
    """A fresh secret."""
    return new_secret()


@pytest.fixture
def signed_request(webhook_secret: str) -> RequestFactory:
    """Makes requests signed with `webhook_secret`, or with any other."""
    return RequestFactory(webhook_secret)


@pytest.fixture
def webhook_receiver(webhook_secret: str) -> Iterator[WebhookServer]:
    """A server on loopback that verifies with `webhook_secret` and keeps what arrives."""
    server, stop = serve(webhook_secret)
    yield server
    stop()
