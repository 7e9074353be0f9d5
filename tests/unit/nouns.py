"""Nouns for the tests of the pure modules, with everything a test does not speak of filled in."""

from __future__ import annotations

from dispatcherd.delivery import (
    BatchPolicy,
    Claim,
    Delivery,
    Endpoint,
    Event,
    Headers,
    RetryPolicy,
    Shape,
)
from dispatcherd.lane import Lane
from dispatcherd.route import MATCH_ALL

CLAIM = Claim("orders", 1, 0, 1, b"k" * 16)
BIG = 10**9
"""No bound, where a test does not speak of one."""


def make_event(
    offset: int = 1,
    body: bytes = b"{}",
    id_: str | None = None,
    claim: Claim = CLAIM,
    shape: Shape = Shape.WHOLE,
    headers: Headers = (),
) -> Event:
    """An event of type `order.created`."""
    name = f"evt_{offset}" if id_ is None else id_
    return Event(claim, offset, name, "order.created", "1", "2026-01-01", body, headers, shape)


def make_endpoint(
    number: int = 1,
    batch: BatchPolicy | None = None,
    retry: RetryPolicy | None = None,
    concurrency: int = 10,
) -> Endpoint:
    """An endpoint that wants everything."""
    return Endpoint(
        id=number,
        name=f"endpoint-{number}",
        url="https://example.com/",
        event_types=("*",),
        matches=MATCH_ALL,
        timeout_seconds=15.0,
        concurrency=concurrency,
        batch=batch or BatchPolicy(),
        retry=retry or RetryPolicy((0.0,), 1),
    )


def make_delivery(
    offset: int = 1,
    size: int = 0,
    entered_at: float = 0.0,
    owed: bool = False,
    claim: Claim = CLAIM,
    endpoint_id: int = 1,
) -> Delivery:
    """A delivery whose event holds `size` bytes of body."""
    event = make_event(offset, b"x" * size, claim=claim)
    return Delivery(event, endpoint_id, entered_at, owed=owed)


def make_lane(
    max_deliveries: int = 10,
    max_bytes: int = BIG,
    max_events: int = 1,
    batch_bytes: int = BIG,
    wait: float = 0.0,
) -> Lane:
    """An empty lane."""
    policy = BatchPolicy(max_events, batch_bytes, wait)
    return Lane(make_endpoint(batch=policy), max_deliveries, max_bytes)
