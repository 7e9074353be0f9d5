"""Records that try to stop a partition, and what must become of each.

Under the default `DecodeConfig`. `delivered` means: an event whose body is these bytes. To bring
them all into Kafka the producer and the topic must admit 2 MiB (`max_request_size`,
`max.message.bytes`). Every record that is delivered names its type as in `DELIVERED_TYPES`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dispatcherd.delivery import Reason

MEBIBYTE = 1_048_576


@dataclass(frozen=True)
class BadRecord:
    """A Kafka record, and `delivered` or the reason of its quarantine."""

    name: str
    value: bytes | None
    expected: Literal["delivered"] | Reason
    headers: tuple[tuple[str, bytes | None], ...] = ()
    key: bytes | None = None


def _order(fields: bytes) -> bytes:
    return b'{"type":"order.created",' + fields + b"}"


_PLAIN = b'{"type":"order.created","data":{}}'
_DATA = b'{"amount":1}'

BAD_RECORDS: tuple[BadRecord, ...] = (
    # the value
    BadRecord("null value", None, Reason.NO_VALUE, key=b"k"),
    BadRecord("null value, typed by a header", None, Reason.NO_VALUE, (("webhook-type", b"a.b"),)),
    BadRecord("empty", b"", Reason.EMPTY),
    BadRecord("only spaces", b"   ", Reason.NOT_JSON),
    BadRecord("random bytes", bytes(range(128, 256)), Reason.NOT_UTF8),
    BadRecord("latin-1 in a string", _order(b'"name":"caf\xe9"'), Reason.NOT_UTF8),
    BadRecord("utf-16", '{"type":"a.b"}'.encode("utf-16"), Reason.NOT_UTF8),
    BadRecord("utf-16 without a mark", '{"type":"a.b"}'.encode("utf-16-le"), Reason.NOT_JSON),
    BadRecord("byte order mark", b"\xef\xbb\xbf" + _PLAIN, Reason.NOT_JSON),
    BadRecord("overlong slash", _order(b'"p":"\xc0\xaf"'), Reason.NOT_UTF8),
    BadRecord("lone surrogate, escaped", _order(b'"s":"\\ud800"'), Reason.NOT_JSON),
    BadRecord("lone surrogate, raw", _order(b'"s":"\xed\xa0\x80"'), Reason.NOT_UTF8),
    BadRecord("surrogate pair, escaped", _order(b'"s":"\\ud83d\\ude00"'), "delivered"),
    BadRecord("NUL, escaped", _order(b'"s":"a\\u0000b"'), "delivered"),
    BadRecord("NUL in a key, escaped", _order(b'"a\\u0000b":1'), "delivered"),
    BadRecord("NUL, raw", _order(b'"s":"a\x00b"'), Reason.NOT_JSON),
    BadRecord("NUL after the end", _PLAIN + b"\x00", Reason.NOT_JSON),
    BadRecord("not JSON", b"order.created", Reason.NOT_JSON),
    BadRecord("cut off", _PLAIN[:-1], Reason.NOT_JSON),
    BadRecord("two documents", _PLAIN + _PLAIN, Reason.NOT_JSON),
    BadRecord("single quotes", b"{'type':'order.created'}", Reason.NOT_JSON),
    BadRecord("trailing comma", b'{"type":"order.created",}', Reason.NOT_JSON),
    BadRecord("Avro with a schema id", b"\x00\x00\x00\x00\x07\x0eorder.c\x02", Reason.NOT_JSON),
    BadRecord("an array", b"[" + _PLAIN + b"]", Reason.NOT_AN_OBJECT),
    BadRecord("a string", b'"order.created"', Reason.NOT_AN_OBJECT),
    BadRecord("a number", b"1", Reason.NOT_AN_OBJECT),
    BadRecord("null in JSON", b"null", Reason.NOT_AN_OBJECT),
    BadRecord("a boolean", b"true", Reason.NOT_AN_OBJECT),
    BadRecord("1,000 arrays deep, bare", b"[" * 1_000 + b"]" * 1_000, Reason.NOT_AN_OBJECT),
    BadRecord(
        "10,000 levels deep", _order(b'"d":' + b"[" * 10_000 + b"]" * 10_000), Reason.NOT_JSON
    ),
    BadRecord("10,000 levels deep, not closed", b'{"a":' * 10_000, Reason.NOT_JSON),
    BadRecord("1,000 levels deep", _order(b'"d":' + b"[" * 1_000 + b"]" * 1_000), "delivered"),
    BadRecord("NaN", _order(b'"n":NaN'), Reason.NOT_JSON),
    BadRecord("Infinity", _order(b'"n":-Infinity'), Reason.NOT_JSON),
    BadRecord("a number of 400 digits", _order(b'"n":' + b"9" * 400), Reason.NOT_JSON),
    BadRecord("1e400", _order(b'"n":1e400'), Reason.NOT_JSON),
    BadRecord("a number beyond 64 bits", _order(b'"n":18446744073709551617'), "delivered"),
    BadRecord("400 digits after the point", _order(b'"n":0.' + b"1" * 400), "delivered"),
    BadRecord("a duplicate key", _order(b'"a":1,"a":2'), "delivered"),
    BadRecord("a duplicate type", _order(b'"type":"order.paid"'), "delivered"),
    BadRecord("spaces before and after", b" \r\n\t" + _PLAIN + b" \n", "delivered"),
    BadRecord("larger than the cap", _order(b'"s":"' + b"x" * MEBIBYTE + b'"'), Reason.TOO_LARGE),
    # the type
    BadRecord("an empty object", b"{}", Reason.NO_TYPE),
    BadRecord("no type", b'{"data":{"type":"order.created"}}', Reason.NO_TYPE),
    BadRecord("a null type", b'{"type":null}', Reason.NO_TYPE),
    BadRecord("an empty type", b'{"type":""}', Reason.INVALID_TYPE),
    BadRecord("a type with spaces", b'{"type":"order created"}', Reason.INVALID_TYPE),
    BadRecord(
        "a type of 10,000 characters", b'{"type":"' + b"a" * 10_000 + b'"}', Reason.INVALID_TYPE
    ),
    BadRecord(
        "a type with a newline at its end", b'{"type":"order.created\\n"}', Reason.INVALID_TYPE
    ),
    BadRecord("a type with NUL", b'{"type":"order\\u0000created"}', Reason.INVALID_TYPE),
    BadRecord("a type with a star", b'{"type":"order.*"}', Reason.INVALID_TYPE),
    BadRecord("a type in Arabic digits", '{"type":"٣"}'.encode(), Reason.INVALID_TYPE),
    BadRecord("a type that is a number", b'{"type":1}', Reason.INVALID_TYPE),
    BadRecord("a type that is an object", b'{"event":{"type":"a"}}', Reason.INVALID_TYPE),
    BadRecord(
        "a type that is deep", b'{"type":' + b"[" * 1_000 + b"]" * 1_000 + b"}", Reason.INVALID_TYPE
    ),
    # the id
    BadRecord("an id with a dot", _order(b'"id":"evt_1.2"'), Reason.INVALID_ID),
    BadRecord("an id of 1 MB", _order(b'"id":"' + b"x" * 1_000_000 + b'"'), Reason.INVALID_ID),
    BadRecord("an id of 257 characters", _order(b'"id":"' + b"x" * 257 + b'"'), Reason.INVALID_ID),
    BadRecord("an id of 256 characters", _order(b'"id":"' + b"x" * 256 + b'"'), "delivered"),
    BadRecord("an empty id", _order(b'"id":""'), Reason.INVALID_ID),
    BadRecord("an id that is a number", _order(b'"id":5'), Reason.INVALID_ID),
    BadRecord("an id that is an object", _order(b'"id":{"a":1}'), Reason.INVALID_ID),
    BadRecord("an id with CR and LF", _order(b'"id":"a\\r\\nx-evil: 1"'), Reason.INVALID_ID),
    BadRecord("an id that is not ASCII", _order('"id":"naïve"'.encode()), Reason.INVALID_ID),
    BadRecord("a null id", _order(b'"id":null'), "delivered"),
    BadRecord("an id", _order(b'"id":"evt_same"'), "delivered"),
    BadRecord("the same id as another's", _order(b'"id":"evt_same","n":2'), "delivered"),
    # the version and the time
    BadRecord("a version with spaces", _order(b'"version":"1 2"'), Reason.INVALID_VERSION),
    BadRecord("a long version", _order(b'"version":"' + b"1" * 33 + b'"'), Reason.INVALID_VERSION),
    BadRecord("an empty version", _order(b'"version":""'), Reason.INVALID_VERSION),
    BadRecord("a version that is an object", _order(b'"version":{}'), "delivered"),
    BadRecord("the year 99999", _order(b'"timestamp":"99999-01-01T00:00:00Z"'), "delivered"),
    BadRecord("a timestamp of 1e308", _order(b'"timestamp":1e308'), "delivered"),
    BadRecord("a timestamp of 70 digits", _order(b'"timestamp":' + b"9" * 70), "delivered"),
    BadRecord("a version of 70 digits", _order(b'"version":' + b"9" * 70), "delivered"),
    BadRecord("an id of 70 digits", _order(b'"id":' + b"9" * 70), Reason.INVALID_ID),
    BadRecord(
        "a timestamp with CR, LF and NUL", _order(b'"timestamp":"\\r\\n\\u0000"'), "delivered"
    ),
    BadRecord(
        "a timestamp of 100,000 characters",
        _order(b'"timestamp":"' + b"9" * 100_000 + b'"'),
        "delivered",
    ),
    BadRecord("a timestamp that is an array", _order(b'"timestamp":[2026]'), "delivered"),
    # the headers
    BadRecord("a header with CR and LF", _PLAIN, "delivered", (("x-a", b"1\r\nx-evil: 1"),)),
    BadRecord("a header's name with CR and LF", _PLAIN, "delivered", (("x-a\r\nb", b"1"),)),
    BadRecord("a header's name with NUL", _PLAIN, "delivered", (("x\x00", b"\x00"),)),
    BadRecord("a header without a name", _PLAIN, "delivered", (("", b"1"),)),
    BadRecord("a header of null", _PLAIN, "delivered", (("webhook-type", None), ("x", None))),
    BadRecord("headers that are not ASCII", _PLAIN, "delivered", (("x-é", "ü".encode()),)),
    BadRecord("a header that is not UTF-8", _PLAIN, "delivered", (("x-a", b"\xff\xfe"),)),
    BadRecord("a tenant that is none", _PLAIN, "delivered", (("webhook-tenant", b"\xff \n"),)),
    BadRecord("5,000 headers", _PLAIN, Reason.TOO_MANY_HEADERS, (("x", b""),) * 5_000),
    BadRecord("100 KB of headers", _PLAIN, Reason.TOO_MANY_HEADERS, (("x", b"y" * 100_000),)),
    BadRecord("a header's name of 20 KB", _PLAIN, Reason.TOO_MANY_HEADERS, (("x" * 20_000, b""),)),
    BadRecord(
        "a type header with CR and LF", _DATA, Reason.INVALID_TYPE, (("webhook-type", b"a\r\nb"),)
    ),
    BadRecord(
        "a type header that is not UTF-8", _DATA, Reason.INVALID_TYPE, (("ce_type", b"\xff"),)
    ),
    BadRecord("an empty type header", _PLAIN, Reason.INVALID_TYPE, (("webhook-type", b""),)),
    BadRecord("an id header with a dot", _PLAIN, Reason.INVALID_ID, (("ce_id", b"a.b"),)),
    BadRecord("an id header with LF", _PLAIN, Reason.INVALID_ID, (("webhook-id", b"a\n"),)),
    BadRecord(
        "a version header with LF", _PLAIN, Reason.INVALID_VERSION, (("webhook-version", b"1\n"),)
    ),
    # keys are not read
    BadRecord("a key that is not UTF-8", _PLAIN, "delivered", key=b"\xff\x00\r\n"),
    BadRecord("a key of 100,000 bytes", _PLAIN, "delivered", key=b"k" * 100_000),
)

DELIVERED_TYPES = frozenset({"order.created", "order.paid"})
