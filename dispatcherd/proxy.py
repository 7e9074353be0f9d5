"""An operator's egress proxy: everything goes through it, and still to permitted addresses only.

Our own look-up and check come first, and the proxy is asked to CONNECT (RFC 9110, 9.3.6) to the
concrete address that was checked: what it would resolve by itself, a moment later and elsewhere, is
of no consequence. TLS inside the tunnel is with the host of the URL, as ever. With
`resolves_names` the proxy is given the name instead, and the check of its addresses with it.

Invariant: with a proxy no socket is made for anything else; for a forbidden address nothing is
asked of it. Leaves out: the pool and its checks (pool), what a failure is called (classify).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, TypeAlias

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

Names: TypeAlias = Callable[[str, int], Awaitable[list[str]]]
"""Host and port → what to ask the proxy for, best first, not empty; raises OSError."""

_MOST_NAMES = 1_000
_CREDENTIALS = "set network.proxy.username and password, or correct them"
_ANSWERS = {
    401: _CREDENTIALS,  # tinyproxy's word for 407
    403: "its rules do not allow this address or port; allow it there",
    405: "it does not do CONNECT",
    407: _CREDENTIALS,
}


class ProxyRefused(aiohttp.ClientConnectionError):
    """The proxy answered, and will not do it."""


class ProxyFailed(aiohttp.ClientConnectionError):
    """The proxy could not be reached, or ended the connection, or answered nonsense."""


class ProxyCouldNotConnect(aiohttp.ClientConnectionError):
    """The proxy did not reach the receiver."""


class Proxy:
    """Opens tunnels."""

    def __init__(
        self,
        url: str,
        username: str | None,
        password: str | None,
        names: Names,
        close: Callable[[], Awaitable[None]],
    ) -> None:
        self._url = URL(url)
        self._headers: dict[str, str] | None = None
        if username is not None:
            credentials = aiohttp.encode_basic_auth(username, password or "")
            self._headers = {"Proxy-Authorization": credentials}
        self._names = names
        self.close = close
        """Ends the look-ups."""

    async def tunnel(self, req: Any, connect: Callable[[Any], Awaitable[Any]]) -> Any:
        """The connection for a request of aiohttp's; `connect` is the pool's own way to one. Each
        address is tried while the proxy says that it did not reach the one before."""
        host, port = req.url.raw_host, req.url.port
        if req.url.scheme != "https":
            raise ProxyRefused("plain http does not go through network.proxy: use https")
        try:
            *others, last = await self._names(host, port)
        except OSError as error:
            raise aiohttp.ClientConnectorDNSError(req.connection_key, error) from error
        for address in others:
            try:
                return await self._connect(req, address, connect)
            except ProxyCouldNotConnect:
                continue
        return await self._connect(req, last, connect)

    async def _connect(
        self, req: Any, address: str, connect: Callable[[Any], Awaitable[Any]]
    ) -> Any:
        request = self._request(req.url.with_host(address), req.url.raw_host, req.ssl)
        try:
            return await connect(request)
        except aiohttp.ClientHttpProxyError as error:
            kind = ProxyRefused if error.status < 500 else ProxyCouldNotConnect
            raise kind(_said(error)) from None  # (its own text holds the request's headers)
        except (aiohttp.ClientProxyConnectionError, aiohttp.ClientConnectorDNSError) as error:
            raise ProxyFailed(f"network.proxy cannot be reached: {error.os_error}") from error
        except (aiohttp.ClientConnectorError, aiohttp.ClientSSLError):
            raise  # in the tunnel: TLS with the receiver
        except (aiohttp.ClientConnectionError, aiohttp.ClientResponseError) as error:
            what = type(error).__name__
            raise ProxyFailed(f"network.proxy did not answer CONNECT by HTTP ({what})") from error

    def _request(self, url: URL, host: str, ssl: Any) -> aiohttp.ClientRequest:
        return aiohttp.ClientRequest(
            "POST",
            url,
            loop=asyncio.get_running_loop(),
            ssl=ssl,
            proxy=self._url,
            proxy_headers=self._headers and dict(self._headers),
            server_hostname=host.rstrip("."),
        )


def _said(error: aiohttp.ClientHttpProxyError) -> str:
    try:
        phrase = HTTPStatus(error.status).phrase
    except ValueError:
        phrase = "?"
    hint = _ANSWERS.get(error.status)
    return f"network.proxy answered {error.status} {phrase}" + (f": {hint}" if hint else "")


class CheckedNames:
    """Look-ups of receivers' names, each kept for a while and made once for all who ask."""

    def __init__(self, resolver: AbstractResolver, keep_seconds: float) -> None:
        """`resolver`: one that refuses forbidden answers."""
        self._resolver = resolver
        self._keep_seconds = keep_seconds
        self._known: dict[str, tuple[float, asyncio.Task[list[ResolveResult]]]] = {}

    async def __call__(self, host: str, port: int) -> list[str]:
        """See `Names`."""
        loop = asyncio.get_running_loop()
        until, task = self._known.get(host, (0.0, None))
        if task is None or (task.done() and until < loop.time()):
            task = loop.create_task(self._resolver.resolve(host, port))
            task.add_done_callback(lambda done: self._looked_up(host, done))
            if len(self._known) >= _MOST_NAMES:
                del self._known[next(iter(self._known))]
            self._known[host] = loop.time() + self._keep_seconds, task
        return [answer["host"] for answer in await asyncio.shield(task)]

    def _looked_up(self, host: str, done: asyncio.Task[list[ResolveResult]]) -> None:
        failed = done.cancelled() or done.exception() is not None
        if failed and self._known.get(host, (0.0, None))[1] is done:
            del self._known[host]

    async def close(self) -> None:
        """End the look-ups under way."""
        for _, task in list(self._known.values()):
            task.cancel()
        self._known.clear()
        await self._resolver.close()


class OnlyProxy(AbstractResolver):
    """Resolves the proxy's own name and no other; knows what may be connected to."""

    def __init__(self, host: str, behind: AbstractResolver) -> None:
        self._host = host
        self._resolver = behind
        self._addresses = {host}

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        """As aiohttp's."""
        answers = await self._resolver.resolve(host, port, family) if host == self._host else []
        if not answers:
            raise OSError(f"{host[:80]} has no address, or is not network.proxy")
        self._addresses = {host, *(answer["host"] for answer in answers)}
        return answers

    def is_proxy(self, address: str) -> bool:
        """Whether a concrete address is the proxy's."""
        return address in self._addresses

    async def close(self) -> None:
        """Close the resolver behind."""
        await self._resolver.close()
