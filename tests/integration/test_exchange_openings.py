"""How the fast exchange asks for connections: a few at a turn, and none where one comes free."""

from __future__ import annotations

import asyncio

from tests.rig.exchanges import Chain, Poster, only_fast, poster, posters, until
from tests.rig.hostile import answer, answering, hostile

__all__ = ["poster", "posters"]

OK = answer(200, b"ok")


@only_fast
async def test_connections_are_asked_for_a_few_at_a_turn_of_the_loop(poster: Poster) -> None:
    """A thousand receivers that hung are tried again at one moment: those that answer go on."""
    exchange = poster.exchange
    async with hostile(answering(OK)) as server:
        chains = [Chain(poster, server.url, 1) for _ in range(40)]
        for chain in chains:
            chain.go()
        turns = 0
        before = len(exchange)
        while before < 40 and not any(chain.responses for chain in chains):
            await asyncio.sleep(0)
            turns += 1
            assert len(exchange) - before <= 4
            before = len(exchange)
        assert turns > 1
        await until(lambda: all(chain.responses for chain in chains), "all answered")
        assert {chain.responses[0].status for chain in chains} == {200}


@only_fast
async def test_a_request_whose_connection_is_not_asked_for_yet_takes_one_that_comes_free(
    poster: Poster,
) -> None:
    async with hostile(answering(OK)) as server:
        chains = [Chain(poster, server.url, 1) for _ in range(400)]
        for chain in chains:
            chain.go()
        await until(lambda: all(chain.responses for chain in chains), "all answered")
        assert len(server.requests) == 400
        assert len(server.peers) < 400
