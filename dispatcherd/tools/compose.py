"""Requests as the daemon would send them, and as it never would: for trying a receiver out.

What is sent is made by the daemon's own parts (decode, batch, sign), so that bytes, ids and headers
are those of a real delivery. Invariant: pure; `now` is an argument. Leaves out: sending (client).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import orjson

from dispatcherd import __version__
from dispatcherd.batch import batch_id, encode
from dispatcherd.config.model import DecodeConfig
from dispatcherd.decode import Decoder
from dispatcherd.delivery import Claim, Event, Refused
from dispatcherd.errors import DispatcherdError
from dispatcherd.sign import Signer

PING_TYPE = "webhook.ping"
"""The type of the event that is sent where none is named."""


class NoEvent(DispatcherdError):
    """What is to be sent is no event."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One request, ready to be sent."""

    id: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def tampered(self) -> Outgoing:
        """The same with another content, in which JSON stays JSON."""
        head, brace, rest = self.body.partition(b"{")
        comma = b"" if rest.lstrip()[:1] == b"}" else b","
        body = head + brace + b'"tampered":true' + comma + rest if brace else self.body + b"\0"
        return replace(self, body=body)

    def respaced(self) -> Outgoing:
        """The same JSON in other bytes: what is signed is bytes, so this is another body."""
        return replace(self, body=b" " + self.body)

    def with_headers(self, **changes: str) -> Outgoing:
        """The same with other values of some headers, named with _ for -."""
        values = {name.replace("_", "-"): value for name, value in changes.items()}
        return replace(
            self, headers=tuple((name, values.get(name, value)) for name, value in self.headers)
        )

    def header(self, name: str) -> str:
        """The value of a header that is there."""
        return dict(self.headers)[name]

    def without(self, *names: str) -> Outgoing:
        """The same without some headers."""
        return replace(self, headers=tuple(h for h in self.headers if h[0].lower() not in names))


def new_id() -> str:
    """An event id that no other has."""
    return f"evt_{uuid.uuid4().hex}"


def rfc3339(now: float) -> str:
    """A time in Unix seconds as events carry it."""
    text = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def envelope(type: str, data: Any, now: float, version: str = "1") -> dict[str, Any]:
    """An event with a new id."""
    return {
        "id": new_id(),
        "type": type,
        "version": version,
        "timestamp": rfc3339(now),
        "data": data,
    }


def ping(now: float) -> dict[str, Any]:
    """The event that is sent where none is named."""
    return envelope(PING_TYPE, {"message": "A test event of dispatcherd."}, now)


def decode(bodies: Sequence[bytes], now: float) -> list[Event]:
    """Events as the daemon would read them from a topic. Raises NoEvent with its reason."""
    decoder = Decoder(DecodeConfig())
    topic = Claim("send-test", 0, 0, 0, uuid.uuid4().bytes)
    events = []
    for offset, body in enumerate(bodies):
        decoded = decoder.decode(topic, offset, body, (), int(now * 1000))
        if isinstance(decoded, Refused):
            raise NoEvent(f"this is no event ({decoded.reason.word}): {decoded.detail}")
        events.append(decoded[0])
    return events


def compose(
    events: Sequence[Event],
    signer: Signer,
    at: float,
    *,
    as_batch: bool = False,
    attempt: int = 1,
    more_headers: Sequence[tuple[str, str]] = (),
) -> Outgoing:
    """The request that delivers these events, signed at `at` in Unix seconds; one event goes by
    itself unless it is to be a batch."""
    first = events[0]
    single = not as_batch and len(events) == 1
    webhook_id, body = (first.id, first.body) if single else (batch_id(events), encode(events))
    headers = [
        ("content-type", "application/json"),
        ("user-agent", f"dispatcherd/{__version__}"),
        *more_headers,
        *signer.headers(webhook_id, int(at), body),
        ("x-webhook-version", max(event.version for event in events)),
        ("webhook-attempt", str(attempt)),
    ]
    if single:
        headers.append(("x-webhook-type", first.type))
    return Outgoing(webhook_id, tuple(headers), body)


def multiplied(body: bytes, count: int) -> list[bytes]:
    """The event and as many like it, each with an id of its own, as make `count`."""
    if count == 1:
        return [body]
    document = orjson.loads(body)
    return [body, *(orjson.dumps({**document, "id": new_id()}) for _ in range(count - 1))]
