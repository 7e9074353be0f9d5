"""How exchanges end when no answer ends them: deadlines, no connection, and our own will.

The same tests for the fast exchange and for the reference; where the two differ, the test says so.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import select
import socket

import pytest

from dispatcherd.delivery import Reason, Response
from dispatcherd.exchange import FastExchange
from dispatcherd.exchange.answer import AnswerReader
from dispatcherd.exchange.http11 import HttpConnection
from tests.rig.exchanges import Poster, Posters, all_of, only_fast, poster, posters, until
from tests.rig.hostile import Peer, answer, answering, hostile

__all__ = ["poster", "posters"]

OK = answer(200, b"ok")


# --- deadlines ---------------------------------------------------------------------------------


async def test_each_request_has_its_own_deadline(poster: Poster) -> None:
    """On one connection: a long one after a short one is not cut, a short one after a long one
    is."""
    wait = 0.0

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await asyncio.sleep(wait)  # what the deadlines are held against
            await peer.send(OK)

    async with hostile(script) as server:
        assert (await poster.post(server.url, seconds=0.3)).status == 200
        wait = 0.6
        assert (await poster.post(server.url, seconds=30)).status == 200
        assert (await poster.post(server.url, seconds=0.2)).failure is Reason.TIMEOUT
        wait = 0.0
        assert (await poster.post(server.url, seconds=0.5)).status == 200


async def test_a_deadline_that_has_passed_ends_the_request(poster: Poster) -> None:
    async def script(peer: Peer) -> None:
        await peer.closed()

    async with hostile(script) as server:
        response = await poster.post(server.url, seconds=-1.0)
    assert response.failure in (Reason.TIMEOUT, Reason.CONNECT_TIMEOUT)


async def test_no_connection_by_the_deadline_is_named_and_nothing_was_sent(
    poster: Poster,
) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        await until(lambda: select.select([], fillers, [], 0)[1], "the queue is full")
        response = await poster.post(f"http://127.0.0.1:{port}/", seconds=0.4)
        for filler in fillers:
            filler.close()
    assert (response.status, response.failure) == (0, Reason.CONNECT_TIMEOUT)
    assert not response.sent


@only_fast
async def test_a_connection_that_comes_after_the_deadline_sends_nothing(poster: Poster) -> None:
    """A process that was frozen finds its connections made before it finds its timers run out."""
    assert isinstance(poster.exchange, FastExchange)
    async with hostile(answering(OK)) as server:
        late = asyncio.create_task(poster.post(server.url, seconds=20))
        await asyncio.sleep(0)  # it has posted, and is not connected yet
        poster.exchange.clock = lambda: poster.timers.now() + 30
        response = await late
        assert (response.failure, response.sent) == (Reason.CONNECT_TIMEOUT, False)
        await until(lambda: server.peers and server.open == 0, "the connection is closed")
        assert not server.requests and len(poster.exchange) == 0


# --- no connection -----------------------------------------------------------------------------


async def test_a_refused_connection_is_named_and_nothing_was_sent(poster: Poster) -> None:
    response = await poster.post("http://127.0.0.1:1/")
    assert (response.failure, response.sent) == (Reason.CONNECT_FAILED, False)


@pytest.mark.parametrize("host", ["10.0.0.1", "[fd00::1]", "169.254.169.254", "[::ffff:10.0.0.1]"])
async def test_a_forbidden_address_is_not_connected_to(poster: Poster, host: str) -> None:
    response = await poster.post(f"http://{host}/")
    assert (response.failure, response.sent) == (Reason.ADDRESS_FORBIDDEN, False)
    assert "allowed_networks" in response.detail


async def test_a_name_that_resolves_to_a_forbidden_address_is_not_connected_to(
    posters: Posters,
) -> None:
    async with hostile(answering(OK)) as server:
        poster = posters(allowed_networks=["10.0.0.0/8"])
        response = await poster.post(f"http://localhost:{server.port}/")
        assert (response.failure, response.sent) == (Reason.ADDRESS_FORBIDDEN, False)
        assert server.peers == []


async def test_a_name_that_does_not_exist_is_named(poster: Poster) -> None:
    response = await poster.post("http://does-not-exist.invalid/")
    assert (response.failure, response.sent) == (Reason.DNS_FAILED, False)


async def test_out_of_descriptors_is_named_and_heals(poster: Poster) -> None:
    async with hostile(answering(OK)) as server:
        assert (await poster.post(f"http://localhost:{server.port}/")).status == 200
        with NoDescriptors():
            response = await poster.post(server.url)
        assert (response.failure, response.sent) == (Reason.RESOURCES, False)
        assert (await poster.post(server.url)).status == 200


class NoDescriptors:
    """Every descriptor that this process may have is taken."""

    def __enter__(self) -> None:
        self.limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.spare = socket.socket()
        resource.setrlimit(resource.RLIMIT_NOFILE, (self.spare.fileno(), self.limits[1]))
        self.taken: list[socket.socket] = []
        try:
            while True:
                self.taken.append(socket.socket())
        except OSError:
            pass

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, self.limits)
        for one in (self.spare, *self.taken):
            one.close()


# --- our own end -------------------------------------------------------------------------------


async def silent(peer: Peer) -> None:
    """Reads a request, never answers."""
    await peer.request()
    await peer.closed()


async def test_a_cancelled_wait_ends_its_flight_alone(poster: Poster) -> None:
    async with hostile(silent) as server:
        tasks = [asyncio.create_task(poster.post(server.url)) for _ in range(2)]
        await until(lambda: len(server.peers) == 2, "both connected")
        tasks[0].cancel()
        await until(lambda: server.open == 1, "one is closed")
        assert not tasks[1].done()
        assert poster.exchange.interrupt() == 1
        assert (await tasks[1]).failure is Reason.INTERRUPTED


async def test_interrupt_ends_all_that_is_under_way_and_says_what_was_sent(
    poster: Poster,
) -> None:
    async with hostile(silent) as server:
        sent = [asyncio.create_task(poster.post(server.url)) for _ in range(3)]
        await until(lambda: len(server.requests) == 3, "sent")
        unsent = asyncio.create_task(poster.post(server.url))
        await asyncio.sleep(0)  # it has posted, and is not connected yet
        assert poster.exchange.interrupt() == 4
        responses = await all_of(*sent, unsent)
        assert {response.failure for response in responses} == {Reason.INTERRUPTED}
        assert all(response.sent for response in responses[:3])
        if poster.kind == "fast":  # the reference does not know, and says the safe thing
            assert not responses[3].sent
        await until(lambda: server.open == 0, "all closed")


async def test_close_ends_all_and_does_not_wait(poster: Poster) -> None:
    async with hostile(answering(OK)) as idle, hostile(silent) as busy:
        await poster.post(idle.url)
        flight = asyncio.create_task(poster.post(busy.url))
        await until(lambda: busy.peers, "connected")
        await poster.close()
        assert (await flight).failure is Reason.INTERRUPTED
        await until(lambda: idle.open + busy.open == 0, "every connection is closed")


async def test_the_connector_can_close_under_an_exchange(poster: Poster) -> None:
    """It waits to hear of the loss of each connection that it has handed out."""
    async with hostile(silent) as server:
        flight = asyncio.create_task(poster.post(server.url))
        await until(lambda: server.peers, "connected")
        async with asyncio.timeout(5):
            await poster.pool.close()
        assert (await flight).failure is Reason.DISCONNECTED


async def test_close_does_not_wait_for_a_connection_that_was_lost(poster: Poster) -> None:
    """The connector's close waits for each connection it knows to hear of its loss."""

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.reset()

    async with hostile(script) as server:
        assert (await poster.post(server.url)).failure is Reason.DISCONNECTED
        await poster.close()


@only_fast
async def test_a_closed_connection_is_let_go_without_a_garbage_collection(poster: Poster) -> None:
    """Receivers that close after each answer must not make work for the collector."""
    gc.collect()
    gc.disable()
    try:
        async with hostile(answering(answer(200, b"", b"Connection: close\r\n"))) as server:
            for _ in range(20):
                assert (await poster.post(server.url)).status == 200
            await until(lambda: server.open == 0, "all closed")
        left = [one for one in gc.get_objects() if type(one) in (HttpConnection, AnswerReader)]
        assert left == []
    finally:
        gc.enable()


async def test_what_an_end_raises_is_told_and_breaks_nothing(poster: Poster) -> None:
    class Faulty:
        def ended(self, response: Response) -> None:
            raise LookupError(response.status)

    async with hostile(answering(OK)) as server:
        target = poster.exchange.target(server.url, ())
        for number in range(3):
            poster.exchange.post(target, b"", b"{}", poster.timers.now() + 10, Faulty())
            await until(lambda n=number: len(poster.faults) > n, "told")  # type: ignore[misc]
        assert [repr(fault) for fault in poster.faults] == ["LookupError(200)"] * 3
        poster.faults.clear()
        assert (await poster.post(server.url)).status == 200
        assert len(server.peers) == 1
