"""What an exchange makes of every answer: the same tests for the fast one and for the reference.

Where the two differ, the test says so and why it is meant.
"""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise

import pytest

from dispatcherd.delivery import OutcomeKind, Reason, RetryPolicy
from dispatcherd.exchange import header_lines
from dispatcherd.outcome import decide
from tests.rig.exchanges import Poster, poster, posters
from tests.rig.hostile import Peer, answer, answering, hostile

__all__ = ["poster", "posters"]

OK = answer(200, b"ok")
BODY = b'{"a": 1}'


# --- the request -------------------------------------------------------------------------------


async def test_the_request_arrives_as_it_was_given(poster: Poster) -> None:
    body = bytes(range(256)) * 5
    async with hostile(answering(OK)) as server:
        url = f"http://127.0.0.1:{server.port}/a%2Fb/%C3%A9?x=1&y=%20z"
        response = await poster.post(
            url,
            body,
            headers=[("webhook-id", "evt_1"), ("webhook-signature", "v1,a= v1,b=")],
            static=[("content-type", "application/json"), ("X-Key", "a: b")],
        )
        (request,) = server.requests
    assert (response.status, response.failure, response.sent) == (200, None, True)
    assert request.line == "POST /a%2Fb/%C3%A9?x=1&y=%20z HTTP/1.1"
    assert request.body == body
    assert sorted((name.lower(), value) for name, value in request.headers) == [
        ("content-length", "1280"),
        ("content-type", "application/json"),
        ("host", f"127.0.0.1:{server.port}"),
        ("webhook-id", "evt_1"),
        ("webhook-signature", "v1,a= v1,b="),
        ("x-key", "a: b"),
    ]


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 8_000_000])
async def test_bodies_of_any_size_arrive_whole(poster: Poster, size: int) -> None:
    body = b"0123456789abcdef" * (size // 16) + b"z" * (size % 16)
    async with hostile(answering(OK)) as server:
        for _ in range(2):
            assert (await poster.post(server.url, body)).status == 200
        assert [request.body == body for request in server.requests] == [True, True]
        assert len(server.peers) == 1


async def test_the_root_is_asked_for_where_the_url_has_no_path(poster: Poster) -> None:
    async with hostile(answering(OK)) as server:
        await poster.post(f"http://127.0.0.1:{server.port}?a=b")
    assert server.requests[0].line == "POST /?a=b HTTP/1.1"


@pytest.mark.parametrize("pair", [("a", "b\r\nc: d"), ("a\r\nb", "c"), ("a", "\0"), ("a b", "c")])
def test_a_header_that_would_break_the_request_apart_is_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="not fit to be sent"):
        header_lines([pair])


# --- answers that are answers ------------------------------------------------------------------


async def test_every_final_status_comes_back_and_only_2xx_is_a_success(poster: Poster) -> None:
    async def script(peer: Peer) -> None:
        while True:
            status = int((await peer.request()).line.split()[1][1:])
            bare = b"HTTP/1.1 %d X\r\n\r\n" % status
            await peer.send(bare if status in (204, 304) else answer(status, b"x"))

    async with hostile(script) as server:
        for status in range(200, 600):
            response = await poster.post(f"{server.url}{status}")
            assert (response.status, response.failure) == (status, None)
            outcome = decide(response, 1, RetryPolicy((1.0,), 5), 0.0, 0.0)
            assert (outcome.kind is OutcomeKind.DELIVERED) == (status < 300)
        assert len(server.peers) == 1


@pytest.mark.parametrize("status", [0, 99, 600, 999])
async def test_a_status_outside_http_is_no_success(poster: Poster, status: int) -> None:
    async with hostile(answering(answer(status))) as server:
        response = await poster.post(server.url)
    assert response.status == status
    outcome = decide(response, 1, RetryPolicy((1.0,), 5), 0.0, 0.0)
    assert (outcome.kind, outcome.reason) == (OutcomeKind.RETRY, Reason.STATUS_UNKNOWN)


async def test_switching_protocols_is_a_status_and_ends_the_connection(poster: Poster) -> None:
    switch = b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nwhatever"
    async with hostile(answering(switch)) as server:
        for _ in range(2):
            assert (await poster.post(server.url)).status == 101
        assert len(server.peers) == 2


async def test_an_upgrade_that_is_only_offered_changes_nothing(poster: Poster) -> None:
    offer = answer(200, b"ok", b"Upgrade: h2,h2c\r\nConnection: Upgrade\r\n")
    async with hostile(answering(offer)) as server:
        for _ in range(2):
            assert (await poster.post(server.url)).body == b"ok"
        assert len(server.peers) == 1


@pytest.mark.parametrize("status", [204, 304])
async def test_a_body_where_none_may_be_is_not_the_next_answer(poster: Poster, status: int) -> None:
    fake = b"HTTP/1.1 %d X\r\nContent-Length: 40\r\n\r\n" % status + answer(200)

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(fake if peer.number == 0 else answer(503))
        await peer.closed()

    async with hostile(script) as server:
        assert (await poster.post(server.url)).status == status
        assert (await poster.post(server.url)).status == 503


@pytest.mark.parametrize(
    "location", [b"", b"Location: http://127.0.0.1:1/\r\n", b"Location: /x\r\n"]
)
async def test_redirects_are_not_followed(poster: Poster, location: bytes) -> None:
    async with hostile(answering(answer(302, b"", location))) as server:
        assert (await poster.post(server.url)).status == 302
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "value",
    [b"120", b"Fri, 31 Dec 1999 23:59:59 GMT", b"-5", b"1e308", b"soon", b"31536000", b"9" * 400],
)
async def test_retry_after_comes_back_as_it_stood(poster: Poster, value: bytes) -> None:
    later = answer(503, b"", b"RETRY-AFTER: \t%b \t\r\nRetry-After: 7\r\n" % value)
    async with hostile(answering(later, answer(503))) as server:
        response = await poster.post(server.url)
        assert response.retry_after == value.decode()[:128]
        assert (await poster.post(server.url)).retry_after is None
    outcome = decide(response, 1, RetryPolicy((1.0,), 5), 0.0, 0.0)
    assert 0 <= outcome.delay_seconds <= 86_400


@pytest.mark.parametrize("body", [b"\0" * 64, b"\xff\xfe\x80", "ключ".encode("koi8-r")])
async def test_a_body_is_bytes(poster: Poster, body: bytes) -> None:
    async with hostile(answering(answer(200, body))) as server:
        assert (await poster.post(server.url)).body == body


async def test_a_chunked_answer_is_put_together(poster: Poster) -> None:
    chunked = (
        b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\nA ;note=1\r\ndefghijklm\r\n0\r\nX-Trailer: 1\r\n\r\n"
    )
    async with hostile(answering(chunked, OK)) as server:
        assert (await poster.post(server.url)).body == b"abcdefghijklm"
        assert (await poster.post(server.url)).body == b"ok"
        assert len(server.peers) == 1


@pytest.mark.parametrize("piece", [1, 2, 7])
async def test_an_answer_in_pieces_is_the_same_answer(poster: Poster, piece: int) -> None:
    whole = answer(503, b"some body", b"Retry-After: 9\r\nX-A: b\r\n")

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            for start in range(0, len(whole), piece):
                await peer.send(whole[start : start + piece])
                await asyncio.sleep(0)

    async with hostile(script) as server:
        for _ in range(3):
            response = await poster.post(server.url)
            assert (response.status, response.body) == (503, b"some body")
            assert response.retry_after == "9"
        assert len(server.peers) == 1


async def test_any_answers_in_any_pieces_come_back_as_they_were_sent(poster: Poster) -> None:
    """What a connection remembers of its last answer must never show in the next."""
    draw = random.Random(11)
    kinds = [
        answer(200, b"ok"),
        answer(200, b"no"),
        answer(200, b""),
        answer(503, b"ok", b"Retry-After: 5\r\n"),
        answer(200, b"y" * 3_000),
        b"HTTP/1.1 103 X\r\n\r\n" + answer(200, b"ok"),
        b"HTTP/1.1 202 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ]
    expected = [(200, b"ok", None), (200, b"no", None), (200, b"", None), (503, b"ok", "5"),
                (200, b"y" * 3_000, None), (200, b"ok", None), (202, b"ok", None)]  # fmt: skip
    sent: list[int] = []

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            number = draw.choice([0, 0, 0, 0, 1, 2, 3, 4, 5, 6])
            sent.append(number)
            data = kinds[number]
            cuts = sorted(draw.randrange(len(data)) for _ in range(draw.choice([0, 0, 0, 1, 3])))
            for start, end in pairwise([0, *cuts, len(data)]):
                await peer.send(data[start:end])
                await asyncio.sleep(0)

    async with hostile(script) as server:
        for _ in range(1_000):
            got = await poster.post(server.url)
            assert (got.status, got.body, got.retry_after) == expected[sent[-1]]
        assert len(server.peers) == 1


async def test_an_answer_in_pieces_after_a_known_one_is_read_anew(poster: Poster) -> None:
    async def script(peer: Peer) -> None:
        for _ in range(3):
            await peer.request()
            await peer.send(OK)
        await peer.request()
        await peer.send(OK[:20])
        await peer.pause()
        await peer.send(OK[20:-2] + b"no")
        await peer.request()
        await peer.send(OK)
        await peer.closed()

    async with hostile(script) as server:
        bodies = [(await poster.post(server.url)).body for _ in range(5)]
        assert bodies == [b"ok", b"ok", b"ok", b"no", b"ok"]
        assert len(server.peers) == 1


async def test_interim_answers_are_passed_over(poster: Poster) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nRetry-After: 5\r\nLink: </x>\r\n\r\n"
    many = b"HTTP/1.1 100 Continue\r\n\r\n" + hints + b"HTTP/1.1 199 X\r\n\r\n" + OK
    async with hostile(answering(many)) as server:
        for _ in range(2):
            response = await poster.post(server.url)
            assert (response.status, response.body, response.retry_after) == (200, b"ok", None)
        assert len(server.peers) == 1


async def test_bare_line_feeds_are_understood(poster: Poster) -> None:
    async with hostile(answering(b"HTTP/1.1 200 X\nContent-Length: 2\n\nok")) as server:
        assert (await poster.post(server.url)).body == b"ok"


async def test_a_body_without_length_ends_with_the_connection(poster: Poster) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 X\r\n\r\nas long ")
        await peer.send(b"as it lasts")

    async with hostile(script) as server:
        for _ in range(2):
            response = await poster.post(server.url)
            assert (response.status, response.body) == (200, b"as long as it lasts")
            assert response.failure is None
        assert len(server.peers) == 2


@pytest.mark.parametrize("headers", [b"", b"Connection: close\r\n"])
async def test_http_1_0_ends_the_connection(poster: Poster, headers: bytes) -> None:
    async with hostile(answering(answer(200, b"ok", headers, version=b"1.0"))) as server:
        for _ in range(2):
            assert (await poster.post(server.url)).body == b"ok"
        assert len(server.peers) == 2


async def test_http_1_0_that_keeps_alive_is_reused(poster: Poster) -> None:
    kept = answer(200, b"ok", b"Connection: keep-alive\r\n", version=b"1.0")
    async with hostile(answering(kept)) as server:
        for _ in range(2):
            assert (await poster.post(server.url)).body == b"ok"
        assert len(server.peers) == 1


async def test_connection_close_is_heeded(poster: Poster) -> None:
    async with hostile(answering(answer(200, b"ok", b"Connection: close\r\n"))) as server:
        for _ in range(3):
            assert (await poster.post(server.url)).body == b"ok"
        assert len(server.peers) == 3


async def test_an_early_answer_counts_and_ends_the_connection(poster: Poster) -> None:
    async def script(peer: Peer) -> None:
        if peer.number == 0:
            await peer.head()
            await peer.send(answer(413, b"too large"))
            await asyncio.Event().wait()  # the rest of the request is never read
        await peer.request()
        await peer.send(OK)
        await peer.closed()

    async with hostile(script) as server:
        response = await poster.post(server.url, b"x" * 20_000_000)
        assert (response.status, response.failure) == (413, None)
        assert (await poster.post(server.url)).status == 200
        assert len(server.peers) == 2


async def test_a_body_that_looks_like_the_last_answer_is_a_body(poster: Poster) -> None:
    async def script(peer: Peer) -> None:
        for _ in range(2):
            await peer.request()
            await peer.send(OK)
        await peer.request()
        await peer.send(b"HTTP/1.1 503 X\r\nContent-Length: %d\r\n\r\n" % len(OK))
        await peer.pause()
        await peer.send(OK)
        await peer.closed()

    async with hostile(script) as server:
        for _ in range(2):
            assert (await poster.post(server.url)).status == 200
        response = await poster.post(server.url)
        assert (response.status, response.body) == (503, OK)
