"""Connections per host: aiohttp's pool, with every concrete address checked at connect.

Invariant: no socket is made for a forbidden address, whatever a name resolved to a moment before;
a connection on which something arrived unasked is never used again. Leaves out: requests and
answers (exchange).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from weakref import WeakSet

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from dispatcherd.address import AddressGuard, as_literal
from dispatcherd.config.model import NetworkConfig, ProxyConfig
from dispatcherd.errors import AddressForbidden
from dispatcherd.proxy import CheckedNames, OnlyProxy, Proxy
from dispatcherd.resolve import SystemResolver


class ForbiddenConnect(OSError):
    """An AddressForbidden on its way through aiohttp, which passes OSErrors on."""


def own_addresses() -> set[str]:
    """The addresses of this host's interfaces, as far as the kernel lists them."""
    # /proc/net is not there under ProcSubset=pid; /proc/self/net is.
    found = set()
    try:
        lines = Path("/proc/self/net/fib_trie").read_text().splitlines()
        for before, line in pairwise(lines):
            if "host LOCAL" in line:
                found.add(before.split()[-1])
    except OSError:
        pass  # no IPv4, or no /proc: the other family's list holds all the same
    try:
        for line in Path("/proc/self/net/if_inet6").read_text().splitlines():
            found.add(str(ipaddress.IPv6Address(int(line.split()[0], 16))))
    except (OSError, ValueError):
        pass  # no IPv6
    return found


class GuardedResolver(AbstractResolver):
    """Refuses a name that answers with any forbidden address, also beside permitted ones."""

    def __init__(self, guard: AddressGuard, behind: AbstractResolver) -> None:
        """`behind`: who answers."""
        self._guard = guard
        self._resolver = behind

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """As aiohttp's, and raises ForbiddenConnect."""
        answers = await self._resolver.resolve(host, port, family)
        if not answers:  # which aiohttp does not expect: it would end in a RuntimeError
            raise socket.gaierror(socket.EAI_NODATA, "the name has no address")
        for answer in answers:
            _check(self._guard, answer["host"])
        return answers

    async def close(self) -> None:
        """Close the resolver behind."""
        await self._resolver.close()


class GuardedConnector(aiohttp.TCPConnector):
    """aiohttp's connector, never handing out a connection that holds bytes nobody asked for."""

    def __init__(self, proxy: Proxy | None = None, **options: Any) -> None:
        """`proxy`: through which every connection is made."""
        super().__init__(**options)
        self._proxy = proxy
        self._handed_out: WeakSet[Any] = WeakSet()

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:  # noqa: ASYNC109
        """As aiohttp's. An idle connection that has received something is closed and the next one
        taken (aiohttp #13656: its bytes would be taken for the answer to the next request); a new
        one on which the receiver speaks first raises ClientConnectionError."""
        while True:
            reach = partial(super().connect, traces=traces, timeout=timeout)
            connection: Any = (
                await reach(req) if self._proxy is None else await self._proxy.tunnel(req, reach)
            )
            protocol = connection.protocol
            closed = None if protocol in self._handed_out else protocol.closed
            if closed is not None:
                closed.add_done_callback(_heard)
            try:
                # What has arrived by now is read before it is looked at: within one turn of
                # uvloop's loop, and within two of asyncio's own, where a task goes before the
                # sockets.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            except BaseException:
                connection.close()
                raise
            if protocol.is_connected() and not protocol.should_close:
                self._handed_out.add(protocol)
                return connection
            if protocol in self._handed_out:
                connection.close()
                continue
            try:
                why = await _loss(protocol, closed)
            finally:
                connection.close()
            raise aiohttp.ClientConnectionError(
                "the receiver spoke or left before it was asked"
            ) from why

    async def close(self, *, abort_ssl: bool = False) -> None:
        """As aiohttp's."""
        if self._proxy is not None:
            await self._proxy.close()
        await super().close(abort_ssl=abort_ssl)


async def _loss(protocol: Any, closed: asyncio.Future[None] | None) -> BaseException | None:
    """What the transport says of a connection that was lost: TLS 1.3 refuses a client certificate
    by an alert after the handshake. None for one that is not lost, or was closed in order."""
    if closed is None or protocol.is_connected():
        return None
    await asyncio.wait([closed])
    return closed.exception()


def _heard(closed: asyncio.Future[None]) -> None:
    if not closed.cancelled():
        closed.exception()  # else asyncio reports an error that nobody looked at


def connector(
    config: NetworkConfig,
    guard: AddressGuard,
    context: ssl.SSLContext | None = None,
    resolver: AbstractResolver | None = None,
    proxy_password: str | None = None,
) -> GuardedConnector:
    """The pool for all endpoints. Its own limits are off: HostSlots bounds what is under way, so
    that nobody waits inside the pool on his deadline. `context`: which authorities to trust for
    TLS, other than the system's. `resolver`: who answers instead of the system; its answers are
    guarded alike."""
    behind = resolver or SystemResolver(config.dns_timeout_seconds)
    names = GuardedResolver(guard, behind)
    proxy = None
    only = None
    if config.proxy is not None:
        proxy = _proxy(config, config.proxy, guard, names, proxy_password)
        only = OnlyProxy(str(URL(config.proxy.url).raw_host), behind)

    def socket_factory(info: Any) -> socket.socket:
        family, kind, protocol, _, address = info
        if only is None:
            _check(guard, address[0])
        elif not only.is_proxy(address[0]):
            raise ForbiddenConnect(f"{address[0]} is not network.proxy")
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made

    context = context or ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return GuardedConnector(
        limit=0,
        limit_per_host=0,
        ssl=context,
        proxy=proxy,
        resolver=only or names,
        ttl_dns_cache=max(1, int(config.dns_cache_seconds)),
        use_dns_cache=config.dns_cache_seconds > 0,
        keepalive_timeout=config.keepalive_seconds or 0.001,
        socket_factory=socket_factory,
    )


def _proxy(
    config: NetworkConfig,
    proxy: ProxyConfig,
    guard: AddressGuard,
    names: GuardedResolver,
    password: str | None,
) -> Proxy:
    known = CheckedNames(names, config.dns_cache_seconds)

    async def ask_for(host: str, port: int) -> list[str]:
        literal = as_literal(host)
        if literal is not None:
            _check(guard, str(literal))
            return [str(literal)]
        return [host] if proxy.resolves_names else await known(host, port)

    return Proxy(proxy.url, proxy.username, password, ask_for, known.close)


def _check(guard: AddressGuard, address: str) -> None:
    try:
        guard.check(address)
    except AddressForbidden as error:
        raise ForbiddenConnect(str(error)) from error
