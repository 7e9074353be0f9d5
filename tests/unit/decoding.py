"""One record, decoded: what the tests of decoding say over and over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from dispatcherd.config.model import DecodeConfig
from dispatcherd.decode import Decoder
from dispatcherd.delivery import Claim, Event, Refused

ID_KEY = bytes(range(16))
NOON_MS = 1_767_355_200_250
NOON = "2026-01-02T12:00:00.250Z"

Headers = Sequence[tuple[str, bytes | None]]


def claim(partition: int = 3, id_key: bytes = ID_KEY) -> Claim:
    return Claim("orders", 1, partition, 1, id_key)


def attempt(
    body: Any,
    headers: Headers = (),
    timestamp_ms: int = NOON_MS,
    config: DecodeConfig | None = None,
) -> tuple[Event, Any] | Refused:
    value = body if isinstance(body, bytes) or body is None else orjson.dumps(body)
    return Decoder(config or DecodeConfig()).decode(claim(), 7, value, headers, timestamp_ms)


def event_of(
    body: Any,
    headers: Headers = (),
    timestamp_ms: int = NOON_MS,
    config: DecodeConfig | None = None,
) -> Event:
    decoded = attempt(body, headers, timestamp_ms, config)
    assert not isinstance(decoded, Refused), decoded
    return decoded[0]


def refusal_of(body: Any, headers: Headers = (), config: DecodeConfig | None = None) -> Refused:
    decoded = attempt(body, headers, config=config)
    assert isinstance(decoded, Refused), decoded
    return decoded
