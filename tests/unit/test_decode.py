"""Events of every shape are read from a record's bytes; of refusals: test_decode_refusals.py."""

from __future__ import annotations

import base64
import hashlib
import struct

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcherd.config.model import DecodeConfig
from dispatcherd.decode import Decoder
from dispatcherd.delivery import Reason, Refused, Shape
from tests.unit.decoding import NOON, NOON_MS, Headers, attempt, claim, event_of, refusal_of

# --- shapes --------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["type", "event_type", "event"])
def test_the_type_is_read_from_each_of_its_body_keys(key: str) -> None:
    assert event_of({key: "order.created"}).type == "order.created"


def test_the_first_type_key_present_is_the_one_that_counts() -> None:
    body = {"event": "c.c", "event_type": "b.b", "type": None}
    assert event_of(body).type == "b.b"
    assert event_of({**body, "type": "a.a"}).type == "a.a"
    assert refusal_of({**body, "type": 5}).reason is Reason.INVALID_TYPE


def test_an_envelope_gives_id_version_and_timestamp() -> None:
    body = {"type": "a.b", "id": "evt_1", "version": "2", "timestamp": "2026-01-01T00:00:00+01:00"}
    event = event_of(body)
    assert (event.id, event.version, event.timestamp) == ("evt_1", "2", "2026-01-01T00:00:00+01:00")
    assert event.shape is Shape.WHOLE


def test_the_body_is_the_value_itself_and_the_document_its_parse() -> None:
    value = b' { "type" : "a.b" , "n" : 1e2 } '
    decoded = attempt(value)
    assert not isinstance(decoded, Refused)
    event, document = decoded
    assert event.body is value
    assert document == {"type": "a.b", "n": 100.0}


@pytest.mark.parametrize("headers", [(), (("content-type", b"application/cloudevents+json"),)])
def test_structured_cloudevents_give_type_id_time_and_their_version_extension(
    headers: Headers,
) -> None:
    body = {
        "specversion": "1.0",
        "type": "com.shop.order",
        "source": "/shop",
        "id": "A1-b",
        "time": "2026-01-01T00:00:00Z",
        "timestamp": "not this one",
        "version": 3,
    }
    event = event_of(body, headers)
    assert (event.type, event.id, event.version) == ("com.shop.order", "A1-b", "3")
    assert event.timestamp == "2026-01-01T00:00:00Z"
    assert event.shape is Shape.WHOLE


def test_binary_cloudevents_are_read_from_headers_and_their_body_is_data() -> None:
    headers = [
        ("ce_specversion", b"1.0"),
        ("CE_Type", b"order.created"),
        ("ce_id", b"A1"),
        ("ce_time", b"2026-01-01T00:00:00Z"),
        ("ce_version", b"7"),
    ]
    event = event_of({"id": 991, "version": "x y", "timestamp": "no"}, headers)
    assert (event.type, event.id, event.version) == ("order.created", "A1", "7")
    assert event.timestamp == "2026-01-01T00:00:00Z"
    assert event.shape is Shape.WRAP


def test_plain_headers_are_read_whatever_the_case_of_their_names() -> None:
    config = DecodeConfig(type_header="X-Type", id_header="X-Id", version_header="X-Version")
    headers = [("x-TYPE", b"a.b"), ("X-ID", b"i1"), ("x-version", b"9")]
    event = event_of({}, headers, config=config)
    assert (event.type, event.id, event.version) == ("a.b", "i1", "9")
    assert event.shape is Shape.WRAP


def test_plain_headers_win_over_cloudevents_headers_and_those_over_the_body() -> None:
    body = {"type": "body.type", "id": "body-id", "version": "1"}
    ce: Headers = [("ce_type", b"ce.type"), ("ce_id", b"ce-id"), ("ce_version", b"2")]
    plain: Headers = [
        ("webhook-type", b"plain.type"),
        ("webhook-id", b"plain-id"),
        ("webhook-version", b"3"),
    ]
    event = event_of(body, ce)
    assert (event.type, event.id, event.version) == ("ce.type", "ce-id", "2")
    for headers in ([*ce, *plain], [*plain, *ce]):
        event = event_of(body, headers)
        assert (event.type, event.id, event.version) == ("plain.type", "plain-id", "3")


def test_of_several_headers_of_one_name_the_last_counts_and_null_is_absent() -> None:
    headers = [("webhook-type", b"a.a"), ("Webhook-Type", b"b.b"), ("webhook-type", None)]
    assert event_of({}, headers).type == "b.b"


def test_where_a_header_gives_the_type_the_id_of_the_data_is_not_the_events() -> None:
    headers = [("webhook-type", b"order.paid")]
    event = event_of({"id": "order-5", "type": "express"}, headers)
    assert event.id.startswith("evt_")
    assert event.shape is Shape.WRAP


def test_an_envelope_whose_type_a_header_repeats_is_still_an_envelope() -> None:
    body = {"type": "order.paid", "id": "evt_1", "version": 4}
    event = event_of(body, [("webhook-type", b"order.paid")])
    assert (event.id, event.version, event.shape) == ("evt_1", "4", Shape.WHOLE)


def test_an_id_from_a_header_makes_the_batch_wrap_unless_the_body_says_the_same() -> None:
    headers = [("webhook-id", b"evt_1")]
    assert event_of({"type": "a.b"}, headers).shape is Shape.WRAP
    assert event_of({"type": "a.b", "id": "evt_2"}, headers).shape is Shape.WRAP
    assert event_of({"type": "a.b", "id": "evt_2"}, headers).id == "evt_1"
    assert event_of({"type": "a.b", "id": "evt_1"}, headers).shape is Shape.WHOLE


def test_a_body_id_that_a_header_overrides_is_not_judged() -> None:
    assert event_of({"type": "a.b", "id": 5}, [("webhook-id", b"evt_1")]).id == "evt_1"


def test_an_id_is_spliced_only_where_the_body_has_no_key_that_would_override_it() -> None:
    spliced = event_of({"event": "a.b"})
    assert spliced.shape is Shape.SPLICE
    body = spliced.body.replace(b"{", b'{"id":"' + spliced.id.encode() + b'",', 1)
    assert orjson.loads(body)["id"] == spliced.id
    assert event_of({"event": "a.b", "id": None}).shape is Shape.WRAP


def test_headers_are_kept_as_they_came_with_null_as_no_bytes() -> None:
    headers = [("X-É", b"\xff\r\n"), ("x", None), ("x", b"2")]
    assert event_of({"type": "a.b"}, headers).headers == (
        ("X-É", b"\xff\r\n"),
        ("x", b""),
        ("x", b"2"),
    )


@pytest.mark.parametrize(
    ("content", "tenant"),
    [
        (b"acme", "acme"),
        (b"a" * 64, "a" * 64),
        (b"a" * 65, None),
        (b"", None),
        (b"-acme", None),
        (b"ac me", None),
        (b"acme\n", None),
        (b"\xff", None),
        (None, None),
    ],
)
def test_a_tenant_is_taken_from_its_header_or_there_is_none(
    content: bytes | None, tenant: str | None
) -> None:
    assert event_of({"type": "a.b"}, [("Webhook-Tenant", content)]).tenant == tenant


def test_an_invalid_tenant_hides_an_earlier_valid_one() -> None:
    headers = [("webhook-tenant", b"acme"), ("webhook-tenant", b"?")]
    assert event_of({"type": "a.b"}, headers).tenant is None


# --- derived ids ---------------------------------------------------------------------------


@given(
    partition=st.integers(0, 2**31 - 1),
    offset=st.integers(0, 2**63 - 1),
    id_key=st.binary(min_size=16, max_size=16),
)
def test_a_derived_id_is_the_base32_of_the_keyed_hash_of_the_position(
    partition: int, offset: int, id_key: bytes
) -> None:
    decoder = Decoder(DecodeConfig())
    decoded = decoder.decode(claim(partition, id_key), offset, b'{"type":"a"}', (), 0)
    assert not isinstance(decoded, Refused)
    position = struct.pack(">iq", partition, offset)
    digest = hashlib.blake2b(position, key=id_key, digest_size=16).digest()
    text = base64.b32encode(digest).decode().rstrip("=").lower()
    assert len(text) == 26
    assert decoded[0].id == "evt_" + text


def test_a_derived_id_is_the_same_after_a_restart() -> None:
    # The number is written down: a change of it would send every owed event under a new id.
    assert event_of({"type": "a.b"}).id == "evt_u7q57kcikqfn7opp5bn7oyrzru"


def test_a_derived_id_differs_between_positions_and_incarnations() -> None:
    decoder = Decoder(DecodeConfig())
    ids = set()
    for held in (claim(), claim(partition=4), claim(id_key=b"k" * 16)):
        for offset in (7, 8):
            decoded = decoder.decode(held, offset, b'{"type":"a"}', (), 0)
            assert not isinstance(decoded, Refused)
            ids.add(decoded[0].id)
    assert len(ids) == 6


# --- versions and times --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "expected"),
    [("2026-01-01", "2026-01-01"), (2, "2"), (-1, "-1"), (None, "1"), (True, "1"), ([], "1")],
)
def test_a_version_is_a_string_or_an_integer_and_else_the_default(
    version: object, expected: str
) -> None:
    assert event_of({"type": "a.b", "version": version}).version == expected


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        ("99999-12-31T00:00:00Z", "99999-12-31T00:00:00Z"),
        (1_767_355_200, "1767355200"),
        (1_767_355_200.5, "1767355200.5"),
        (None, NOON),
        (True, NOON),
        ("", NOON),
        ("2026\n", NOON),
        ("٢٠٢٦", NOON),
        ("9" * 65, NOON),
        ({}, NOON),
    ],
)
def test_a_timestamp_is_carried_as_text_or_the_records_own_stands_in(
    timestamp: object, expected: str
) -> None:
    assert event_of({"type": "a.b", "timestamp": timestamp}).timestamp == expected


def test_a_time_header_that_is_no_text_gives_way_to_the_records_own() -> None:
    assert event_of({"type": "a.b"}, [("ce_time", b"\xff")]).timestamp == NOON


def test_the_records_own_time_is_right_in_any_order() -> None:
    decoder = Decoder(DecodeConfig())
    expected = {
        -1: "1970-01-01T00:00:00.000Z",
        0: "1970-01-01T00:00:00.000Z",
        1: "1970-01-01T00:00:00.001Z",
        NOON_MS: NOON,
        NOON_MS + 750: "2026-01-02T12:00:01.000Z",
        253_402_300_799_999: "9999-12-31T23:59:59.999Z",
        253_402_300_800_000: "9999-12-31T23:59:59.999Z",
        -(2**63): "1970-01-01T00:00:00.000Z",
        2**63 - 1: "9999-12-31T23:59:59.999Z",
    }
    for timestamp_ms in [*expected, *reversed(expected), *expected]:
        decoded = decoder.decode(claim(), 7, b'{"type":"a"}', (), timestamp_ms)
        assert not isinstance(decoded, Refused)
        assert decoded[0].timestamp == expected[timestamp_ms]
