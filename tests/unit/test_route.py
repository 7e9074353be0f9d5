"""Routing: the same answer as asking each endpoint, at a cost that does not grow with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcherd.delivery import BatchPolicy, Claim, Endpoint, Event, Matcher, RetryPolicy, Shape
from dispatcherd.route import MATCH_ALL, Router, compile_types

CLAIM = Claim("orders", 1, 0, 1, b"k" * 16)


def event_of(type_: str, tenant: str | None = None) -> Event:
    return Event(CLAIM, 1, "evt_1", type_, "1", "", b"{}", (), Shape.WHOLE, tenant)


def endpoint(
    number: int,
    patterns: Sequence[str] = ("*",),
    matches: Matcher = MATCH_ALL,
    tenant: str | None = None,
) -> Endpoint:
    return Endpoint(
        id=number,
        name=f"endpoint-{number}",
        url="https://example.com/",
        event_types=tuple(patterns),
        matches=matches,
        timeout_seconds=15.0,
        concurrency=10,
        batch=BatchPolicy(),
        retry=RetryPolicy((0.0,), 1),
        tenant=tenant,
    )


def routed(router: Router, event: Event, document: Any = None) -> list[int]:
    return [endpoint.id for endpoint in router.route(event, document or {})]


# --- patterns ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patterns", "wanted", "unwanted"),
    [
        (["order.created"], ["order.created"], ["order", "order.created.x", "order.create"]),
        (
            ["order.*"],
            ["order.created", "order.line.added"],
            ["order", "orders.created", "xorder.a"],
        ),
        (["order.line.*"], ["order.line.added"], ["order.line", "order.created"]),
        (["*"], ["a", "order.created"], []),
        (["*", "!order.deleted"], ["order.created"], ["order.deleted"]),
        (["!order.deleted", "order.*"], ["order.created"], ["order.deleted", "user.created"]),
        (["order.deleted", "!order.*"], [], ["order.deleted", "order", "user.created"]),
        (["!order.*"], ["order", "user.created"], ["order.created", "order.line.added"]),
        (["!order.*", "!user.created"], ["a", "user.deleted"], ["order.a", "user.created"]),
        (["*", "!*"], [], ["a"]),
        (["!*"], [], ["a"]),
        ([], [], ["a", "order.created"]),
        (["order.created", "user.*"], ["order.created", "user.a"], ["user", "order.deleted"]),
    ],
)
def test_patterns_match_types(patterns: list[str], wanted: list[str], unwanted: list[str]) -> None:
    matches = compile_types(patterns)
    assert [type_ for type_ in wanted if not matches(type_)] == []
    assert [type_ for type_ in unwanted if matches(type_)] == []


# --- the router ----------------------------------------------------------------------------

_segments = st.sampled_from(["a", "b", "c", "ab"])
_types = st.lists(_segments, min_size=1, max_size=4).map(".".join)
_positive = st.one_of(_types, _types.map(lambda type_: type_ + ".*"), st.just("*"))
_patterns = st.lists(_positive | _positive.map(lambda pattern: "!" + pattern), max_size=4)
_tenants = st.sampled_from([None, None, "t1", "t2", "t3"])


def covers(pattern: str, type_: str) -> bool:
    """One positive pattern, segment by segment: told in another way than the program does it."""
    if pattern == "*":
        return True
    parts, segments = pattern.split("."), type_.split(".")
    if parts[-1] == "*":
        return len(segments) >= len(parts) and segments[: len(parts) - 1] == parts[:-1]
    return parts == segments


def wants(patterns: Sequence[str], type_: str) -> bool:
    positive = [pattern for pattern in patterns if pattern[0] != "!"]
    negative = [pattern[1:] for pattern in patterns if pattern[0] == "!"]
    if any(covers(pattern, type_) for pattern in negative):
        return False
    if not positive:
        return bool(negative)
    return any(covers(pattern, type_) for pattern in positive)


@given(patterns=_patterns, type_=_types)
def test_compiled_patterns_say_what_each_pattern_says(patterns: list[str], type_: str) -> None:
    assert compile_types(patterns)(type_) is wants(patterns, type_)


def _matcher(kind: str) -> Matcher:
    if kind == "all":
        return MATCH_ALL
    return lambda event, document: bool(document["flag"]) is (kind == "flagged")


@given(
    registered=st.lists(
        st.tuples(_patterns, st.sampled_from(["all", "flagged", "plain"]), _tenants), max_size=8
    ),
    events=st.lists(st.tuples(_types, st.sampled_from([None, "t1", "t2", "?"]), st.booleans())),
)
def test_the_router_answers_as_asking_each_endpoint_in_order_would(
    registered: list[tuple[list[str], str, str | None]],
    events: list[tuple[str, str | None, bool]],
) -> None:
    endpoints = [
        endpoint(number, patterns, _matcher(kind), tenant)
        for number, (patterns, kind, tenant) in enumerate(registered)
    ]
    router = Router(endpoints)
    for type_, tenant, flag in events:
        event, document = event_of(type_, tenant), {"flag": flag}
        naive = [
            e.id
            for e in endpoints
            if (e.tenant is None or e.tenant == tenant)
            and wants(e.event_types, type_)
            and e.matches(event, document)
        ]
        assert routed(router, event, document) == naive


@given(
    changes=st.lists(
        st.tuples(st.integers(0, 4), st.none() | st.tuples(_patterns, _tenants)), max_size=20
    ),
    events=st.lists(st.tuples(_types, st.sampled_from([None, "t1", "t2"])), min_size=1),
)
def test_a_router_that_was_changed_answers_as_one_made_anew(
    changes: list[tuple[int, tuple[list[str], str | None] | None]],
    events: list[tuple[str, str | None]],
) -> None:
    changed, now = Router([]), {}
    for number, wanted in changes:
        if wanted is None:
            now.pop(number, None)
            changed.drop(number)
        else:
            now[number] = endpoint(number, wanted[0], tenant=wanted[1])
            changed.put(now[number])
        anew = Router(list(now.values()))
        for type_, tenant in events:
            event = event_of(type_, tenant)
            assert routed(changed, event) == routed(anew, event)


def test_order_is_that_of_registration_whatever_the_pattern() -> None:
    router = Router(
        [
            endpoint(9, ["order.*"]),
            endpoint(3, ["*"]),
            endpoint(5, ["order.created", "order.*", "*"]),
            endpoint(1, ["order.created"], tenant="t"),
            endpoint(7, ["!user.*"]),
        ]
    )
    assert routed(router, event_of("order.created", "t")) == [9, 3, 5, 1, 7]


def test_order_is_that_of_registration_also_among_many() -> None:
    wanted = {1, 8, 64, 100, 1_024, 1_999}
    router = Router([endpoint(n, ["a.b" if n in wanted else "c"]) for n in range(2_000)])
    assert routed(router, event_of("a.b")) == sorted(wanted)


def test_an_endpoint_with_a_tenant_gets_that_tenants_events_only() -> None:
    router = Router([endpoint(1), endpoint(2, tenant="acme"), endpoint(3, tenant="other")])
    assert routed(router, event_of("a.b", "acme")) == [1, 2]
    assert routed(router, event_of("a.b", "other")) == [1, 3]
    assert routed(router, event_of("a.b", "unknown")) == [1]
    assert routed(router, event_of("a.b")) == [1]


def test_endpoints_without_a_filter_cost_nothing_per_event() -> None:
    router = Router([endpoint(number) for number in range(3)])
    assert router.route(event_of("a.b"), {}) is router.route(event_of("a.b"), {})


def test_filters_are_asked_only_of_endpoints_that_want_the_type() -> None:
    asked = []

    def matches(event: Event, document: Any) -> bool:
        asked.append(event.type)
        return False

    router = Router([endpoint(1, ["order.*"], matches), endpoint(2, ["user.*"], matches)])
    assert routed(router, event_of("order.created")) == []
    assert asked == ["order.created"]


def test_memory_for_types_seen_is_bounded_however_many_there_are() -> None:
    router = Router([endpoint(1), endpoint(2, tenant="acme")])
    for number in range(20_001):
        assert routed(router, event_of(f"type-{number}", f"tenant-{number}")) == [1]
        assert len(router._cache) <= 10_000


def test_memory_for_types_seen_is_bounded_in_endpoints_too() -> None:
    router = Router([endpoint(number) for number in range(2_000)])
    for number in range(1_200):
        assert len(router.route(event_of(f"type-{number}"), {})) == 2_000
        kept = sum(len(candidates.endpoints) for candidates in router._cache.values())
        assert kept <= 1_000_000


def test_candidates_are_found_without_asking_the_endpoints_that_want_other_types() -> None:
    others = [endpoint(number, [f"other-{number}.*"]) for number in range(20_000)]
    router = Router([*others, endpoint(20_000, ["order.*"]), endpoint(20_001)])
    assert list(router._shared.places("order.created")) == [20_001, 20_000]
    assert routed(router, event_of("order.created")) == [20_000, 20_001]
