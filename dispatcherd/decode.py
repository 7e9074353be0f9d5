"""From a Kafka record to an event, or to the reason why it is none.

The shapes, freely mixed in one topic:

- envelope: the body holds the type under `type`, `event_type` or `event`, and perhaps `id`,
  `timestamp` and `version`;
- CloudEvents structured: the body has `specversion`; as above, with `time` for the timestamp
  (and the extension attribute `version`, for CloudEvents has no such thing of its own);
- CloudEvents binary (`ce_type`, `ce_id`, `ce_time`, `ce_version`) and plain headers
  (`webhook-type`, `webhook-id`, `webhook-version`, as configured): the body is the data.

Plain headers win over CloudEvents headers, and those over the body. A body is read as an envelope
only when its own type is the event's: where a header gives another type, the body is data, and an
`id` in it names the producer's object and not this event (two events about one order would
otherwise share a `webhook-id`, and a receiver that drops duplicates would lose the second).
Of several headers of one name the last one counts, as in Kafka's own `Headers.lastHeader`.

Invariant: for any bytes at all the answer is an Event whose body is the record's value itself, or
a Refused; nothing raises. Leaves out: which types are known (the catalogue) and who wants the
event (route).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from struct import Struct
from typing import Any, Final

import orjson

from dispatcherd.config.model import DecodeConfig
from dispatcherd.delivery import Claim, Event, Headers, Reason, Refused, Shape

TENANT_HEADER: Final = "webhook-tenant"
"""Names an event's tenant, by the rule of an endpoint's `tenant`: 1–64 of `[A-Za-z0-9_.-]`, the
first a letter or a digit. Anything else is no tenant: only endpoints of no tenant get the event."""

_is_id: Final = re.compile(r"[A-Za-z0-9_:@/+=~-]{1,256}").fullmatch
_is_type: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,128}").fullmatch
_is_version: Final = re.compile(r"[A-Za-z0-9_.-]{1,32}").fullmatch
_is_tenant: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}").fullmatch

# Standard Webhooks signs `id.timestamp.body`: a dot in the id would make that ambiguous.
_ID_RULE: Final = "1-256 characters of A-Z a-z 0-9 _ : @ / + = ~ - (no dot)"
_TYPE_RULE: Final = "1-128 characters of A-Z a-z 0-9 _ . : / -"
_VERSION_RULE: Final = "1-32 characters of A-Z a-z 0-9 _ . -"

_DETAIL_CHARACTERS: Final = 300
_TIMESTAMP_CHARACTERS: Final = 64
_LAST_SECOND: Final = 253_402_300_799
"""Of the year 9999, the last one that RFC 3339 can write."""
_ERA_STARTS: Final = "1970-01-01T00:00:00.000Z"
_CACHED_TYPES: Final = 10_000
_CACHED_KEYS: Final = 1_000
# Looking up a member of an enum costs Python 3.11 70 ns each time.
_WHOLE: Final = Shape.WHOLE
_SPLICE: Final = Shape.SPLICE
_WRAP: Final = Shape.WRAP

_Said = tuple[str | None, str | None, str | None, str | None, str | None, Headers]
"""What the headers say, None for nothing: type, id, version, time, tenant; then they themselves."""

_SAID_NOTHING: Final[_Said] = (None, None, None, None, None, ())


class _NoEvent(Exception):
    """Ends the decoding of one record; never leaves this module."""

    def __init__(self, reason: Reason, detail: str) -> None:
        self.refused = Refused(reason, detail[:_DETAIL_CHARACTERS])


class Decoder:
    """Decodes the records of every topic; what it keeps between records is bounded caches."""

    def __init__(self, config: DecodeConfig) -> None:
        self._max_bytes = config.max_event_bytes
        self._max_headers = config.max_headers
        self._max_header_bytes = config.max_header_bytes
        self._default_version = config.default_version
        self._type_header = config.type_header
        self._slots = {
            "ce_type": "ce_type",
            "ce_id": "ce_id",
            "ce_version": "ce_version",
            "ce_time": "time",
            TENANT_HEADER: "tenant",
            config.type_header.lower(): "type",
            config.id_header.lower(): "id",
            config.version_header.lower(): "version",
        }
        self._types: dict[str, str] = {}
        self._derive = IdDeriver()
        self._millisecond = self._second = 0
        self._millisecond_text, self._second_text = _ERA_STARTS, _ERA_STARTS[:19]

    def decode(
        self,
        claim: Claim,
        offset: int,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]],
        timestamp_ms: int,
    ) -> tuple[Event, Any] | Refused:
        """The event and its parsed body, or why the record is none. Never raises.

        `timestamp_ms` is the record's own, in milliseconds of the Unix era: it stands in where the
        producer gave no usable time (1 to 64 printable ASCII characters, or a number), clamped to
        the years 1970 to 9999.
        """
        try:
            if not value or len(value) > self._max_bytes:
                raise self._no_body(value)
            said = self._read_headers(headers) if headers else _SAID_NOTHING
            document = orjson.loads(value)
            if type(document) is not dict:
                raise _not_an_object(document)
            return self._event(claim, offset, value, said, document, timestamp_ms), document
        except _NoEvent as no_event:
            return no_event.refused
        except orjson.JSONDecodeError as error:
            return _not_json(value or b"", error).refused

    def _event(
        self,
        claim: Claim,
        offset: int,
        value: bytes,
        said: _Said,
        document: dict[str, Any],
        timestamp_ms: int,
    ) -> Event:
        type_, header_id, said_version, said_time, tenant, headers = said
        own_type = document.get("type")
        if own_type is None:
            own_type = document.get("event_type")
            if own_type is None:
                own_type = document.get("event")
        given: Any = own_type if type_ is None else type_
        known = self._types.get(given) if type(given) is str else None
        if known is None:
            known = self._new_type(given)
        envelope = document if own_type == known else {}
        id_ = envelope.get("id")
        if header_id is None and type(id_) is str and _is_id(id_):
            shape = _WHOLE
        else:
            id_, shape = self._identity(claim, offset, header_id, envelope)
        given = envelope.get("version") if said_version is None else said_version
        version = self._default_version if given is None else self._version(given)
        given = said_time
        if given is None:
            given = envelope.get("time" if "specversion" in envelope else "timestamp")
        time = self._time(given, timestamp_ms)
        return Event(claim, offset, id_, known, version, time, value, headers, shape, tenant)

    def _no_body(self, value: bytes | None) -> _NoEvent:
        if value is None:
            return _NoEvent(Reason.NO_VALUE, "the value is null; it must be a JSON object")
        if not value:
            return _NoEvent(Reason.EMPTY, "the value has 0 bytes; it must be a JSON object")
        return _NoEvent(
            Reason.TOO_LARGE,
            f"the value has {len(value)} bytes; decode.max_event_bytes allows {self._max_bytes}",
        )

    def _read_headers(self, headers: Sequence[tuple[str, bytes | None]]) -> _Said:
        if len(headers) > self._max_headers:
            raise _NoEvent(
                Reason.TOO_MANY_HEADERS,
                f"{len(headers)} headers; decode.max_headers allows {self._max_headers}",
            )
        kept = tuple([(name, content or b"") for name, content in headers])
        size = 0
        found: dict[str, str] = {}
        for name, content in headers:
            size += len(name) if name.isascii() else len(name.encode("utf-8", "surrogatepass"))
            if content is not None:
                size += len(content)
                slot = self._slots.get(name.lower())
                if slot is not None:
                    # A replaced byte is no character that any rule allows.
                    found[slot] = content.decode("utf-8", "replace")
        if size > self._max_header_bytes:
            raise _NoEvent(
                Reason.TOO_MANY_HEADERS,
                f"{size} bytes of headers; decode.max_header_bytes allows {self._max_header_bytes}",
            )
        if not found:
            return None, None, None, None, None, kept
        get = found.get
        tenant = get("tenant")
        if tenant is not None and not _is_tenant(tenant):
            tenant = None
        type_, id_ = get("type", get("ce_type")), get("id", get("ce_id"))
        return type_, id_, get("version", get("ce_version")), get("time"), tenant, kept

    def _new_type(self, given: Any) -> str:
        if given is None:
            raise _NoEvent(
                Reason.NO_TYPE,
                "no type: none of type, event_type and event in the body, nor a header "
                f"{self._type_header[:64]!r} or 'ce_type'",
            )
        if type(given) is not str or not _is_type(given):
            raise _NoEvent(
                Reason.INVALID_TYPE, f"the type is {_found(given)}; allowed: {_TYPE_RULE}"
            )
        if len(self._types) >= _CACHED_TYPES:
            self._types.clear()
        self._types[given] = given
        return given

    def _identity(
        self, claim: Claim, offset: int, header_id: str | None, envelope: dict[str, Any]
    ) -> tuple[str, Shape]:
        """The event's id, and how its body stands in a batch; `envelope` is empty for data."""
        own = envelope.get("id")
        given = own if header_id is None else header_id
        if given is None:
            # With `"id": null` in it, an id spliced in front would be overridden by the null.
            splice = envelope and "id" not in envelope
            return self._derive(claim, offset), _SPLICE if splice else _WRAP
        if type(given) is not str or not _is_id(given):
            raise _NoEvent(Reason.INVALID_ID, f"the id is {_found(given)}; allowed: {_ID_RULE}")
        return given, _WHOLE if own == given else _WRAP

    def _version(self, given: Any) -> str:
        """A string or an integer; anything else of JSON is taken for no version."""
        if type(given) is int:
            return str(given)
        if type(given) is not str:
            return self._default_version
        if not _is_version(given):
            raise _NoEvent(
                Reason.INVALID_VERSION, f"the version is {_found(given)}; allowed: {_VERSION_RULE}"
            )
        return given

    def _time(self, given: Any, timestamp_ms: int) -> str:
        """The producer's time as text, or the record's own if it is none to carry everywhere."""
        if type(given) is str:
            if 0 < len(given) <= _TIMESTAMP_CHARACTERS and given.isascii() and given.isprintable():
                return given
        elif type(given) is int or type(given) is float:
            return str(given)
        return self._record_time(timestamp_ms)

    def _record_time(self, timestamp_ms: int) -> str:
        if timestamp_ms == self._millisecond:
            return self._millisecond_text
        second, millisecond = divmod(timestamp_ms, 1000)
        if second < 0:
            return _ERA_STARTS
        if second > _LAST_SECOND:
            return "9999-12-31T23:59:59.999Z"
        if second != self._second:
            self._second_text = datetime.fromtimestamp(second, UTC).isoformat()[:19]
            self._second = second
        self._millisecond_text = f"{self._second_text}.{millisecond:03d}Z"
        self._millisecond = timestamp_ms
        return self._millisecond_text


def data_of(event: Event, document: dict[str, Any]) -> Any:
    """The data of an event that decoded from this document: what an envelope has under `data`
    (None without one), or the whole of a body that is no envelope."""
    own_type = document.get("type")
    if own_type is None:
        own_type = document.get("event_type")
        if own_type is None:
            own_type = document.get("event")
    return document.get("data") if own_type == event.type else document


class IdDeriver:
    """Makes the id of an event that was published without one.

    `evt_` and 26 characters of lowercase base32 (RFC 4648, no padding): the 16-byte BLAKE2b of the
    big-endian partition (4 bytes) and offset (8 bytes), keyed with the topic incarnation's key. So
    the same record has the same id after a restart, and a topic created anew has other ids.
    """

    def __init__(self) -> None:
        self._keyed: dict[bytes, blake2b] = {}

    def __call__(self, claim: Claim, offset: int) -> str:
        keyed = self._keyed.get(claim.id_key)
        if keyed is None:
            if len(self._keyed) >= _CACHED_KEYS:
                self._keyed.clear()
            keyed = self._keyed[claim.id_key] = blake2b(key=claim.id_key, digest_size=16)
        digest = keyed.copy()
        digest.update(_position(claim.partition, offset))
        return "evt_" + _base32(digest.digest())


_position: Final = Struct(">iq").pack
_halves: Final = Struct(">QQ").unpack
_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS: Final = [first + second for first in _ALPHABET for second in _ALPHABET]


def _base32(digest: bytes) -> str:
    """26 characters for 16 bytes, ten bits at a time: a third of base64.b32encode's time."""
    (high, low), pairs = _halves(digest), _PAIRS
    return "".join(
        (
            pairs[high >> 54],
            pairs[high >> 44 & 1023],
            pairs[high >> 34 & 1023],
            pairs[high >> 24 & 1023],
            pairs[high >> 14 & 1023],
            pairs[high >> 4 & 1023],
            pairs[(high & 15) << 6 | low >> 58],
            pairs[low >> 48 & 1023],
            pairs[low >> 38 & 1023],
            pairs[low >> 28 & 1023],
            pairs[low >> 18 & 1023],
            pairs[low >> 8 & 1023],
            pairs[(low & 255) << 2],
        )
    )


def _not_json(value: bytes, error: orjson.JSONDecodeError) -> _NoEvent:
    try:
        value.decode()
    except UnicodeDecodeError as fault:
        return _NoEvent(
            Reason.NOT_UTF8,
            f"byte {fault.start} of the body is 0x{value[fault.start]:02x}: {fault.reason}; "
            "it must be a JSON object in UTF-8",
        )
    return _NoEvent(
        Reason.NOT_JSON,
        f"the body starts {_cut(value[:80].decode('utf-8', 'replace'))} and is not JSON: {error}",
    )


def _not_an_object(document: Any) -> _NoEvent:
    found = _found(document)
    return _NoEvent(Reason.NOT_AN_OBJECT, f"the body is {found}; it must be a JSON object")


def _found(value: Any) -> str:
    """What stands there, in a few words. Nested values are named only: their repr may recurse."""
    if type(value) is str:
        return f"{_cut(value)} ({len(value)} characters)"
    if type(value) is list:
        return "an array"
    if type(value) is dict:
        return "an object"
    return orjson.dumps(value).decode()


def _cut(text: str) -> str:
    return repr(text[:40])[:80] + ("…" if len(text) > 40 else "")
