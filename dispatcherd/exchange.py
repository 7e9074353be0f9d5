"""The seam: one request out, one response (or failure) back, by a deadline.

Invariant: whatever a receiver, DNS, TLS or the network does comes back as a `Response`; only
cancellation by the caller is an exception. A body is read to a bound and never inflated; redirects
are not followed. Leaves out: what to send (sign, batch) and what the answer means (outcome).
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import aiohttp
from yarl import URL

from dispatcherd.address import AddressGuard
from dispatcherd.config.model import NetworkConfig
from dispatcherd.delivery import Reason, Response
from dispatcherd.pool import ForbiddenConnect, connector, own_addresses
from dispatcherd.wheel import Wheel

_OUT_OF = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}


class Exchange(Protocol):
    """What every exchange offers; the conformance tests run against each."""

    async def exchange(
        self, url: str, headers: Sequence[tuple[str, str]], body: bytes, timeout_seconds: float
    ) -> Response:
        """POST `body` and return the answer, or the failure, within `timeout_seconds` in all."""

    async def close(self) -> None:
        """Close every connection."""


class ClientSessionExchange:
    """The reference: aiohttp's ClientSession, with the deadline on the shared wheel."""

    def __init__(
        self,
        config: NetworkConfig,
        wheel: Wheel,
        clock: Callable[[], float],
    ) -> None:
        self._wheel = wheel
        self._clock = clock
        self._max_body = config.max_response_body_bytes
        guard = AddressGuard(config.allowed_networks, own_addresses())
        self._session = aiohttp.ClientSession(
            connector=connector(config, guard),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(
                total=None, connect=None, sock_connect=None, sock_read=None
            ),
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
            max_line_size=min(8_190, config.max_response_header_bytes),
            max_field_size=min(8_190, config.max_response_header_bytes),
        )

    async def exchange(
        self, url: str, headers: Sequence[tuple[str, str]], body: bytes, timeout_seconds: float
    ) -> Response:
        """See `Exchange`. A 2xx whose body breaks off is no success: the receiver may have failed
        while it answered; its status is kept beside the failure."""
        status = 0
        try:
            async with asyncio.timeout(None) as scope:
                timer = self._wheel.schedule(self._clock() + timeout_seconds, _expire, scope)
                try:
                    async with self._session.post(
                        URL(url, encoded=True),
                        data=body,
                        headers=headers,
                        allow_redirects=False,
                    ) as answer:
                        status = answer.status
                        content = await self._read(answer)
                        retry_after = answer.headers.get("Retry-After")
                finally:
                    self._wheel.cancel(timer)
        except TimeoutError as error:
            if not scope.expired():
                return _failed(error, status)
            return Response(status, Reason.TIMEOUT, f"no whole answer in {timeout_seconds} s")
        except (aiohttp.ClientError, OSError, ValueError, UnicodeError) as error:
            return _failed(error, status)
        return Response(
            status,
            retry_after=None if retry_after is None else retry_after[:128],
            body=content,
        )

    async def _read(self, answer: aiohttp.ClientResponse) -> bytes:
        """The body up to the bound. A longer one is cut, and its connection closed."""
        limit = self._max_body
        content = bytearray()
        while True:
            chunk = await answer.content.read(limit - len(content) + 1)
            if not chunk:
                return bytes(content)
            content += chunk
            if len(content) > limit:
                answer.close()
                return bytes(content[:limit])

    async def close(self) -> None:
        """Close the session and its connections."""
        await self._session.close()


def _expire(scope: Any) -> None:
    if not scope.expired():
        scope.reschedule(asyncio.get_running_loop().time())


def _failed(error: BaseException, status: int) -> Response:
    """The failure as a value. Before a connection stands nothing has reached the receiver."""
    reason, sent = _classified(error)
    detail = "".join(c if c.isprintable() else " " for c in f"{type(error).__name__}: {error}")
    return Response(status, reason, detail[:200], sent=sent)


def _classified(error: BaseException) -> tuple[Reason, bool]:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ForbiddenConnect):
            return Reason.ADDRESS_FORBIDDEN, False
        if isinstance(seen, ssl.SSLCertVerificationError):
            return Reason.TLS_CERTIFICATE, False
        nested = getattr(seen, "os_error", None)
        seen = nested if isinstance(nested, BaseException) else seen.__cause__
    if isinstance(error, (aiohttp.ClientConnectorCertificateError, ssl.CertificateError)):
        return Reason.TLS_CERTIFICATE, False
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Reason.DNS_FAILED, False
    if isinstance(error, (aiohttp.ClientSSLError, ssl.SSLError)):
        return Reason.TLS_FAILED, False
    if isinstance(error, aiohttp.ClientConnectorError):
        out = error.errno in _OUT_OF
        return (Reason.RESOURCES if out else Reason.CONNECT_FAILED), False
    if isinstance(error, (aiohttp.InvalidURL, UnicodeError)):
        return Reason.CONNECT_FAILED, False
    if isinstance(error, (aiohttp.ServerDisconnectedError, ConnectionError)):
        return Reason.DISCONNECTED, True
    if isinstance(error, aiohttp.ClientPayloadError):
        return Reason.DISCONNECTED, True
    if isinstance(error, OSError) and error.errno in _OUT_OF:
        return Reason.RESOURCES, False
    if isinstance(error, aiohttp.ClientOSError):
        return Reason.DISCONNECTED, True
    return Reason.BAD_RESPONSE, True
