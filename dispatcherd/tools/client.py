"""One request out, what came back: status, headers, a bounded body, the time, or the failure.

Invariant: redirects are not followed, nothing is inflated, and a receiver's fault is a value.
Unlike the daemon's exchange it connects wherever it is told to: the operator typed the URL. Leaves
out: what to send (compose), what an answer means (outcome).
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from dispatcherd.delivery import Reason, Response
from dispatcherd.errors import DispatcherdError
from dispatcherd.exchange.classify import failed

_MOST_BODY_BYTES = 65_536
_MOST_LIST_BYTES = 8 * 1_048_576
_FAILURES = (aiohttp.ClientError, OSError, ValueError, UnicodeError)


class NoUrl(DispatcherdError):
    """Not a URL that can be asked."""


@dataclass(frozen=True, slots=True)
class Exchanged:
    """One exchange as it happened."""

    sent_headers: tuple[tuple[str, str], ...]
    """As they went out, those of HTTP itself included; empty where nothing was sent."""
    response: Response
    reason: str
    """The words after the status, as received."""
    headers: tuple[tuple[str, str], ...]
    seconds: float


def check_url(url: str) -> str:
    """The URL, or NoUrl with what is wrong."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise NoUrl(f"{url!r} is not a URL that can be asked. Write http://host:port/path")
    return url


class Client:
    """Sends requests on connections of its own; see `client`."""

    def __init__(self, session: aiohttp.ClientSession, timeout_seconds: float) -> None:
        self._session = session
        self._timeout = timeout_seconds

    async def post(
        self, url: str, headers: Sequence[tuple[str, str]], body: bytes, method: str = "POST"
    ) -> Exchanged:
        """Never raises for what the other side, the network or the time does."""
        return await self._exchange(method, url, headers, body, _MOST_BODY_BYTES)

    async def get(self, url: str) -> Exchanged:
        """Likewise, for a document that may be longer."""
        return await self._exchange("GET", url, (), None, _MOST_LIST_BYTES)

    async def _exchange(
        self,
        method: str,
        url: str,
        headers: Sequence[tuple[str, str]],
        body: bytes | None,
        most_bytes: int,
    ) -> Exchanged:
        sent: dict[str, Any] = {"headers": ()}
        started = time.monotonic()
        status, reason = 0, ""
        received: tuple[tuple[str, str], ...] = ()
        try:
            async with asyncio.timeout(self._timeout):
                async with self._session.request(
                    method,
                    url,
                    data=body,
                    headers=list(headers),
                    allow_redirects=False,
                    trace_request_ctx=sent,
                ) as answer:
                    status, reason = answer.status, answer.reason or ""
                    received = _texts(answer.raw_headers)
                    content = await _read(answer, most_bytes)
            after = answer.headers.get("Retry-After")
            response = Response(status, retry_after=after and after[:128], body=content)
        except TimeoutError:
            detail = f"no whole answer within {self._timeout:g} s"
            response = Response(status, Reason.TIMEOUT, detail, sent=bool(sent["headers"]))
        except _FAILURES as error:
            response = failed(error, status, bool(sent["headers"]))
        seconds = time.monotonic() - started
        return Exchanged(tuple(sent["headers"]), response, reason, received, seconds)


@asynccontextmanager
async def client(
    timeout_seconds: float, connections: int = 1, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Client]:
    """A client that gives each exchange `timeout_seconds`, with so many connections at most.
    `tls`: an endpoint's own authority and client certificate."""
    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(_note_headers)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=connections, limit_per_host=connections, ssl=tls if tls is not None else True
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
        trace_configs=[trace],
    ) as session:
        yield Client(session, timeout_seconds)


async def _note_headers(
    _session: object, context: Any, params: aiohttp.TraceRequestHeadersSentParams
) -> None:
    context.trace_request_ctx["headers"] = tuple(params.headers.items())


def _texts(raw: Sequence[tuple[bytes, bytes]]) -> tuple[tuple[str, str], ...]:
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in raw)


async def _read(answer: aiohttp.ClientResponse, most_bytes: int) -> bytes:
    """The body to a bound; the rest is left unread, and the connection closed."""
    content = bytearray()
    async for part in answer.content.iter_any():
        content += part
        if len(content) > most_bytes:
            answer.close()
            break
    return bytes(content[:most_bytes])
