"""How an exchange treats connections: reuse, idleness, unsolicited bytes, deadlines, the end.

The same tests for the fast exchange and for the reference; where the two differ, the test says so.
"""

from __future__ import annotations

import asyncio
import random

import pytest

from dispatcherd.delivery import Reason, Response
from dispatcherd.exchange import FastExchange
from tests.rig.exchanges import (
    Chain,
    Poster,
    Posters,
    gone_back,
    only_fast,
    poster,
    posters,
    unasked_is_read,
    until,
)
from tests.rig.hostile import Peer, answer, answering, hostile

__all__ = ["poster", "posters"]

OK = answer(200, b"ok")


class Once:
    """Counts its ends."""

    def __init__(self) -> None:
        self.responses: list[Response] = []
        self.done = asyncio.Event()

    def ended(self, response: Response) -> None:
        self.responses.append(response)
        self.done.set()


# --- reuse -------------------------------------------------------------------------------------


async def test_requests_posted_from_the_end_of_the_last_share_a_connection(poster: Poster) -> None:
    async with hostile(answering(OK)) as server:
        chain = Chain(poster, server.url, 500)
        chain.go()
        await until(lambda: len(chain.responses) == 500, "all answered")
        assert {response.status for response in chain.responses} == {200}
        assert len(server.requests) == 500
        assert len(server.peers) == 1


async def test_an_answer_never_comes_from_inside_post(poster: Poster) -> None:
    async with hostile(answering(OK)) as server:
        for url in (server.url, server.url, "http://127.0.0.1:1/", "http://10.0.0.1/"):
            chain = Chain(poster, url, 1)
            chain.go()
            assert chain.responses == []
            await until(lambda chain=chain: chain.responses, "ended")  # type: ignore[misc]


async def test_answers_find_their_requests_whatever_their_order(poster: Poster) -> None:
    draw = random.Random(7)

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            await asyncio.sleep(draw.random() * 0.02)  # so that answers overtake each other
            close = b"Connection: close\r\n" if draw.random() < 0.1 else b""
            await peer.send(answer(200, request.body, close))
            if close:
                return

    async def lane(number: int) -> None:
        for turn in range(20):
            body = b"%d of %d" % (turn, number)
            assert (await poster.post(server.url, body)).body == body

    async with hostile(script) as server:
        await asyncio.gather(*(lane(number) for number in range(40)))
        assert len(server.requests) == 800


async def test_under_chaos_each_flight_ends_once_and_no_success_is_false(poster: Poster) -> None:
    """The receiver answers, refuses, breaks off, resets, or says more than it was asked."""
    draw = random.Random(23)
    meant: dict[bytes, str] = {}

    async def script(peer: Peer) -> None:
        while True:
            body = (await peer.request()).body
            how = draw.choice(["ok"] * 6 + ["busy", "twice", "close", "short", "reset", "silent"])
            meant[body] = how
            whole = answer(503 if how == "busy" else 200, body)
            if how == "reset":
                peer.reset()
            elif how == "short":
                await peer.send(whole[:-1])
            elif how == "twice":
                await peer.send(whole + answer(200, b"another"))
            elif how != "silent":
                await peer.send(whole)
            if how in ("close", "short", "reset", "silent"):
                return

    async def lane(number: int) -> None:
        for turn in range(150):
            body = b"%d of %d" % (turn, number)
            flight = Once()
            target = poster.exchange.target(f"{server.url}{number % 3}", ())
            poster.exchange.post(target, b"", body, poster.timers.now() + 20, flight)
            await flight.done.wait()
            response, how = flight.responses[0], meant.get(body)
            if response.failure is None and response.status == 200:
                assert (how in ("ok", "twice", "close"), response.body) == (True, body)
            elif response.failure is None:
                assert (response.status, how) == (503, "busy")
            else:
                assert response.failure is Reason.DISCONNECTED
            flights.append(flight)

    flights: list[Once] = []
    async with hostile(script) as server:
        await asyncio.gather(*(lane(number) for number in range(20)))
    assert [len(flight.responses) for flight in flights] == [1] * 3_000


async def test_lanes_of_one_host_share_its_connections(poster: Poster) -> None:
    async with hostile(answering(OK)) as server:
        for path in "abcdef":
            assert (await poster.post(f"{server.url}{path}")).status == 200
        assert len(server.peers) == 1


async def test_a_name_and_an_address_do_not_share_connections(poster: Poster) -> None:
    async with hostile(answering(OK)) as server:
        await poster.post(server.url)
        await poster.post(f"http://localhost:{server.port}/")
        assert len(server.peers) == 2
        assert server.requests[1].header("host") == f"localhost:{server.port}"


# --- closed under us ---------------------------------------------------------------------------


async def test_a_connection_closed_while_idle_is_not_used(poster: Poster) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)

    async with hostile(script) as server:
        for number in range(5):
            assert (await poster.post(server.url)).status == 200
            await server.peers[number].ended.wait()
            await unasked_is_read()
        assert len(server.peers) == 5


@only_fast
async def test_a_connection_that_is_closing_is_not_used(poster: Poster) -> None:
    """Lost, and its loss not told yet: nothing would be sent on it."""
    async with hostile(answering(OK)) as server:
        assert (await poster.post(server.url)).status == 200
        (at_rest,) = poster.exchange.target(server.url, ()).idle
        at_rest.transport.abort()
        assert (await poster.post(server.url)).status == 200
        assert len(server.peers) == 2


@pytest.mark.parametrize("how", ["closed", "reset"])
async def test_a_connection_that_dies_as_the_request_is_written_may_have_delivered_it(
    poster: Poster, how: str
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.head()  # the second request has begun to arrive
        if how == "reset":
            peer.reset()

    async with hostile(script) as server:
        assert (await poster.post(server.url)).status == 200
        lost = await poster.post(server.url, headers=[("webhook-id", "evt_1")])
        assert (lost.status, lost.failure, lost.sent) == (0, Reason.DISCONNECTED, True)
        again = await poster.post(server.url, headers=[("webhook-id", "evt_1")])
        assert again.status == 200
        assert server.requests[-1].header("webhook-id") == "evt_1"


# --- bytes that nobody asked for ---------------------------------------------------------------

_ANSWERS = {"the same answer": OK, "another answer": answer(201, b"created")}
_SCRAPS = {
    "one byte": b"H",
    "half an answer": OK[:20],
    "an interim answer": b"HTTP/1.1 100 Continue\r\n\r\n",
    "noise": b"\x00\xff\x00",
}


async def assert_never_an_answer(poster: Poster, unasked: bytes, together: bool) -> None:
    """After three answers (so that the answer is a known one) come bytes that nobody asked for."""

    async def script(peer: Peer) -> None:
        for _ in range(3):
            await peer.request()
            if peer.number > 0:
                await peer.send(answer(503))
                await peer.closed()
            last = len(server.requests) == 3
            if last and together:
                await peer.send(OK + unasked)
            else:
                await peer.send(OK)
        if not together:
            await peer.pause()
            await peer.send(unasked)
        await peer.closed()

    async with hostile(script) as server:
        for _ in range(3):
            assert (await poster.post(server.url)).body == b"ok"
        await unasked_is_read()
        assert (await poster.post(server.url)).status == 503
        assert len(server.peers) == 2
        await server.peers[0].ended.wait()


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("case", _ANSWERS)
async def test_an_unsolicited_answer_is_never_an_answer(
    poster: Poster, case: str, together: bool
) -> None:
    await assert_never_an_answer(poster, _ANSWERS[case], together)


@only_fast
@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("case", _SCRAPS)
async def test_unsolicited_scraps_end_the_connection(
    poster: Poster, case: str, together: bool
) -> None:
    """aiohttp drops half an answer and goes on with the connection."""
    await assert_never_an_answer(poster, _SCRAPS[case], together)


async def test_unsolicited_bytes_in_the_connectors_pool_are_never_an_answer(
    posters: Posters,
) -> None:
    """The fast exchange gives a connection back after a while; there it lies as the reference's
    do."""
    poster = posters(keepalive_seconds=6)
    speak = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK if peer.number == 0 else answer(503))
        await speak.wait()
        await peer.send(OK)
        await peer.closed()

    async with hostile(script) as server:
        assert (await poster.post(server.url)).status == 200
        await gone_back(poster)
        assert server.open == 1
        speak.set()
        await unasked_is_read()
        assert (await poster.post(server.url)).status == 503
        assert len(server.peers) == 2


async def test_a_receiver_that_speaks_first_is_not_taken_at_its_word(poster: Poster) -> None:
    """What comes before we have written is refused; what comes after may be an answer (503 from
    a balancer that is full), and cannot be told from one."""

    async def script(peer: Peer) -> None:
        await peer.send(answer(503))
        await peer.closed()

    async with hostile(script) as server:
        response = await poster.post(server.url)
    assert response.status == 503 or response.failure in (
        Reason.DISCONNECTED,
        Reason.BAD_RESPONSE,
    )
    assert len(server.peers) <= 2


# --- idleness ----------------------------------------------------------------------------------


async def test_an_idle_connection_is_closed_after_its_time(posters: Posters) -> None:
    poster = posters(keepalive_seconds=0.6)
    async with hostile(answering(OK)) as server:
        await poster.post(server.url)
        await until(lambda: server.open == 0, "closed")


async def test_without_keepalive_each_request_has_its_connection(posters: Posters) -> None:
    poster = posters(keepalive_seconds=0)
    async with hostile(answering(OK)) as server:
        for _ in range(3):
            assert (await poster.post(server.url)).status == 200
            await until(lambda: server.open == 0, "closed")
        assert len(server.peers) == 3


@only_fast
async def test_an_idle_connection_is_closed_before_the_receiver_would(poster: Poster) -> None:
    """Keep-Alive: timeout. The reference does not heed it: its requests may meet the close."""
    ours_first: list[bool] = []

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(200, b"", b"Connection: keep-alive\r\nKeep-Alive: timeout=3\r\n"))
        try:
            async with asyncio.timeout(3):
                await peer.closed()
            ours_first.append(True)
        except TimeoutError:
            ours_first.append(False)

    async with hostile(script) as server:
        for number in range(2):
            assert (await poster.post(server.url)).status == 200
            await server.peers[number].ended.wait()
    assert ours_first == [True, True]


async def test_a_connection_goes_back_to_the_pool_and_serves_again(posters: Posters) -> None:
    poster = posters(keepalive_seconds=6)
    async with hostile(answering(OK)) as server:
        for _ in range(3):
            assert (await poster.post(server.url)).status == 200
            if isinstance(poster.exchange, FastExchange):
                assert len(poster.exchange) == 1
            await gone_back(poster)
        assert len(server.peers) == 1
        await poster.close()
        await until(lambda: server.open == 0, "closed with the exchange")


@only_fast
async def test_open_connections_are_bounded_over_all_hosts(posters: Posters) -> None:
    """In all, idle ones included. The reference bounds only what is under way (HostSlots)."""
    poster = posters(max_connections=8)
    async with hostile(answering(OK)) as server:
        for _ in range(2):
            for number in range(30):
                url = f"http://127.0.0.{number + 1}:{server.port}/"
                bound = await asyncio.start_server(
                    server._serve, f"127.0.0.{number + 1}", server.port
                ) if number else None  # fmt: skip
                assert (await poster.post(url)).status == 200
                if bound is not None:
                    bound.close()
                assert len(poster.exchange) <= 8  # type: ignore[arg-type]
        await until(lambda: server.open <= 8, "no more than eight are open")
