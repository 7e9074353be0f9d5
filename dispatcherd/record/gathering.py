"""What waits to be recorded: outcomes, changes of what is owed, quarantined records.

Invariant: one operation per key (the last one wins, and remembers whether the body was stored);
frozen, its contents do not change until their fate is known. Leaves out: SQL (flush), and when to
flush (recorder).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple

from dispatcherd.delivery import Claim, Delivery, Headers, Key, Reason, Refused
from dispatcherd.offsets import Progress


class Change(IntEnum):
    """What becomes of a delivery's row."""

    OWED = 1
    DEAD = 2
    DELETE = 3


class Operation:
    """One change to `deliveries`, coalesced per key."""

    __slots__ = ("change", "delivery", "due", "reason", "request_no", "status", "with_body")

    def __init__(
        self,
        delivery: Delivery,
        change: Change,
        due: float,
        reason: Reason,
        status: int,
        with_body: bool,
    ) -> None:
        self.delivery = delivery
        self.change = change
        self.due = due
        """Monotonic; made relative only when the statement runs, so that an outage does not
        postpone what was due during it."""
        self.reason = reason
        self.status = status
        self.with_body = with_body
        self.request_no: int | None = None


class QuarantineRow(NamedTuple):
    """A record that is no event, cut to bounds."""

    claim: Claim
    offset: int
    reason: Reason
    detail: str
    key: bytes | None
    value: bytes | None
    value_bytes: int
    headers: Headers

    @classmethod
    def cut(
        cls,
        claim: Claim,
        offset: int,
        refused: Refused,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        keep_bytes: int,
    ) -> QuarantineRow:
        """The row for a record, with at most `keep_bytes` of its value."""
        return cls(
            claim,
            offset,
            refused.reason,
            refused.detail,
            None if key is None else key[:1024],
            None if value is None else value[:keep_bytes],
            len(value or b""),
            tuple((name[:256], content[:1024]) for name, content in headers[:50]),
        )


@dataclass(slots=True)
class HeldRange:
    """Offsets of a partition whose events for one endpoint are owed without rows: [start, end)."""

    claim: Claim
    endpoint_id: int
    start: int
    end: int
    resume_at: int = 0
    """While it is read again: everything below has rows by now; at `end` the range is done."""

    @property
    def key(self) -> Key:
        """Identifies the range; its start stands where a delivery's offset would."""
        return Key(self.claim.topic_id, self.claim.partition, self.start, self.endpoint_id)


AttemptRow = tuple[object, ...]
"""In the order of `flush.ATTEMPT_COLUMNS`."""

_POSTGRES_EPOCH: Final = 946_684_800
"""2000-01-01 in Unix seconds: what a `timestamptz` counts its microseconds from."""


def postgres_moment(at: float) -> tuple[int]:
    """A Unix time, to the microsecond, as a row has it on a connection that `flush.prepare` has
    prepared: encoding a datetime would cost half of what COPY costs in all."""
    return (round((at - _POSTGRES_EPOCH) * 1e6),)


@dataclass(slots=True)
class Gathering:
    """The open buffer, then (frozen) the contents of one flush."""

    attempts: list[AttemptRow] = field(default_factory=list)
    operations: dict[Key, Operation] = field(default_factory=dict)
    settled: list[Delivery] = field(default_factory=list)
    """Settled for the first time by what is gathered here."""
    settled_apart: list[tuple[Claim, int, int]] = field(default_factory=list)
    """(claim, offset, endpoint): likewise, of what is no delivery."""
    quarantine: list[QuarantineRow] = field(default_factory=list)
    held: dict[Key, HeldRange] = field(default_factory=dict)
    """Ranges begun or extended."""
    reread: dict[Key, HeldRange] = field(default_factory=dict)
    """Ranges of which more has become rows."""
    progress: list[Progress] = field(default_factory=list)
    rows: int = 0
    """Reserved places that this will give back."""
    bytes: int = 0
    number: int = 0
    """Flush number, given when it is frozen."""
    fenced: set[Claim] = field(default_factory=set)
    """Claims that Postgres did not return as ours, found out while writing."""

    def put(self, operation: Operation) -> None:
        """Add an operation, merged with one that is already gathered for its key."""
        key = operation.delivery.key
        before = self.operations.get(key)
        if before is not None:
            operation.with_body = operation.with_body or before.with_body
            if operation.request_no is None:
                operation.request_no = before.request_no
        self.operations[key] = operation

    def __bool__(self) -> bool:
        return bool(
            self.attempts
            or self.operations
            or self.settled
            or self.settled_apart
            or self.quarantine
            or self.held
            or self.progress
            or self.reread
        )
