"""How long decode, one filter condition and route take, in nanoseconds of wall time per event.

Run: python bench/decode.py. The best of several rounds; nothing here is a pass mark.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from typing import Any

import orjson

from dispatcherd.config.model import DecodeConfig, FilterCondition, FilterConfig
from dispatcherd.decode import Decoder
from dispatcherd.delivery import (
    BatchPolicy,
    Claim,
    Endpoint,
    Event,
    Matcher,
    Refused,
    RetryPolicy,
)
from dispatcherd.filter import compile_filter
from dispatcherd.route import MATCH_ALL, Router

_ROUNDS = 5
_ID = "evt_2b0c9c1e-7a44-4f7e-9b7a-cc55b6a1f2d0"
_DATA = {"order": {"id": 991, "total": 12.5, "note": "x" * 720}, "items": [{"sku": "a-1"}] * 8}
_TIME = "2026-01-02T03:04:05Z"
_MS = 1_767_323_045_123

_Headers = list[tuple[str, bytes | None]]

_SHAPES: dict[str, tuple[dict[str, Any], _Headers]] = {
    "envelope with an id": (
        {"id": _ID, "type": "order.created", "timestamp": _TIME, "data": _DATA},
        [],
    ),
    "envelope without an id": (
        {"event": "order.created", "timestamp": _TIME, "data": _DATA},
        [],
    ),
    "CloudEvents structured": (
        {"specversion": "1.0", "id": _ID, "type": "order.created", "time": _TIME, "data": _DATA},
        [("content-type", b"application/cloudevents+json")],
    ),
    "CloudEvents binary": (
        _DATA,
        [
            ("ce_specversion", b"1.0"),
            ("ce_type", b"order.created"),
            ("ce_id", _ID.encode()),
            ("ce_source", b"/shop"),
            ("ce_time", _TIME.encode()),
        ],
    ),
    "plain headers": (
        _DATA,
        [("webhook-type", b"order.created"), ("webhook-id", _ID.encode())],
    ),
}


def nanoseconds(work: Callable[[], object]) -> float:
    count, _ = timeit.Timer(work).autorange()
    return min(timeit.repeat(work, number=count, repeat=_ROUNDS)) / count * 1e9


def endpoint(number: int, pattern: str, matches: Matcher = MATCH_ALL) -> Endpoint:
    return Endpoint(
        id=number,
        name=f"endpoint-{number}",
        url="https://example.com/",
        event_types=(pattern,),
        matches=matches,
        timeout_seconds=15.0,
        concurrency=10,
        batch=BatchPolicy(),
        retry=RetryPolicy((0.0,), 1),
    )


def show(name: str, time_ns: float) -> None:
    print(f"{name:56} {time_ns:8.0f} ns")


def bench_decode() -> tuple[Event, Any]:
    decoder = Decoder(DecodeConfig())
    claim = Claim("orders", 1, 3, 1, b"k" * 16)
    last: tuple[Event, Any] | None = None
    for name, (body, headers) in _SHAPES.items():
        value = orjson.dumps(body)
        decoded = decoder.decode(claim, 7, value, headers, _MS)
        assert not isinstance(decoded, Refused)
        last = last or decoded
        parsing = nanoseconds(lambda value=value: orjson.loads(value))  # type: ignore[misc]
        whole = nanoseconds(
            lambda value=value, headers=headers: decoder.decode(claim, 7, value, headers, _MS)  # type: ignore[misc]
        )
        show(f"decode, {name}, {len(value)} bytes", whole)
        show("    of which orjson.loads", parsing)
    assert last is not None
    return last


def bench_route(event: Event, document: Any) -> None:
    condition = FilterConfig(all=[FilterCondition(field="data.order.total", greater_than=5)])
    matches = compile_filter(condition)
    show("filter, one condition on a field", nanoseconds(lambda: matches(event, document)))
    for count in (10, 10_000, 100_000):
        wanted = [endpoint(n, "order.*") for n in range(3)]
        others = [endpoint(n, f"other-{n}.*") for n in range(3, count)]
        router = Router(wanted + others)
        show(
            f"route, {count:,} endpoints, 3 want the type",
            nanoseconds(lambda router=router: router.route(event, document)),  # type: ignore[misc]
        )
        router = Router([endpoint(n, "order.*", matches) for n in range(3)] + others)
        show(
            f"route, {count:,} endpoints, 3 want it and filter",
            nanoseconds(lambda router=router: router.route(event, document)),  # type: ignore[misc]
        )
        show(
            f"build the router, {count:,} endpoints",
            min(timeit.repeat(lambda all_=wanted + others: Router(all_), number=1, repeat=3)) * 1e9,  # type: ignore[misc]
        )


if __name__ == "__main__":
    bench_route(*bench_decode())
