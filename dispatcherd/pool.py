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
from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from weakref import WeakSet

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver

from dispatcherd.address import AddressGuard
from dispatcherd.config.model import NetworkConfig
from dispatcherd.errors import AddressForbidden


class ForbiddenConnect(OSError):
    """An AddressForbidden on its way through aiohttp, which passes OSErrors on."""


def own_addresses() -> set[str]:
    """The addresses of this host's interfaces, as far as the kernel lists them."""
    found = set()
    try:
        lines = Path("/proc/net/fib_trie").read_text().splitlines()
        for before, line in pairwise(lines):
            if "host LOCAL" in line:
                found.add(before.split()[-1])
    except OSError:
        pass
    try:
        for line in Path("/proc/net/if_inet6").read_text().splitlines():
            found.add(str(ipaddress.IPv6Address(int(line.split()[0], 16))))
    except (OSError, ValueError):
        pass
    return found


class GuardedResolver(AbstractResolver):
    """Refuses a name that answers with any forbidden address, also beside permitted ones."""

    def __init__(self, guard: AddressGuard) -> None:
        self._guard = guard
        self._resolver = DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """As aiohttp's, and raises ForbiddenConnect."""
        answers = await self._resolver.resolve(host, port, family)
        for answer in answers:
            _check(self._guard, answer["host"])
        return answers

    async def close(self) -> None:
        """Close the resolver behind."""
        await self._resolver.close()


class GuardedConnector(aiohttp.TCPConnector):
    """aiohttp's connector, never handing out a connection that holds bytes nobody asked for."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._handed_out: WeakSet[Any] = WeakSet()

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:  # noqa: ASYNC109
        """As aiohttp's. An idle connection that has received something is closed and the next one
        taken (aiohttp #13656: its bytes would be taken for the answer to the next request); a new
        one on which the receiver speaks first raises ClientConnectionError."""
        while True:
            connection: Any = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            try:
                # One turn of the loop: what has arrived by now is read before it is looked at.
                await asyncio.sleep(0)
            except BaseException:
                connection.close()
                raise
            if protocol.is_connected() and not protocol.should_close:
                self._handed_out.add(protocol)
                return connection
            connection.close()
            if protocol not in self._handed_out:
                raise aiohttp.ClientConnectionError(
                    "the receiver spoke or left before it was asked"
                )


def connector(
    config: NetworkConfig, guard: AddressGuard, context: ssl.SSLContext | None = None
) -> GuardedConnector:
    """The pool for all endpoints. Its own limits are off: HostSlots bounds what is under way, so
    that nobody waits inside the pool on his deadline. `context`: which authorities to trust for
    TLS, other than the system's."""

    def socket_factory(info: Any) -> socket.socket:
        family, kind, protocol, _, address = info
        _check(guard, address[0])
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made

    context = context or ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return GuardedConnector(
        limit=0,
        limit_per_host=0,
        ssl=context,
        resolver=GuardedResolver(guard),
        ttl_dns_cache=max(1, int(config.dns_cache_seconds)),
        use_dns_cache=config.dns_cache_seconds > 0,
        keepalive_timeout=config.keepalive_seconds or 0.001,
        socket_factory=socket_factory,
    )


def _check(guard: AddressGuard, address: str) -> None:
    try:
        guard.check(address)
    except AddressForbidden as error:
        raise ForbiddenConnect(str(error)) from error


class HostSlots:
    """Exchanges under way per host and in all, shared fairly between those who wait.

    Invariant: never more than `limit` per host nor `total` in all; whoever waits is called in the
    order in which he came, and asked again with `take`.
    """

    def __init__(self, limit: int, total: int) -> None:
        self._limit = limit
        self._total = total
        self._taken: dict[str, int] = {}
        self._all = 0
        self._waiting: dict[str, OrderedDict[Callable[[], None], None]] = {}
        self._waiting_for_any: OrderedDict[Callable[[], None], None] = OrderedDict()

    def take(self, host: str, waiter: Callable[[], None]) -> bool:
        """True: a slot is yours, give it back. False: `waiter` (queued once) will be called when
        it is worth asking again."""
        if self._taken.get(host, 0) >= self._limit:
            self._waiting.setdefault(host, OrderedDict())[waiter] = None
            return False
        if self._all >= self._total:
            self._waiting_for_any[waiter] = None
            return False
        self._taken[host] = self._taken.get(host, 0) + 1
        self._all += 1
        return True

    def give(self, host: str) -> None:
        """Give a slot back; who waits longest for it is called, before this returns."""
        left = self._taken[host] - 1
        if left:
            self._taken[host] = left
        else:
            del self._taken[host]
        self._all -= 1
        queue = self._waiting.get(host)
        if queue:
            waiter, _ = queue.popitem(last=False)
            if not queue:
                del self._waiting[host]
            waiter()
        if self._waiting_for_any and self._all < self._total:
            waiter, _ = self._waiting_for_any.popitem(last=False)
            waiter()
