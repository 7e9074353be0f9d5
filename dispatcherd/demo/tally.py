"""Do the counts add up? What was routed, what Postgres says, what the receivers counted.

Invariant: pure; the three come from different places (the samples, the database, the receivers'
process), so that none can vouch for itself. Leaves out: fetching them (ledger), printing (view).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dispatcherd.demo.scenario import End

Place = tuple[str, int]
"""Topic and partition."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What Postgres says of one endpoint."""

    delivered: int = 0
    owed: int = 0
    dead: int = 0
    overlapping: int = 0
    """Deliveries that are both delivered and still owed or dead; there must be none."""
    retries: int = 0
    """Attempts that were not the first of their delivery."""
    timeouts: int = 0
    exchanges: int = 0
    """HTTP requests that were sent; a batch is one."""
    p50_seconds: float | None = None
    """From Kafka's append to the receiver's 2xx."""
    p99_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Received:
    """What one receiver counted."""

    requests: int = 0
    verified: int = 0
    accepted: int = 0
    """Different event ids answered with 2xx."""
    repeated: int = 0
    """Times an id came again after it had been answered with 2xx."""


@dataclass(frozen=True, slots=True)
class Books:
    """Everything there is to compare, after the daemon has stopped."""

    routed: Mapping[str, int]
    """Endpoint → deliveries that the published events owe to it."""
    must_end: Mapping[str, End]
    recorded: Mapping[str, Recorded]
    received: Mapping[str, Received]
    bad_records: Mapping[str, int]
    """Reason → records published that are no events."""
    quarantined: Mapping[str, int]
    log_ends: Mapping[Place, int]
    """The offset after the last record of each partition."""
    watermarks: Mapping[Place, int]
    committed: Mapping[Place, int]

    def total(self, state: End) -> int:
        """All endpoints' deliveries in that state."""
        return sum(getattr(recorded, state.value) for recorded in self.recorded.values())


def discrepancies(books: Books) -> list[str]:
    """Everything that does not add up, in words; empty when all does."""
    return [
        *(text for name in books.routed for text in _endpoint(books, name)),
        *_strangers(books),
        *_quarantine(books),
        *_offsets(books),
    ]


def _endpoint(books: Books, name: str) -> Iterator[str]:
    routed = books.routed[name]
    recorded = books.recorded.get(name, Recorded())
    received = books.received.get(name, Received())
    ended = recorded.delivered + recorded.owed + recorded.dead
    if ended != routed:
        yield (
            f"{name}: {routed:,} deliveries were routed, but {recorded.delivered:,} delivered + "
            f"{recorded.owed:,} owed + {recorded.dead:,} dead letters = {ended:,}"
        )
    if recorded.overlapping:
        yield f"{name}: {recorded.overlapping:,} deliveries are delivered and yet owed or dead"
    must = books.must_end[name]
    for state in End:
        count = getattr(recorded, state.value)
        if state is not must and count:
            yield f"{name}: every delivery had to end {must.value}, but {count:,} are {state.value}"
    if received.accepted != recorded.delivered:
        yield (
            f"{name}: the receiver accepted {received.accepted:,} different events, Postgres has "
            f"{recorded.delivered:,} delivered"
        )
    if received.repeated:
        yield f"{name}: the receiver accepted {received.repeated:,} events more than once"
    if received.verified != received.requests:
        forged = received.requests - received.verified
        yield f"{name}: {forged:,} of {received.requests:,} requests did not verify"
    if received.requests != recorded.exchanges:
        yield (
            f"{name}: the receiver saw {received.requests:,} requests, Postgres has "
            f"{recorded.exchanges:,}"
        )


def _strangers(books: Books) -> Iterator[str]:
    for name in sorted({*books.recorded, *books.received} - books.routed.keys()):
        yield f"{name}: nothing was routed to it, yet there are counts of it"


def _quarantine(books: Books) -> Iterator[str]:
    for reason in sorted({*books.bad_records, *books.quarantined}):
        published, found = books.bad_records.get(reason, 0), books.quarantined.get(reason, 0)
        if published != found:
            yield f"quarantine: {published:,} records were {reason}, but {found:,} lie there for it"


def _offsets(books: Books) -> Iterator[str]:
    for what, offsets in (
        ("Postgres's watermark", books.watermarks),
        ("the offset committed to Kafka", books.committed),
    ):
        for place in sorted({*books.log_ends, *offsets}):
            end, found = books.log_ends.get(place, 0), offsets.get(place, 0)
            if end != found:
                yield f"{place[0]}/{place[1]}: {what} is {found:,}, the partition's end {end:,}"
