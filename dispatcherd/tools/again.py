"""A received request, posted once more: as it came, or signed anew.

Invariant: only to a URL on loopback, for a page asks for it. Leaves out: sending (client).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from dispatcherd.errors import DispatcherdError
from dispatcherd.keys import SigningKey, parse_key
from dispatcherd.sign import Signer
from dispatcherd.tools.client import check_url, client
from dispatcherd.tools.diagnose import Scheme
from dispatcherd.tools.inbox import Received
from dispatcherd.tools.origin import is_loopback

_TIMEOUT_SECONDS = 30.0
_OF_THE_CONNECTION = {"host", "content-length", "connection", "keep-alive", "transfer-encoding"}


class NotAgain(DispatcherdError):
    """It cannot be sent so."""


class Sender:
    """Sends again, with the secrets that requests are verified with."""

    def __init__(self, secrets: Sequence[str], scheme: Scheme) -> None:
        keys: list[SigningKey] = []
        for secret in secrets:
            try:
                keys.append(parse_key(secret))
            except ValueError:
                continue  # a public key, or no secret: such verifies or not, and does not sign
        self._signer = Signer(keys, scheme.hex_header is None, scheme.hex_header)
        self._prefix = scheme.prefix
        self.can_sign = bool(keys)
        """Whether there is a key to sign with."""

    async def send(self, received: Received, url: str, sign: bool, now: float) -> dict[str, Any]:
        """What came back. Raises NotAgain or NoUrl."""
        if not is_loopback(urlsplit(check_url(url)).hostname):
            raise NotAgain(f"{url} is not on this host: a page may send to loopback only")
        if sign and not self.can_sign:
            raise NotAgain("there is only a public key here, which does not sign")
        headers = self._headers(received, sign, now)
        async with client(_TIMEOUT_SECONDS) as asking:
            exchanged = await asking.post(url, headers, received.body, received.method)
        response = exchanged.response
        return {
            "url": url,
            "status": response.status,
            "failure": None if response.failure is None else response.failure.word,
            "detail": response.detail,
            "body": response.body[:2_000].decode("utf-8", "replace"),
            "seconds": exchanged.seconds,
        }

    def _headers(self, received: Received, sign: bool, now: float) -> list[tuple[str, str]]:
        kept = [(n, v) for n, v in received.headers if n.lower() not in _OF_THE_CONNECTION]
        if not sign:
            return kept
        signed = [
            (name.replace("webhook-", f"{self._prefix}-", 1), value)
            for name, value in self._signer.headers(
                received.found.id or "", int(now), received.body
            )
        ]
        names = {name.lower() for name, _ in signed}
        return [(n, v) for n, v in kept if n.lower() not in names] + signed
