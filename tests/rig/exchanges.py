"""Either exchange, with its wheel turning, for the conformance tests.

The fixture `poster` runs each test twice: with the fast exchange and with the reference.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver

from dispatcherd.address import AddressGuard
from dispatcherd.config.model import NetworkConfig
from dispatcherd.delivery import Response
from dispatcherd.exchange import (
    ClientSessionExchange,
    Exchange,
    FastExchange,
    exchanged,
    header_lines,
)
from dispatcherd.metrics import Metrics
from dispatcherd.pool import connector
from dispatcherd.timers import Timers

LOOPBACK = ["127.0.0.0/8", "::1/128"]


class Poster:
    """An exchange and its timers."""

    def __init__(
        self,
        kind: str,
        tls: ssl.SSLContext | None = None,
        resolver: AbstractResolver | None = None,
        proxy_password: str | None = None,
        **network: Any,
    ) -> None:
        self.kind = kind
        config = NetworkConfig(**{"allowed_networks": LOOPBACK, **network})
        self.timers = Timers(Metrics())
        self.pool = connector(
            config, AddressGuard(config.allowed_networks), tls, resolver, proxy_password
        )
        make = FastExchange if kind == "fast" else ClientSessionExchange
        self.exchange: Exchange = make(config, self.timers.wheel, self.timers.now, self.pool)
        self.faults: list[object] = []
        """What ends of flights raised, and what the loop was told of (unclosed connections)."""
        self.exchange.on_fault = self.faults.append
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, context: self.faults.append(context)
        )
        self._ticking = asyncio.create_task(self.timers.run())

    async def post(
        self,
        url: str,
        body: bytes = b"{}",
        seconds: float = 20.0,
        headers: Sequence[tuple[str, str]] = (),
        static: Sequence[tuple[str, str]] = (),
        tls: ssl.SSLContext | None = None,
    ) -> Response:
        """One exchange, to its end."""
        return await exchanged(
            self.exchange,
            self.exchange.target(url, static, tls),
            header_lines(headers),
            body,
            self.timers.now() + seconds,
        )

    async def close(self) -> None:
        """Within a bound, or the connector waits for something that will not come."""
        async with asyncio.timeout(10):
            await self.exchange.close()
        self._ticking.cancel()


Posters = Callable[..., Poster]


@pytest.fixture(params=["fast", "reference"])
async def posters(request: pytest.FixtureRequest) -> AsyncIterator[Posters]:
    """Makes posters with settings of `network`; closes them."""
    made: list[Poster] = []

    def make(tls: ssl.SSLContext | None = None, **options: Any) -> Poster:
        made.append(Poster(request.param, tls, **options))
        return made[-1]

    yield make
    for poster in made:
        await poster.close()
        assert not poster.faults


class Chain:
    """Posts the next request from inside the end of the last one."""

    def __init__(self, poster: Poster, url: str, count: int) -> None:
        self.poster = poster
        self.target = poster.exchange.target(url, ())
        self.left = count
        self.responses: list[Response] = []

    def go(self) -> None:
        self.left -= 1
        deadline = self.poster.timers.now() + 10
        self.poster.exchange.post(self.target, b"", b"{}", deadline, self)

    def ended(self, response: Response) -> None:
        self.responses.append(response)
        if self.left:
            self.go()


only_fast = pytest.mark.parametrize("posters", ["fast"], indirect=True)
"""For a promise that the reference does not make; the test says which."""


@pytest.fixture
async def poster(posters: Posters) -> Poster:
    """One with the defaults, but for loopback, which is allowed."""
    return posters()


async def until(condition: Callable[[], object], what: str, seconds: float = 10.0) -> None:
    """Let the loop run until the condition holds."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.005)


async def unasked_is_read() -> None:
    """Let the loop read what a receiver has sent, or that it has closed, while nobody waits for it.
    No condition shows that it has: a time."""
    await asyncio.sleep(0.05)


async def gone_back(poster: Poster) -> None:
    """Until the exchange holds no connection: the connector's pool has it, or it was closed. The
    reference holds none."""
    exchange = poster.exchange
    if isinstance(exchange, FastExchange):
        await until(lambda: not exchange.held, "the connection has gone back")


async def all_of(*posts: Awaitable[Response]) -> list[Response]:
    """Several at once."""
    return list(await asyncio.gather(*posts))
