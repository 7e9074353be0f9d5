"""The nouns: what every other module passes along.

Invariant: nothing here does I/O, reads a clock or knows a library. Leaves out: how any of these
comes about (decode, route, outcome) and where it is kept (record).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, NamedTuple

Headers = tuple[tuple[str, bytes], ...]
"""Kafka record headers as they came: names in order, values as bytes (never None: b"")."""

Matcher = Callable[["Event", Any], bool]
"""Answers whether an endpoint wants an event; given the event and its parsed body."""


class Position(NamedTuple):
    """Where a record stands: `topic_id` names one incarnation of a topic, not just its name."""

    topic_id: int
    partition: int
    offset: int


class Key(NamedTuple):
    """The identity of a delivery."""

    topic_id: int
    partition: int
    offset: int
    endpoint_id: int


class Hold(IntEnum):
    """What a process may do with a partition that it claimed."""

    ACTIVE = 1
    """Records are taken in and deliveries sent."""
    SUSPENDED = 2
    """Revoked, not claimed by anyone yet: nothing new is sent, what is in the air may settle."""
    FENCED = 3
    """Somebody else's now: nothing of it may be written or sent."""


class Claim:
    """This process's claim on one partition of one topic incarnation, at one epoch.

    Compared by identity: two claims of the same partition at different epochs are different.
    """

    __slots__ = ("epoch", "hold", "id_key", "partition", "topic", "topic_id")

    def __init__(
        self, topic: str, topic_id: int, partition: int, epoch: int, id_key: bytes
    ) -> None:
        self.topic = topic
        self.topic_id = topic_id
        self.partition = partition
        self.epoch = epoch
        self.id_key = id_key
        """16 random bytes of the topic incarnation, from which position-derived ids are made."""
        self.hold = Hold.ACTIVE

    def __repr__(self) -> str:
        return f"<Claim {self.topic}/{self.partition} epoch {self.epoch} {self.hold.name}>"


class Shape(IntEnum):
    """How an event stands in a batch, so that each member carries its id and type in JSON."""

    WHOLE = 1
    """The body is an envelope that holds its own `id`: it goes into a batch as it is."""
    SPLICE = 2
    """The body is an envelope without an `id`: `"id":"…",` is spliced in after its first brace."""
    WRAP = 3
    """Type or id came in Kafka headers: the body becomes `data` of an envelope made around it."""


class Event:
    """One Kafka record that decoded. Compared by identity."""

    __slots__ = (
        "appended_at",
        "body",
        "claim",
        "headers",
        "id",
        "offset",
        "shape",
        "size",
        "tenant",
        "timestamp",
        "type",
        "version",
    )

    def __init__(
        self,
        claim: Claim,
        offset: int,
        id: str,
        type: str,
        version: str,
        timestamp: str,
        body: bytes,
        headers: Headers,
        shape: Shape,
        tenant: str | None = None,
        appended_at: float = 0.0,
    ) -> None:
        self.claim = claim
        self.offset = offset
        self.id = id
        """1–256 characters of `[A-Za-z0-9_:@/+=~-]`; goes out as `webhook-id`."""
        self.type = type
        """1–128 characters of `[A-Za-z0-9_.:/-]`."""
        self.version = version
        self.timestamp = timestamp
        """As the producer wrote it (RFC 3339 or a number, as text), else the record's own time."""
        self.body = body
        """The record's value, byte for byte."""
        self.headers = headers
        self.shape = shape
        self.tenant = tenant
        self.appended_at = appended_at
        """Unix seconds of the record's own timestamp; 0 when it was read back from Postgres."""
        size = len(body) + 256
        for name, value in headers:
            size += len(name) + len(value) + 128
        self.size = size
        """Bytes this event holds in memory, headers included: what every cap in bytes counts."""

    def __repr__(self) -> str:
        return f"<Event {self.type} {self.id} at {self.claim!r} {self.offset}>"


@dataclass(slots=True, frozen=True)
class Refused:
    """A record that is no event, and why; `detail` is fit for a row and a log line."""

    reason: Reason
    detail: str


@dataclass(slots=True, frozen=True)
class BatchPolicy:
    """When the waiting deliveries of an endpoint make a batch. `max_events == 1`: never batched."""

    max_events: int = 1
    max_bytes: int = 1_048_576
    max_wait_seconds: float = 0.0


@dataclass(slots=True, frozen=True)
class RetryPolicy:
    """When to try again: `schedule_seconds[n]` is the wait before attempt n+1 of a cycle."""

    schedule_seconds: tuple[float, ...]
    max_attempts: int
    jitter: float = 0.1
    """A wait w is drawn from [w, w * (1 + jitter)]."""
    max_retry_after_seconds: float = 86_400.0


@dataclass(slots=True, frozen=True)
class Endpoint:
    """A receiver's registration as the hot path needs it. Secrets are held apart (`sign`)."""

    id: int
    """Surrogate key: an endpoint removed and registered anew under its old name is another one."""
    name: str
    url: str
    event_types: tuple[str, ...]
    matches: Matcher
    timeout_seconds: float
    concurrency: int
    batch: BatchPolicy
    retry: RetryPolicy
    tenant: str | None = None
    held: bool = False
    """Known from the table but not in this process's file: routed to, parked, not sent."""


class Stage(IntEnum):
    """Where a delivery is in this process's memory."""

    QUEUED = 1
    """In a lane's queue."""
    AIR = 2
    """In an attempt."""
    WAITING = 3
    """On the wheel until it is due."""
    ASIDE = 4
    """Of a suspended partition: out of its lane until the partition returns or is lost."""
    GONE = 5
    """In no queue of this process any more (settled, left in Postgres, or fenced)."""


class Request(IntEnum):
    """What an operator asked of one delivery."""

    RETRY = 1
    DISCARD = 2


ANY_COMPANY: Final = 1 << 30
_QUEUED: Final = Stage.QUEUED


class Delivery:
    """One event owed to one endpoint, while it is in memory. Compared by identity."""

    __slots__ = (
        "attempts",
        "company",
        "cycle_start",
        "endpoint_id",
        "entered_at",
        "event",
        "owed",
        "request",
        "request_no",
        "stage",
        "timer",
    )

    def __init__(
        self,
        event: Event,
        endpoint_id: int,
        entered_at: float,
        attempts: int = 0,
        cycle_start: int = 0,
        owed: bool = False,
    ) -> None:
        self.event = event
        self.endpoint_id = endpoint_id
        self.entered_at = entered_at
        """Monotonic time at which it came into memory."""
        self.attempts = attempts
        """Attempts made, ever."""
        self.cycle_start = cycle_start
        """Attempts made before the current retry cycle (a manual retry begins one)."""
        self.owed = owed
        """It has a row in `deliveries` (or one in the flush that is being gathered)."""
        self.company = ANY_COMPANY
        """It may share its next exchange with so many, itself counted."""
        self.stage = _QUEUED
        self.request: Request | None = None
        """Asked by an operator while it was in the air; acted upon when the attempt ends."""
        self.request_no: int | None = None
        self.timer: Any = None

    @property
    def key(self) -> Key:
        claim = self.event.claim
        return Key(claim.topic_id, claim.partition, self.event.offset, self.endpoint_id)

    def __repr__(self) -> str:
        return f"<Delivery {self.event.id} to {self.endpoint_id} {self.stage.name}>"


class OutcomeKind(IntEnum):
    """What an attempt came to."""

    DELIVERED = 1
    RETRY = 2
    EXHAUSTED = 3
    REJECTED = 4


class Reason(IntEnum):
    """Why: one enum for log, metric, row and API. The numbers are stored: never reuse one."""

    # an attempt's
    OK = 1
    STATUS_INFORMATIONAL = 2
    STATUS_REDIRECT = 3
    STATUS_CLIENT_ERROR = 4
    STATUS_SERVER_ERROR = 5
    STATUS_UNKNOWN = 6
    GONE = 7
    THROTTLED = 8
    UNAVAILABLE = 9
    TIMEOUT = 10
    CONNECT_FAILED = 11
    CONNECT_TIMEOUT = 12
    DNS_FAILED = 13
    ADDRESS_FORBIDDEN = 14
    TLS_FAILED = 15
    TLS_CERTIFICATE = 16
    DISCONNECTED = 17
    BAD_RESPONSE = 18
    INTERRUPTED = 19
    RESOURCES = 20
    """We are out of descriptors or memory for sockets: no matter of the receiver's."""
    PARTIAL_FAILURE = 21
    """A batch was answered with 2xx and a list of members that failed: this is one of them."""
    TLS_EXPIRED = 22
    TLS_WRONG_HOST = 23
    TLS_UNKNOWN_ISSUER = 24
    TLS_CLIENT_CERTIFICATE = 25
    """The receiver asked for a certificate of ours and got none, or refused the one it got."""
    TLS_VERSION = 26
    """No version of TLS that both sides accept."""
    PROXY_FAILED = 27
    """The egress proxy could not be reached, or did not answer as a proxy."""
    PROXY_REFUSED = 28
    """The egress proxy will not connect (its rules, its password)."""
    NO_PORT = 29
    """No local address and port left towards this receiver's address."""
    # a parked delivery's or a dead letter's
    LANE_FULL = 40
    WINDOW_FULL = 41
    TOO_SLOW = 42
    ENDPOINT_HELD = 43
    ENDPOINT_REMOVED = 44
    BACKLOG_FULL = 45
    OPERATOR_RETRY = 46
    OPERATOR_DISCARD = 47
    PARTIAL_CAP = 48
    # a quarantined record's
    NO_VALUE = 60
    EMPTY = 61
    NOT_UTF8 = 62
    NOT_JSON = 63
    NOT_AN_OBJECT = 64
    NO_TYPE = 65
    INVALID_TYPE = 66
    INVALID_ID = 67
    INVALID_VERSION = 68
    TOO_LARGE = 69
    TOO_MANY_HEADERS = 70
    TOO_MANY_TYPES = 71
    UNKNOWN_TYPE = 72
    INTERNAL_ERROR = 73
    UNREADABLE = 74
    INVALID_DATA = 75
    UNKNOWN_VERSION = 76

    @property
    def word(self) -> str:
        """The name as logs, metrics, rows' views and the API show it."""
        return self.name.lower()


@dataclass(slots=True, frozen=True)
class Response:
    """What came back from one exchange: an HTTP status, or the transport's failure.

    Exactly one of `status` and `failure` is meaningful: `failure` is None when a final status
    line arrived whole and the body was read to its end or to the bound.
    """

    status: int
    """100–999 as received; 0 when there was none."""
    failure: Reason | None = None
    detail: str = ""
    """For a failure: what the library said, at most 200 characters, no secret in it."""
    retry_after: str | None = None
    """The raw header value, at most 128 characters."""
    body: bytes = b""
    """At most the configured number of bytes, never inflated."""
    sent: bool = True
    """False when it is certain that no byte of the request reached a receiver."""

    @property
    def succeeded(self) -> bool:
        """Standard Webhooks: 2xx alone is success."""
        return self.failure is None and 200 <= self.status < 300


@dataclass(slots=True, frozen=True)
class Outcome:
    """What an attempt came to; `delay_seconds` (from now) only for a retry."""

    kind: OutcomeKind
    reason: Reason
    delay_seconds: float = 0.0
