"""Signatures: Standard Webhooks 1.0, and the older hex form for receivers that expect it.

Source: the Standard Webhooks specification, "Signature scheme": over `id.timestamp.body`,
HMAC-SHA256 as `v1,` + base64, or Ed25519 as `v1a,` + base64; several signatures are separated by
spaces. Invariant: the body is signed as the bytes that are sent. Leaves out: where keys come from.
"""

from __future__ import annotations

import base64
from binascii import b2a_base64
from collections.abc import Sequence
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from dispatcherd.keys import SigningKey

_base64: Final = b2a_base64


class Signer:
    """Signs for one endpoint with one key, or with several while a secret is rotated."""

    def __init__(
        self, keys: Sequence[SigningKey], standard: bool = True, hex_header: str | None = None
    ) -> None:
        # Keyed once: copying a prepared HMAC is cheaper than keying it for each message. Not the
        # standard library's: its copy and update are Python, and take twice the time.
        self._keys = [HMAC(key, SHA256()) if isinstance(key, bytes) else key for key in keys]
        first = next((key for key in self._keys if isinstance(key, HMAC)), None)
        self._standard = standard and bool(keys)
        self._hex_header = hex_header if first is not None else None
        self._first = first
        usual = self._standard and len(self._keys) == 1 and self._hex_header is None
        self._only = first if usual else None
        """The key, where there is one HMAC key and nothing else to write."""
        self._second = -1
        self._moment = b""
        """The last timestamp, in digits: made once a second."""

    def headers(self, webhook_id: str, timestamp: int, body: bytes) -> list[tuple[str, str]]:
        """The headers that identify and sign one request; `timestamp` in Unix seconds.

        Id and timestamp are always there, because receivers deduplicate by the id. The hex form
        has room for one signature: the first HMAC key's, so during a rotation list the old key
        first.
        """
        headers = [("webhook-id", webhook_id), ("webhook-timestamp", str(timestamp))]
        if self._standard:
            content = f"{webhook_id}.{timestamp}.".encode() + body
            signatures = []
            for key in self._keys:
                if isinstance(key, HMAC):
                    mac = key.copy()
                    mac.update(content)
                    version, signature = "v1", mac.finalize()
                else:
                    version, signature = "v1a", key.sign(content)
                signatures.append(f"{version}," + base64.b64encode(signature).decode("ascii"))
            headers.append(("webhook-signature", " ".join(signatures)))
        if self._hex_header is not None and self._first is not None:
            mac = self._first.copy()
            mac.update(body)
            headers.append((self._hex_header, mac.finalize().hex()))
        return headers

    def lines(self, webhook_id: str, timestamp: int, body: bytes) -> bytes:
        """`headers` as the bytes that go out, each line with its end; the id holds only the
        characters that `Event.id` allows."""
        only = self._only
        if only is None:
            pairs = self.headers(webhook_id, timestamp, body)
            return "".join([f"{name}: {value}\r\n" for name, value in pairs]).encode("ascii")
        if timestamp != self._second:
            self._second, self._moment = timestamp, b"%d" % timestamp
        identity, moment = webhook_id.encode("ascii"), self._moment
        mac = only.copy()
        mac.update(b"".join((identity, b".", moment, b".")))
        mac.update(body)
        # Joined: half the time of formatting.
        return b"".join(
            (
                b"webhook-id: ",
                identity,
                b"\r\nwebhook-timestamp: ",
                moment,
                b"\r\nwebhook-signature: v1,",
                _base64(mac.finalize(), newline=False),
                b"\r\n",
            )
        )
