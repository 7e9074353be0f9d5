"""What an exchange makes of answers that are too large, broken, cut off or never come.

The same tests for the fast exchange and for the reference; where the two differ, the test says so.
"""

from __future__ import annotations

import asyncio
import gzip

import pytest

from dispatcherd.delivery import Reason
from tests.rig.exchanges import Poster, Posters, poster, posters
from tests.rig.hostile import Peer, answer, answering, hostile

__all__ = ["poster", "posters"]

OK = answer(200, b"ok")
BODY = b'{"a": 1}'


# --- bodies over the bound ---------------------------------------------------------------------


async def test_a_body_at_the_bound_is_whole_and_one_above_it_is_cut(posters: Posters) -> None:
    poster = posters(max_response_body_bytes=1_000)
    async with hostile(answering(answer(200, b"x" * 1_000), answer(200, b"y" * 1_001))) as server:
        assert (await poster.post(server.url)).body == b"x" * 1_000
        assert len(server.peers) == 1
        cut = await poster.post(server.url)
        assert (cut.status, cut.failure, cut.body) == (200, None, b"y" * 1_000)
        if poster.kind == "fast":  # the reference has seen the end of the body, and keeps it
            await server.peers[0].ended.wait()
        assert (await poster.post(server.url)).status == 200


@pytest.mark.parametrize("framing", ["length", "chunked", "none"])
async def test_an_endless_body_is_cut_at_the_bound(poster: Poster, framing: str) -> None:
    head = {
        "length": b"Content-Length: 1000000000\r\n",
        "chunked": b"Transfer-Encoding: chunked\r\n",
        "none": b"",
    }[framing]
    block = b"y" * 65_536
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(b"HTTP/1.1 200 X\r\n%b\r\n" % head)
        while True:
            await peer.send(b"10000\r\n%b\r\n" % block if framing == "chunked" else block)
            sent += len(block)

    async with hostile(script) as server:
        response = await poster.post(server.url)
        assert (response.status, response.failure) == (200, None)
        assert response.body == b"y" * 16_384
        await server.peers[0].ended.wait()
    assert sent < 50_000_000  # what the kernel's buffers hold, not what the receiver would send


async def test_a_compressed_body_is_not_inflated(poster: Poster) -> None:
    bomb = gzip.compress(b"\0" * 3_000_000)
    headers = b"Content-Encoding: gzip\r\n"
    async with hostile(answering(answer(200, bomb, headers))) as server:
        assert (await poster.post(server.url)).body == bomb[:16_384]


# --- answers that are none ---------------------------------------------------------------------

_BROKEN = {
    "two lengths": (0, answer(200, b"ok", b"Content-Length: 2\r\n")),
    "two different lengths": (0, answer(200, b"ok", b"Content-Length: 3\r\n")),
    "length and chunked": (0, answer(200, b"ok", b"Transfer-Encoding: chunked\r\n")),
    "negative length": (0, b"HTTP/1.1 200 X\r\nContent-Length: -2\r\n\r\nok"),
    "length too large": (0, b"HTTP/1.1 200 X\r\nContent-Length: 9%b\r\n\r\nok" % (b"9" * 30)),
    "bad chunk": (200, b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n"),
    "bad end of chunk": (200, b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokay"),
    "no HTTP": (0, b"<html>hello</html>\r\n\r\n"),
    "status of four digits": (0, answer(2000)),
    "status of letters": (0, b"HTTP/1.1 abc X\r\n\r\n"),
    "NUL in a header": (0, answer(200, b"ok", b"X: a\0b\r\n")),
    "header without a colon": (0, answer(200, b"ok", b"nonsense\r\n")),
    "TLS": (0, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64),
}


@pytest.mark.parametrize("case", _BROKEN)
async def test_a_broken_answer_is_a_bad_response(poster: Poster, case: str) -> None:
    """Where a chunk is broken, aiohttp has forgotten the status."""
    status, data = _BROKEN[case]
    async with hostile(answering(data)) as server:
        response = await poster.post(server.url)
        assert response.status == (status if poster.kind == "fast" else 0)
        assert response.failure is Reason.BAD_RESPONSE
        assert response.sent
        assert response.detail
        await server.peers[0].ended.wait()


async def test_a_chunk_that_breaks_later_is_no_success(poster: Poster) -> None:
    """aiohttp 3.14.5 does not notice and waits: the reference ends at the deadline."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
        await peer.pause()
        await peer.send(b"zz\r\n")
        await peer.closed()

    async with hostile(script) as server:
        response = await poster.post(server.url, seconds=1.0)
    expected = Reason.BAD_RESPONSE if poster.kind == "fast" else Reason.TIMEOUT
    assert (response.status, response.failure) == (200, expected)


_SHORT = {
    "nothing at all": (0, b""),
    "half a head": (0, b"HTTP/1.1 200 X\r\nContent-"),
    "only an interim answer": (0, b"HTTP/1.1 100 X\r\n\r\n"),
    "short body": (200, b"HTTP/1.1 200 X\r\nContent-Length: 10\r\n\r\nshort"),
    "unfinished chunk": (200, b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nshort"),
    "no last chunk": (200, b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"),
}


@pytest.mark.parametrize("how", ["closed", "reset"])
@pytest.mark.parametrize("case", _SHORT)
async def test_an_answer_that_breaks_off_is_a_disconnect(
    poster: Poster, case: str, how: str
) -> None:
    status, data = _SHORT[case]

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(data)
        await peer.pause()  # or a reset overtakes what was sent
        if how == "reset":
            peer.reset()

    async with hostile(script) as server:
        response = await poster.post(server.url)
    assert (response.status, response.failure) == (status, Reason.DISCONNECTED)
    assert response.sent


async def test_a_reset_in_a_body_without_length_is_no_success(poster: Poster) -> None:
    """aiohttp 3.14.5 takes a reset there for the end; the fast exchange does not."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 X\r\n\r\nas long ")
        await peer.pause()
        peer.reset()

    async with hostile(script) as server:
        response = await poster.post(server.url)
    expected = Reason.DISCONNECTED if poster.kind == "fast" else None
    assert (response.status, response.failure) == (200, expected)


async def test_a_head_over_the_bound_is_a_bad_response(posters: Posters) -> None:
    poster = posters(max_response_header_bytes=4_096)
    long = answer(200, b"ok", b"X-Long: %b\r\n" % (b"x" * 5_000))
    fits = answer(200, b"ok", b"X-Long: %b\r\n" % (b"x" * 3_900))
    async with hostile(answering(fits, long)) as server:
        assert (await poster.post(server.url)).status == 200
        response = await poster.post(server.url)
    assert (response.status, response.failure) == (0, Reason.BAD_RESPONSE)


async def test_many_headers_count_against_the_bound(posters: Posters) -> None:
    """The reference bounds them by number (128) and by the size of each, the fast one in all."""
    poster = posters(max_response_header_bytes=4_096)
    many = answer(200, b"ok", b"X-Header: value\r\n" * 300)
    async with hostile(answering(many)) as server:
        response = await poster.post(server.url)
    assert (response.status, response.failure) == (0, Reason.BAD_RESPONSE)


async def test_a_megabyte_of_headers_is_not_read(poster: Poster) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 X\r\n")
        for number in range(20_000):
            await peer.send(b"X-%d: %b\r\n" % (number, b"x" * 50))
        await peer.closed()

    async with hostile(script) as server:
        response = await poster.post(server.url)
        assert response.failure is Reason.BAD_RESPONSE
        await server.peers[0].ended.wait()


# --- receivers that keep us waiting ------------------------------------------------------------


async def test_a_dripping_head_ends_at_the_deadline(poster: Poster) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 X\r\n")
        while True:
            await peer.send(b"X: y\r\n")
            await peer.pause()

    async with hostile(script) as server:
        response = await poster.post(server.url, seconds=0.4)
        assert (response.status, response.failure) == (0, Reason.TIMEOUT)
        assert response.sent
        await server.peers[0].ended.wait()


async def test_a_dripping_body_ends_at_the_deadline(poster: Poster) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 X\r\nContent-Length: 1000\r\n\r\n")
        while True:
            await peer.send(b"x")
            await peer.pause()

    async with hostile(script) as server:
        response = await poster.post(server.url, seconds=0.4)
        assert (response.status, response.failure) == (200, Reason.TIMEOUT)
        await server.peers[0].ended.wait()


async def test_a_receiver_that_never_reads_ends_at_the_deadline(poster: Poster) -> None:
    async def script(peer: Peer) -> None:
        await asyncio.Event().wait()

    async with hostile(script) as server:
        response = await poster.post(server.url, b"x" * 20_000_000, seconds=0.4)
    assert (response.status, response.failure) == (0, Reason.TIMEOUT)
    assert response.sent


async def test_a_receiver_that_never_answers_ends_at_the_deadline(poster: Poster) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.closed()

    async with hostile(script) as server:
        response = await poster.post(server.url, seconds=0.3)
        assert (response.status, response.failure) == (0, Reason.TIMEOUT)
        await server.peers[0].ended.wait()


async def test_endless_interim_answers_end(poster: Poster) -> None:
    """The fast exchange counts them and ends early; the reference ends at the deadline."""

    async def script(peer: Peer) -> None:
        await peer.request()
        while True:
            await peer.send(b"HTTP/1.1 102 Processing\r\n\r\n")
            await asyncio.sleep(0.001)  # or it would keep the loop that both sides share

    async with hostile(script) as server:
        response = await poster.post(server.url, seconds=1.0)
        expected = Reason.BAD_RESPONSE if poster.kind == "fast" else Reason.TIMEOUT
        assert (response.status, response.failure) == (0, expected)
        await server.peers[0].ended.wait()


async def test_endless_framing_without_a_body_ends(poster: Poster) -> None:
    """A chunk whose extension never ends: the fast exchange counts; the reference ends at the
    deadline, or by its own limit."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n1;")
        while True:
            await peer.send(b"x" * 4_096)
            await asyncio.sleep(0.001)  # or it would keep the loop that both sides share

    async with hostile(script) as server:
        response = await poster.post(server.url, seconds=1.0)
        assert response.failure in (Reason.BAD_RESPONSE, Reason.TIMEOUT)
        assert poster.kind != "fast" or response.failure is Reason.BAD_RESPONSE
        await server.peers[0].ended.wait()
