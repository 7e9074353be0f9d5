"""Batches: every published body stands in the array unharmed, and the id is of the members."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcherd.batch import batch_id, encode, failed_members, greatest_version, member
from dispatcherd.config.model import DecodeConfig
from dispatcherd.decode import Decoder
from dispatcherd.delivery import Claim, Event, Refused, Shape
from tests.unit.nouns import CLAIM, make_event

_space = st.text(" \t\r\n", max_size=4).map(str.encode)
_scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"])),
)  # fmt: skip
_values = st.recursive(
    _scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=10,
)


def spaced(draw: st.DrawFn, value: Any) -> bytes:
    """JSON of a value with white space wherever the grammar allows it, escaped now and then."""
    if isinstance(value, dict):
        inside = b",".join(
            draw(_space) + dumped(draw, k) + draw(_space) + b":" + spaced(draw, v)
            for k, v in value.items()
        )
        return draw(_space) + b"{" + inside + draw(_space) + b"}" + draw(_space)
    if isinstance(value, list):
        inside = b",".join(spaced(draw, v) for v in value)
        return draw(_space) + b"[" + inside + draw(_space) + b"]" + draw(_space)
    return draw(_space) + dumped(draw, value) + draw(_space)


def dumped(draw: st.DrawFn, value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=draw(st.booleans())).encode()


@st.composite
def published(draw: st.DrawFn) -> bytes:
    """The body of some record: an envelope with or without an id, or plain data."""
    document = draw(st.dictionaries(st.text(max_size=8), _values, max_size=4))
    document |= draw(
        st.sampled_from(
            [{}, {"type": "order.created"}, {"type": "order.created", "id": "evt_own"},
             {"event": "order.created", "id": None}]
        )
    )  # fmt: skip
    return spaced(draw, document)


def decoded(body: bytes, offset: int, with_header: bool) -> Event:
    headers = [("webhook-type", b"order.created")] if with_header else []
    found = Decoder(DecodeConfig()).decode(CLAIM, offset, body, headers, 1_767_225_600_000)
    assert not isinstance(found, Refused), found
    return found[0]


# --- members -------------------------------------------------------------------------------


@given(bodies=st.lists(published(), min_size=1, max_size=5))
def test_the_array_holds_every_body_as_it_was_published(bodies: list[bytes]) -> None:
    events = []
    for offset, body in enumerate(bodies):
        own_type = any(json.loads(body).get(k) == "order.created" for k in ("type", "event"))
        events.append(decoded(body, offset, with_header=not own_type))
    array = encode(events)
    members = json.loads(array)
    assert orjson.loads(array) is not None
    assert len(members) == len(events)
    for event, found in zip(events, members, strict=True):
        document = json.loads(event.body)
        assert event.body.strip(b" \t\r\n")[1:].lstrip(b" \t\r\n") in array
        assert found["id"] == event.id
        if event.shape is Shape.WHOLE:
            assert found == document
        elif event.shape is Shape.SPLICE:
            assert found == {"id": event.id, **document}
        else:
            assert found == {
                "id": event.id,
                "type": event.type,
                "version": event.version,
                "timestamp": event.timestamp,
                "data": document,
            }


@pytest.mark.parametrize(
    ("shape", "body", "expected"),
    [
        (Shape.WHOLE, b'  {"id":"e"}\r\n', b'{"id":"e"}'),
        (Shape.SPLICE, b'{"type":"t"}', b'{"id":"e","type":"t"}'),
        (Shape.SPLICE, b'\n{ \t"type":"t" }\n', b'{"id":"e","type":"t" }'),
        (Shape.SPLICE, b"{}", b'{"id":"e"}'),
        (Shape.SPLICE, b" {\r\n\t } ", b'{"id":"e"}'),
        (Shape.SPLICE, b'{"a":"}"}', b'{"id":"e","a":"}"}'),
    ],
)
def test_an_id_is_spliced_in_and_nothing_else_is_touched(
    shape: Shape, body: bytes, expected: bytes
) -> None:
    assert member(make_event(1, body, "e", shape=shape)) == expected


@pytest.mark.parametrize("body", [b"{}", b' {"id":"x"} ', b'{"a":[1,2]}'])
def test_data_is_wrapped_in_an_envelope_that_carries_its_id(body: bytes) -> None:
    event = make_event(1, body, "e", shape=Shape.WRAP)
    event.timestamp = 'a "quoted" \\ time'
    assert json.loads(member(event)) == {
        "id": "e",
        "type": "order.created",
        "version": "1",
        "timestamp": 'a "quoted" \\ time',
        "data": json.loads(body),
    }


@pytest.mark.parametrize("shape", list(Shape))
@pytest.mark.parametrize(
    "text",
    [
        r'"\ud83d\ude00"',  # a pair of escapes
        '"😀 é \u2028 \x7f"',
        r'"\u0000 \/ \b \" \\"',
        "123456789012345678901234567890.10e-5",
        '"' + "x" * 100_000 + '"',
    ],
)
def test_a_body_is_not_written_anew(shape: Shape, text: str) -> None:
    body = ('{"type":"t","a":' + text + "}").encode()
    made = member(make_event(1, body, shape=shape))
    assert body[1:] in made
    json.loads(made)


def test_a_batch_of_one_is_an_array_too() -> None:
    assert encode([make_event(1, b'{"id":"e"}')]) == b'[{"id":"e"}]'


# --- the batch's id ------------------------------------------------------------------------

OTHER_TOPIC = Claim("users", 2, 0, 1, b"k" * 16)
OTHER_PARTITION = Claim("orders", 1, 1, 1, b"k" * 16)
LATER_CLAIM = Claim("orders", 1, 0, 9, b"k" * 16)


@given(offsets=st.sets(st.integers(0, 2**60), min_size=1, max_size=30), seed=st.integers(0, 99))
def test_the_same_members_in_any_order_have_the_same_id(offsets: set[int], seed: int) -> None:
    events = [make_event(offset) for offset in offsets]
    found = batch_id(events)
    random.Random(seed).shuffle(events)
    assert batch_id(events) == found
    assert batch_id([make_event(offset, claim=LATER_CLAIM) for offset in offsets]) == found
    assert re.fullmatch("batch_[a-z2-7]{26}", found)


_groups = st.sets(
    st.tuples(
        st.sampled_from([CLAIM, OTHER_TOPIC, OTHER_PARTITION]),
        st.integers(0, 40),
        st.sampled_from(["a", "b", "a, 1"]),
    ),
    min_size=1,
    max_size=8,
)


@given(first=_groups, second=_groups)
def test_another_grouping_has_another_id(
    first: set[tuple[Claim, int, str]], second: set[tuple[Claim, int, str]]
) -> None:
    def name(group: set[tuple[Claim, int, str]]) -> str:
        return batch_id([make_event(offset, id_=id_, claim=claim) for claim, offset, id_ in group])

    assert (name(first) == name(second)) == (first == second)


def test_a_batch_has_another_id_than_its_parts() -> None:
    events = [make_event(offset) for offset in range(4)]
    names = [batch_id(events[low:high]) for low in range(4) for high in range(low + 1, 5)]
    assert len(set(names)) == 10


def test_an_answer_without_a_list_of_failures_means_that_all_went_well() -> None:
    for answer in (
        b"",
        b"ok",
        b'{"a":1}',
        b'{"batchItemFailures":[]}',
        b'{"batchItemFailures":null}',
    ):
        assert failed_members(answer) == frozenset()


def test_a_list_of_failures_names_the_members_that_are_sent_again() -> None:
    answer = b'{"batchItemFailures": [{"itemIdentifier": "e1"}, {"itemIdentifier": "e2"}]}'
    assert failed_members(answer) == {"e1", "e2"}


def test_a_list_of_failures_that_cannot_be_read_means_that_all_are_sent_again() -> None:
    whole = b'{"batchItemFailures": [{"itemIdentifier": "e1"}]}'
    for answer in (whole[:-3], b'{"batchItemFailures": [{}]}', b'{"batchItemFailures": 5}'):
        assert failed_members(answer) is None


@pytest.mark.parametrize(
    ("versions", "greatest"),
    [
        (["9", "10"], "10"),
        (["2", "2"], "2"),
        (["2026-01-31", "2025-12-31"], "2026-01-31"),
        (["1.9.3", "1.10.0", "1.2"], "1.10.0"),
        (["v2", "v10"], "v10"),
        (["1", "1.0"], "1.0"),
    ],
)
def test_the_header_names_the_greatest_version_of_the_members(
    versions: list[str], greatest: str
) -> None:
    events = [make_event(number) for number in range(len(versions))]
    for event, version in zip(events, versions, strict=True):
        event.version = version
    assert greatest_version(events) == greatest_version(reversed(events)) == greatest
