"""Does this request come from the sender, now?

Source: Standard Webhooks 1.0, "Verifying signatures": the signature is over `id.timestamp.body`,
the body being the bytes that arrived; several signatures are separated by spaces; a timestamp
outside the tolerance, in either direction, is refused. The hex form is
`hex(HMAC-SHA256(body))` in one header: it covers neither id nor timestamp.

Invariant: a request passes only if one of its signatures is that of one of the keys. Pure: `now`
is an argument. Leaves out: what the body says (event), and replays inside the tolerance (store).
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass

from dispatcherd.receiver.errors import (
    BodyNotRaw,
    FutureTimestamp,
    MalformedHeader,
    NoMatchingSignature,
    SecretFormatError,
    StaleTimestamp,
)
from dispatcherd.receiver.headers import Headers, need, read
from dispatcherd.receiver.keys import HmacKey, Key, parse_key

DEFAULT_TOLERANCE_SECONDS = 300.0
"""Of Standard Webhooks' reference libraries."""

_MAX_SIGNATURES = 32
is_id = re.compile(r"[!-~]{1,512}").fullmatch
_is_seconds = re.compile(r"[0-9]{1,12}").fullmatch
_is_hex = re.compile(r"[0-9a-fA-F]{64}").fullmatch


@dataclass(frozen=True, slots=True)
class Verified:
    """What a request that passed says about itself."""

    id: str
    """`webhook-id`: the same in every attempt; what to deduplicate by."""
    timestamp: int | None
    """When this attempt was signed, in Unix seconds; None in the hex form."""
    signature: str
    """The signature header as it came. The same one twice is the same request twice."""


class Verifier:
    """Checks requests against one or more secrets. Safe to share between threads."""

    def __init__(
        self,
        secrets: Sequence[str | bytes],
        *,
        tolerance_seconds: float = DEFAULT_TOLERANCE_SECONDS,
        prefix: str = "webhook",
        hex_header: str | None = None,
    ) -> None:
        """Every secret counts, so that one can be rotated. Raises SecretFormatError.

        `prefix` is that of the three headers (`svix` for Svix). With `hex_header` the hex form in
        that header is checked *instead*: accepting either would let whoever captured one request
        replay it for ever in the weaker form.
        """
        if isinstance(secrets, str | bytes):
            raise SecretFormatError("secrets is one text; give a list, such as secrets=[text]")
        self._keys: list[Key] = [parse_key(s, place) for place, s in enumerate(secrets)]
        if not self._keys:
            raise SecretFormatError("secrets is empty; give at least one")
        if not tolerance_seconds > 0:
            raise ValueError(f"tolerance_seconds is {tolerance_seconds}; it must be above 0")
        self._tolerance = tolerance_seconds
        self.id_header = f"{prefix}-id"
        self.timestamp_header = f"{prefix}-timestamp"
        self.signature_header = hex_header or f"{prefix}-signature"
        self._hex = hex_header is not None
        if self._hex and not all(isinstance(key, HmacKey) for key in self._keys):
            raise SecretFormatError("the hex form is HMAC: it cannot be checked with a whpk_ key")

    def verify(self, headers: Headers, body: bytes, now: float) -> Verified:
        """Who and when, or the VerificationError that says what is wrong. `now` in Unix seconds."""
        if not isinstance(body, bytes | bytearray | memoryview):
            raise BodyNotRaw(body)
        body = bytes(body)
        headers = read(headers)
        webhook_id = need(headers, self.id_header)
        if not is_id(webhook_id):
            raise MalformedHeader(self.id_header, "is not 1 to 512 printable ASCII characters")
        if self._hex:
            signature = need(headers, self.signature_header)
            self._check_hex(signature, body)
            return Verified(webhook_id, None, signature)
        stamp = need(headers, self.timestamp_header)
        signature = need(headers, self.signature_header)
        timestamp = self._check_timestamp(stamp, now)
        content = f"{webhook_id}.{stamp}.".encode() + body
        self._check_signatures(signature, content)
        return Verified(webhook_id, timestamp, signature)

    def _check_timestamp(self, stamp: str, now: float) -> int:
        if not _is_seconds(stamp):
            raise MalformedHeader(self.timestamp_header, "is not a whole number of Unix seconds")
        timestamp = int(stamp)
        if now - timestamp > self._tolerance:
            raise StaleTimestamp(now - timestamp, self._tolerance)
        if timestamp - now > self._tolerance:
            raise FutureTimestamp(timestamp - now, self._tolerance)
        return timestamp

    def _check_signatures(self, header: str, content: bytes) -> None:
        signatures = header.split(" ")
        if len(signatures) > _MAX_SIGNATURES:
            raise MalformedHeader(
                self.signature_header, f"holds {len(signatures)} signatures; {_MAX_SIGNATURES} fit"
            )
        by_version: dict[str, list[str]] = {}
        for signature in signatures:
            version, comma, encoded = signature.partition(",")
            if not comma or not version or not encoded:
                raise MalformedHeader(
                    self.signature_header,
                    "is not made of version,signature such as v1,<base64>;"
                    " for the hex form set hex_header",
                )
            by_version.setdefault(version, []).append(encoded)
        matched = False
        for key in self._keys:
            is_mine = key.checker(content)
            for encoded in by_version.get(key.version, ()):
                matched |= is_mine(encoded)
        if not matched:
            raise NoMatchingSignature(_why_none(by_version, self._keys))

    def _check_hex(self, header: str, body: bytes) -> None:
        value = header.removeprefix("sha256=")
        if not _is_hex(value):
            raise MalformedHeader(self.signature_header, "is not 64 hexadecimal digits")
        matched = False
        for key in self._keys:
            assert isinstance(key, HmacKey)
            matched |= hmac.compare_digest(key.digest(body), bytes.fromhex(value))
        if not matched:
            raise NoMatchingSignature(_NONE_MATCHES)


_NONE_MATCHES = (
    "no signature matches: another secret, or the body is not the bytes that were sent"
    " (re-serialised JSON, a changed encoding, a middleware that rewrites it)"
)


def _why_none(by_version: dict[str, list[str]], keys: Sequence[Key]) -> str:
    known = {key.version for key in keys}
    if known.isdisjoint(by_version):
        came, have = ", ".join(sorted(by_version)), ", ".join(sorted(known))
        return (
            f"the request is signed as {came[:80]} and the secrets check {have};"
            " v1 needs the whsec_ secret, v1a the whpk_ key"
        )
    return _NONE_MATCHES
