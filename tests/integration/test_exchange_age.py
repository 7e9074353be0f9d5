"""A connection has a maximum age: a busy one too follows a change in DNS, and loses no request."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from dispatcherd.address import AddressGuard
from dispatcherd.config.model import NetworkConfig
from dispatcherd.exchange import FastExchange
from dispatcherd.pool import connector
from tests.integration.test_exchange_connections import Chain
from tests.rig.exchanges import Poster, Posters, only_fast, posters, until
from tests.rig.hostile import answer, answering, hostile

__all__ = ["posters"]

OK = answer(200, b"ok")


class _Names(AbstractResolver):
    """What a zone says, and can be made to say something else."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.asked = 0

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        self.asked += 1
        return [
            ResolveResult(
                hostname=host, host="127.0.0.1", port=self.port, family=2, proto=6, flags=0
            )
        ]

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("posters", ["fast"], indirect=True)
async def test_a_busy_connection_follows_a_change_of_the_name(posters: Posters) -> None:
    async with hostile(answering(OK)) as before, hostile(answering(OK)) as after:
        poster = posters(connection_max_age_seconds=1)
        names = _Names(before.port)
        config = NetworkConfig(
            allowed_networks=["127.0.0.0/8"], connection_max_age_seconds=1, dns_cache_seconds=0
        )
        pool = connector(config, AddressGuard(config.allowed_networks), resolver=names)
        await poster.exchange.close()
        poster.pool = pool
        poster.exchange = FastExchange(config, poster.timers.wheel, poster.timers.now, pool)
        chain = Chain(poster, f"http://moving.test:{before.port}/", 10**9)
        chain.go()
        await until(lambda: len(before.requests) > 50, "the old address is at work")
        assert len(before.peers) == 1
        names.port = after.port
        await until(lambda: len(after.requests) > 50, "the new address is at work")
        chain.left = 1
        await until(lambda: not chain.left, "the end")
        await until(lambda: _at_rest(poster), "the last answer")
        assert Counter(response.status for response in chain.responses) == {
            200: len(before.requests) + len(after.requests)
        }
        assert names.asked >= 2


def _at_rest(poster: Poster) -> bool:
    exchange = poster.exchange
    assert isinstance(exchange, FastExchange)
    return all(connection.flight is None for connection in exchange._open)


@only_fast
async def test_an_idle_connection_of_that_age_is_closed_also_after_it_lay_in_the_pool(
    posters: Posters,
) -> None:
    async with hostile(answering(OK)) as server:
        poster = posters(connection_max_age_seconds=3, keepalive_seconds=3)
        exchange = poster.exchange
        assert isinstance(exchange, FastExchange)
        url = server.url
        made = 0
        async with asyncio.timeout(30):
            while len(server.peers) < 2:
                assert (await poster.post(url)).status == 200
                made += 1
                # It goes back to the connector's pool in between, and is taken from there again.
                await until(lambda: not exchange.held, "the connection has gone back or is closed")
        assert made > 1
