"""What is no event is refused with its reason, whatever the bytes are, and nothing raises."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcherd.config.model import DecodeConfig
from dispatcherd.decode import Decoder
from dispatcherd.delivery import Event, Reason, Refused, Shape
from tests.unit.bad_records import BAD_RECORDS, DELIVERED_TYPES, BadRecord
from tests.unit.decoding import Headers, attempt, claim, event_of, refusal_of


@pytest.mark.parametrize("record", BAD_RECORDS, ids=lambda record: record.name)
def test_a_bad_record_is_delivered_unharmed_or_refused_with_its_reason(record: BadRecord) -> None:
    decoded = attempt(record.value, record.headers, timestamp_ms=-1)
    if isinstance(decoded, Refused):
        assert decoded.reason is record.expected
        assert_fit_for_a_row(decoded)
    else:
        assert record.expected == "delivered"
        assert decoded[0].body is record.value
        assert decoded[0].type in DELIVERED_TYPES


def test_names_of_bad_records_are_unique() -> None:
    assert len({record.name for record in BAD_RECORDS}) == len(BAD_RECORDS)


def test_limits_admit_their_own_value_and_refuse_one_more() -> None:
    body = b'{"type":"a.b"}'
    config = DecodeConfig(max_event_bytes=len(body), max_headers=2, max_header_bytes=8)
    event_of(body, [("é", b"12"), ("abc", b"1")], config=config)
    assert refusal_of(body + b" ", config=config).reason is Reason.TOO_LARGE
    too_many = [("a", b"")] * 3
    assert refusal_of(body, too_many, config=config).reason is Reason.TOO_MANY_HEADERS
    too_long = [("éé", b"12"), ("abc", None)]  # 4 + 2 + 3 bytes, though 7 characters
    assert refusal_of(body, too_long, config=config).reason is Reason.TOO_MANY_HEADERS


def test_a_refused_id_says_what_stands_there_and_what_is_allowed() -> None:
    detail = refusal_of({"type": "a.b", "id": "evt_1.2"}).detail
    assert "'evt_1.2'" in detail
    assert "1-256 characters" in detail
    assert "no dot" in detail


def test_the_cache_of_types_is_bounded() -> None:
    decoder = Decoder(DecodeConfig())
    for number in range(10_001):
        decoder.decode(claim(), number, b'{"type":"a%d","id":"i"}' % number, (), 0)
    assert len(decoder._types) <= 10_000


# --- anything at all -----------------------------------------------------------------------

_keys = st.sampled_from(
    ["type", "event_type", "event", "id", "timestamp", "time", "version", "specversion", "data"]
)
_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.from_regex(r"[a-z_.:]{1,10}", fullmatch=True),
    lambda inner: st.lists(inner) | st.dictionaries(_keys | st.text(), inner),
    max_leaves=8,
)
_bodies = st.one_of(
    st.none(),
    st.binary(),
    st.dictionaries(_keys, _json).map(orjson.dumps),
    _json.map(orjson.dumps),
)
_names = st.sampled_from(
    [
        "webhook-type",
        "Webhook-Id",
        "webhook-version",
        "webhook-tenant",
        "ce_type",
        "ce_id",
        "ce_time",
    ]
) | st.text(st.characters())
_headers = st.lists(
    st.tuples(_names, st.none() | st.binary() | st.from_regex(rb"[a-z.]{0,8}", fullmatch=True)),
    max_size=6,
)


@given(value=_bodies, headers=_headers, timestamp_ms=st.integers())
def test_any_record_is_an_event_within_the_rules_or_refused(
    value: bytes | None, headers: Headers, timestamp_ms: int
) -> None:
    decoded = attempt(value, headers, timestamp_ms)
    if isinstance(decoded, Refused):
        assert_fit_for_a_row(decoded)
        return
    event, document = decoded
    assert event.body is value
    assert document == orjson.loads(event.body)
    assert re.fullmatch(r"[A-Za-z0-9_:@/+=~-]{1,256}", event.id)
    assert re.fullmatch(r"[A-Za-z0-9_.:/-]{1,128}", event.type)
    assert re.fullmatch(r"[A-Za-z0-9_.-]{1,32}", event.version)
    assert re.fullmatch(r"[ -~]{1,64}", event.timestamp)
    assert event.headers == tuple((name, content or b"") for name, content in headers)
    assert_its_shape_is_true(event, document)


def assert_its_shape_is_true(event: Event, document: dict[str, Any]) -> None:
    """A batch's member must carry the event's own id and type, whichever way it is put in."""
    own_types = [document.get(key) for key in ("type", "event_type", "event")]
    if event.shape is not Shape.WRAP:
        assert next(kind for kind in own_types if kind is not None) == event.type
    if event.shape is Shape.WHOLE:
        assert document["id"] == event.id
    if event.shape is Shape.SPLICE:
        assert "id" not in document


def assert_fit_for_a_row(refused: Refused) -> None:
    assert 0 < len(refused.detail) <= 300
    assert refused.detail.isprintable()
    refused.detail.encode()
