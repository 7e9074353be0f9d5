"""Batches: a JSON array of events as they were published, each with its id.

Invariant: a published body stands in the array byte for byte (but for an id spliced in after its
first brace, and for white space around it); the batch id depends on the members alone, so that the
same batch tried again has the same id. Leaves out: which deliveries make a batch (lane).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Final

import orjson

from dispatcherd.delivery import Event, Shape

_SPACE: Final = b" \t\r\n"
_DIGITS_OR_NOT: Final = re.compile(r"([0-9]+)|([^0-9]+)")


def member(event: Event) -> bytes:
    """The event as it stands in the array; see `Shape` for the three forms."""
    body = event.body.strip(_SPACE)
    if event.shape is Shape.WHOLE:
        return body
    if event.shape is Shape.SPLICE:
        rest = body[1:].lstrip(_SPACE)
        comma = b"" if rest == b"}" else b","
        return b'{"id":"' + event.id.encode() + b'"' + comma + rest
    head = orjson.dumps(
        {
            "id": event.id,
            "type": event.type,
            "version": event.version,
            "timestamp": event.timestamp,
        }
    )
    return head[:-1] + b',"data":' + body + b"}"


def encode(events: Iterable[Event]) -> bytes:
    """The array."""
    return b"[" + b",".join([member(event) for event in events]) + b"]"


def batch_id(events: Sequence[Event]) -> str:
    """`batch_` and 26 characters, from the members' positions and ids in any order."""
    keys = [(e.claim.topic_id, e.claim.partition, e.offset, e.id) for e in events]
    keys.sort()
    digest = hashlib.blake2b(repr(keys).encode(), digest_size=16)
    return "batch_" + base64.b32encode(digest.digest()).decode("ascii").rstrip("=").lower()


def greatest_version(events: Iterable[Event]) -> str:
    """The version that stands in the request's header: the members' greatest. Numbers in it compare
    as numbers (10 is above 9), so that dates and dotted versions compare as one reads them."""
    versions = {event.version for event in events}
    return versions.pop() if len(versions) == 1 else max(versions, key=_in_parts)


def _in_parts(version: str) -> tuple[list[tuple[int, int, str]], str]:
    parts = [
        (1, int(digits), "") if digits else (0, 0, text)
        for digits, text in _DIGITS_OR_NOT.findall(version)
    ]
    return parts, version


def failed_members(answer: bytes) -> frozenset[str] | None:
    """The ids that a receiver's answer to a batch (with status 2xx) names as failed.

    `{"batchItemFailures": [{"itemIdentifier": "<webhook-id>"}]}`: the convention of AWS Lambda's
    partial batch responses. Empty: all went well, and that is also what any other answer means.
    None: it begins like such a list and cannot be read (cut at the bound): all must be sent again.
    """
    if b'"batchItemFailures"' not in answer[:256]:
        return frozenset()
    try:
        document = orjson.loads(answer)
        failures = document.get("batchItemFailures") or []
        return frozenset([str(failure["itemIdentifier"]) for failure in failures])
    except (orjson.JSONDecodeError, AttributeError, TypeError, KeyError):
        return None
