"""Signatures: Standard Webhooks 1.0, and the older hex form for receivers that expect it.

Source: the Standard Webhooks specification, "Signature scheme": HMAC-SHA256 over
`id.timestamp.body`, `v1,` + base64; several signatures are separated by spaces.
Invariant: the body is signed as the bytes that are sent. Leaves out: where keys come from.
"""

from __future__ import annotations

import base64
import hmac
from binascii import b2a_base64
from collections.abc import Sequence


class Signer:
    """Signs for one endpoint with one key, or with several while a secret is rotated."""

    def __init__(
        self, keys: Sequence[bytes], standard: bool = True, hex_header: str | None = None
    ) -> None:
        # Keyed once: copying a prepared HMAC is cheaper than keying it for each message.
        self._prepared = [hmac.new(key, digestmod="sha256") for key in keys]
        self._standard = standard and bool(keys)
        self._hex_header = hex_header if keys else None

    def headers(self, webhook_id: str, timestamp: int, body: bytes) -> list[tuple[str, str]]:
        """The headers that identify and sign one request; `timestamp` in Unix seconds.

        Id and timestamp are always there, because receivers deduplicate by the id. The hex form
        has room for one signature: the first key's, so during a rotation list the old key first.
        """
        headers = [("webhook-id", webhook_id), ("webhook-timestamp", str(timestamp))]
        if self._standard:
            prefix = f"{webhook_id}.{timestamp}.".encode()
            signatures = []
            for prepared in self._prepared:
                mac = prepared.copy()
                mac.update(prefix)
                mac.update(body)
                signatures.append("v1," + base64.b64encode(mac.digest()).decode("ascii"))
            headers.append(("webhook-signature", " ".join(signatures)))
        if self._hex_header is not None:
            mac = self._prepared[0].copy()
            mac.update(body)
            headers.append((self._hex_header, mac.hexdigest()))
        return headers

    def lines(self, webhook_id: str, timestamp: int, body: bytes) -> bytes:
        """`headers` as the bytes that go out, each line with its end; the id holds only the
        characters that `Event.id` allows."""
        if len(self._prepared) != 1 or not self._standard or self._hex_header is not None:
            pairs = self.headers(webhook_id, timestamp, body)
            return "".join([f"{name}: {value}\r\n" for name, value in pairs]).encode("ascii")
        identity = webhook_id.encode("ascii")
        mac = self._prepared[0].copy()
        mac.update(b"%b.%d." % (identity, timestamp))
        mac.update(body)
        return b"webhook-id: %b\r\nwebhook-timestamp: %d\r\nwebhook-signature: v1,%b\r\n" % (
            identity,
            timestamp,
            b2a_base64(mac.digest(), newline=False),
        )
