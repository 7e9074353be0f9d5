"""A request's events are the bytes that were signed, with what they say about themselves."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcherd.batch import batch_id, encode, member
from dispatcherd.config.model import DecodeConfig
from dispatcherd.decode import Decoder
from dispatcherd.delivery import Claim
from dispatcherd.delivery import Event as Sent
from dispatcherd.receiver import Receiver, UnexpectedBatch
from dispatcherd.receiver.event import Event, Hints, read_hints, restore, single, unpack
from dispatcherd.receiver.testing import RequestFactory
from dispatcherd.receiver.verify import Verified

NO_HINTS = Hints()
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
documents = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["order.created", "a b", 7]),
        "id": st.sampled_from(["evt-1", "evt-2", 7]),
        "timestamp": values,
        "data": values,
        "ü": values,
    },
)
padding = st.text(" \t\r\n", max_size=3).map(str.encode)


def event_of(document: Any, hints: Hints = NO_HINTS) -> Event:
    return single("evt_1", json.dumps(document).encode(), hints)


@pytest.mark.parametrize(
    ("document", "type_", "version", "timestamp", "data"),
    [
        ({"type": "a.b", "data": 1}, "a.b", "", "", 1),
        ({"event": "a.b", "data": {}, "timestamp": "2026-01-01"}, "a.b", "", "2026-01-01", {}),
        ({"event_type": "a.b", "x": 1}, "a.b", "", "", {"event_type": "a.b", "x": 1}),
        ({"type": "a", "event": "b", "version": 2, "timestamp": 3.5}, "a", "2", "3.5", None),
        ({"specversion": "1.0", "type": "a", "time": "T", "data": None}, "a", "", "T", None),
        ({"x": 1}, "", "", "", {"x": 1}),
        ({"type": {"id": 1}, "version": True}, "", "", "", None),
        ({"type": "a\ud800", "version": "1\x00"}, "", "", "", None),
        ({"type": "a" * 129}, "", "", "", None),
        ([1, 2], "", "", "", [1, 2]),
        ("text", "", "", "", "text"),
    ],
)
def test_an_event_says_what_it_is(
    document: Any, type_: str, version: str, timestamp: str, data: Any
) -> None:
    event = event_of(document)
    assert (event.type, event.version, event.timestamp) == (type_, version, timestamp)
    assert event.data == (document if data is None and "data" not in document else data)


def test_unsigned_headers_count_only_where_the_body_says_nothing() -> None:
    hints = read_hints({"X-Webhook-Version": "3", "webhook-attempt": "4"}, None)
    assert event_of({"type": "a", "version": "1"}, hints).version == "1"
    assert event_of({"type": "a"}, hints).version == "3"
    assert event_of({}, hints).attempt == 4


def test_a_header_gives_the_type_only_where_it_is_asked_for() -> None:
    headers = {"x-webhook-type": "order.paid"}
    document = {"type": "card", "version": "9", "data": 1}
    assert event_of(document, read_hints(headers, None)).type == "card"
    event = event_of(document, read_hints(headers, "X-Webhook-Type"))
    assert (event.type, event.version) == ("order.paid", "")


@pytest.mark.parametrize("value", ["", "x", "-1", "1.5", "9" * 40, "²"])
def test_an_attempt_that_is_no_number_is_the_first(value: str) -> None:
    assert read_hints({"webhook-attempt": value}, None).attempt == 1


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"{", b"NaN", b"[" * 100_000, b'{"a":' + b"1" * 5_000 + b"}"]
)
def test_a_body_that_is_not_json_is_an_event_without_a_type(body: bytes) -> None:
    event = single("evt_1", body, NO_HINTS)
    assert (event.type, event.body) == ("", body)


def sent(bodies: list[bytes]) -> list[Sent]:
    """The events as the daemon decodes them."""
    decoder = Decoder(DecodeConfig())
    claim = Claim("t", 1, 0, 1, b"k" * 16)
    found = []
    for offset, body in enumerate(bodies):
        decoded = decoder.decode(claim, offset, body, [], 1_700_000_000_000)
        if not isinstance(decoded, tuple):  # without a type of its own, or with a strange one
            headers = [("webhook-type", b"h.t")]
            decoded = decoder.decode(claim, offset, body, headers, 1_700_000_000_000)
        assert isinstance(decoded, tuple), decoded
        found.append(decoded[0])
    return found


@given(st.lists(st.tuples(padding, documents, padding), min_size=1, max_size=6))
def test_each_member_of_the_daemons_batches_is_there_byte_for_byte(
    parts: list[tuple[bytes, dict[str, Any], bytes]],
) -> None:
    bodies = []
    for before, document, after in parts:
        bodies.append(before + json.dumps(document, ensure_ascii=False).encode() + after)
    events = sent(bodies)
    message = unpack(Verified(batch_id(events), 1, "s"), encode(events), NO_HINTS)
    assert message.is_batch
    assert [event.id for event in message.events] == [event.id for event in events]
    assert [event.body for event in message.events] == [member(event) for event in events]


@pytest.mark.parametrize(
    ("id_", "body"),
    [
        ("evt_1", b'[{"id": "a"}]'),
        ("batch_1", b'{"id": "a"}'),
        ("batch_1", b"[]"),
        ("batch_1", b"[1]"),
        ("batch_1", b'[{"id": "a"}, {"id": 1}]'),
        ("batch_1", b'[{"id": "a"}, {}]'),
        ("batch_1", b'[{"id": "a"}'),
        ("batch_1", b'[{"id": "a"},'),
        ("batch_1", b'[{"id": "a"} {"id": "b"}]'),
        ("batch_1", b'[{"id": "a"}] x'),
        ("batch_1", b'[{"id": "a b"}]'),
        ("batch_1", b"[\xff"),
        ("batch_1", b"[" * 100_000),
    ],
)
def test_what_is_no_batch_is_one_event(id_: str, body: bytes) -> None:
    message = unpack(Verified(id_, 1, "s"), body, NO_HINTS)
    assert not message.is_batch
    assert [(event.id, event.body) for event in message.events] == [(id_, body)]


@given(st.binary(max_size=100))
def test_any_body_gives_a_message(body: bytes) -> None:
    assert unpack(Verified("batch_1", 1, "s"), b"[" + body, NO_HINTS).events


def test_verify_gives_one_event_and_names_the_way_for_a_batch(
    signed_request: RequestFactory,
) -> None:
    webhook = Receiver([signed_request.secret])
    request = signed_request({"type": "a.b", "data": 7}, id="evt_1", version="2", attempt=3)
    event = webhook.verify(request.headers, request.body)
    assert (event.id, event.type, event.version, event.attempt) == ("evt_1", "a.b", "2", 3)
    assert (event.data, event.body) == (7, request.body)
    batch = signed_request([{"type": "a.b"}, {"type": "a.c"}])
    with pytest.raises(UnexpectedBatch, match="batch of 2 events"):
        webhook.verify(batch.headers, batch.body)
    message = webhook.verify_message(batch.headers, batch.body)
    assert [event.type for event in message.events] == ["a.b", "a.c"]


def test_what_was_kept_of_an_event_gives_it_again() -> None:
    event = event_of({"type": "a", "version": "2", "timestamp": "T", "data": [1]})
    again = restore(event.id, event.type, event.version, event.timestamp, 1, event.body)
    for name in Event.__slots__:
        assert getattr(again, name) == getattr(event, name)


def test_a_repr_shows_no_body() -> None:
    assert "secret-data" not in repr(event_of({"type": "a", "data": "secret-data"}))
