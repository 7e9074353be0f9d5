"""What a verified request holds: one event, or a batch of them.

Invariant: an event's `body` is a stretch of the bytes that were signed, never JSON written anew;
any body at all gives a Message. Type, version and time are read from the signed body first; what
only a header says (it is not signed) is used only where the body says nothing, and for the type
only if the receiver names such a header. Leaves out: whether the request is genuine (verify).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from dispatcherd.receiver.headers import Headers, find_all
from dispatcherd.receiver.store import Claim
from dispatcherd.receiver.verify import Verified, is_id

VERSION_HEADER = "x-webhook-version"
ATTEMPT_HEADER = "webhook-attempt"
BATCH_ID_PREFIX = "batch_"

_WHITE = " \t\r\n"
_MAX_MEMBERS = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class Event:
    """One thing that happened at the sender."""

    id: str
    """The same in every attempt: deduplicate by it."""
    type: str
    """Such as `order.created`; empty where the request does not say."""
    version: str
    """Of the type's format; empty where the request does not say."""
    timestamp: str
    """When it happened, as the producer wrote it; empty where the body does not say."""
    body: bytes = field(repr=False)
    """The signed bytes: the whole request's, or this member's of a batch."""
    document: Any = field(repr=False, default=None)
    """`body`, parsed; None where it is not JSON."""
    attempt: int = 1
    """The sender's count of attempts, from 1 (a hint: that header is not signed)."""
    claim: Claim | None = field(repr=False, default=None)
    """In a handler that runs before the answer: the claim it works under (store)."""

    @property
    def data(self) -> Any:
        """The envelope's `data`, where the body is an envelope that has it; else the document."""
        document = self.document
        return document["data"] if isinstance(document, dict) and "data" in document else document


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """One verified request."""

    id: str
    """`webhook-id` of the request: the event's, or the batch's."""
    signed_at: int | None
    """Unix seconds of this attempt's signature; None in the hex form."""
    signature: str = field(repr=False)
    events: tuple[Event, ...]
    is_batch: bool


@dataclass(frozen=True, slots=True)
class Hints:
    """What the unsigned headers say."""

    type: str = ""
    version: str = ""
    attempt: int = 1


def read_hints(headers: Headers, type_header: str | None) -> Hints:
    """The unsigned headers, bounded, never raising."""

    def last(name: str | None) -> str:
        values = find_all(headers, name) if name else []
        return values[-1].strip()[:128] if values else ""

    attempt = last(ATTEMPT_HEADER)
    counted = int(attempt) if attempt.isascii() and attempt.isdigit() and len(attempt) < 7 else 1
    return Hints(last(type_header), last(VERSION_HEADER), counted)


def unpack(verified: Verified, body: bytes, hints: Hints) -> Message:
    """The events of a request whose signature is right. Never raises.

    A batch is a JSON array whose `webhook-id` starts with `batch_` and whose members are objects
    that each hold their `id`. Anything else is one event.
    """
    events: tuple[Event, ...] | None = None
    if verified.id.startswith(BATCH_ID_PREFIX) and body.lstrip()[:1] == b"[":
        events = _members(body, hints)
    is_batch = events is not None
    if events is None:
        events = (single(verified.id, body, hints),)
    return Message(verified.id, verified.timestamp, verified.signature, events, is_batch)


def restore(id_: str, type_: str, version: str, timestamp: str, attempt: int, body: bytes) -> Event:
    """The event again, from what was kept of it."""
    return Event(id_, type_, version, timestamp, body, _parse(body), attempt)


def single(id_: str, body: bytes, hints: Hints) -> Event:
    """The event that a body is, whatever it is."""
    return _event(id_, body, _parse(body), hints)


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _members(body: bytes, hints: Hints) -> tuple[Event, ...] | None:
    """The array's members with their own bytes; None if this is no batch."""
    try:
        text = body.decode("utf-8")
        found = _split(text)
    except (ValueError, IndexError, RecursionError):
        return None
    events = []
    for stretch, document in found:
        id_ = document.get("id") if isinstance(document, dict) else None
        if not isinstance(id_, str) or not is_id(id_):
            return None
        events.append(_event(id_, stretch.encode("utf-8"), document, hints))
    return tuple(events) or None


def _split(text: str) -> list[tuple[str, Any]]:
    """(source text, value) of each member. Raises ValueError or IndexError if it is no array."""
    decode = json.JSONDecoder().raw_decode
    found: list[tuple[str, Any]] = []
    at = _skip(text, 0) + 1
    while True:
        at = _skip(text, at)
        value, end = decode(text, at)
        found.append((text[at:end], value))
        if len(found) > _MAX_MEMBERS:
            raise ValueError
        at = _skip(text, end)
        if text[at] == "]":
            break
        if text[at] != ",":
            raise ValueError
        at += 1
    if text[at + 1 :].strip(_WHITE):
        raise ValueError
    return found


def _skip(text: str, at: int) -> int:
    while text[at] in _WHITE:
        at += 1
    return at


def _event(id_: str, body: bytes, document: Any, hints: Hints) -> Event:
    envelope = document if isinstance(document, dict) else {}
    said = (envelope.get(key) for key in ("type", "event_type", "event"))
    own_type = next((_word(value) for value in said if value is not None), "")
    if hints.type and hints.type != own_type:
        envelope = {}  # the sender's rule: a body that names another type is data, no envelope
    time = envelope.get("time" if "specversion" in envelope else "timestamp")
    return Event(
        id_,
        hints.type or own_type,
        _word(envelope.get("version")) or hints.version,
        _word(time),
        body,
        document,
        hints.attempt,
    )


def _word(value: object) -> str:
    """A short text or a number as text; anything else of JSON is nothing."""
    if isinstance(value, str):
        # A NUL or a lone surrogate is more than a database, a log or a header can carry.
        return value if len(value) <= 128 and value.isprintable() else ""
    return str(value) if type(value) in (int, float) else ""
