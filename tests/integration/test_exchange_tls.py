"""TLS under an exchange: it works, and each way in which it does not has its name.

The same tests for the fast exchange and for the reference.
"""

from __future__ import annotations

import asyncio
import ssl

import pytest

from dispatcherd.delivery import Reason
from tests.rig.authority import Authority
from tests.rig.exchanges import Poster, Posters, gone_back, posters, unasked_is_read, until
from tests.rig.hostile import Peer, answer, answering, hostile

__all__ = ["posters"]

OK = answer(200, b"ok")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def serving(authority: Authority) -> ssl.SSLContext:
    return authority.serving(["localhost", "127.0.0.1"])


@pytest.fixture
async def poster(posters: Posters, authority: Authority) -> Poster:
    """Trusts the tests' authority alone."""
    return posters(tls=authority.trusting(), keepalive_seconds=3)


async def test_requests_share_a_tls_connection(poster: Poster, serving: ssl.SSLContext) -> None:
    body = b"x" * 300_000
    async with hostile(answering(OK), tls=serving) as server:
        for _ in range(5):
            response = await poster.post(server.url, body)
            assert (response.status, response.body) == (200, b"ok")
        assert [request.body == body for request in server.requests] == [True] * 5
        assert len(server.peers) == 1
        await gone_back(poster)
        assert (await poster.post(server.url)).status == 200
        assert len(server.peers) == 1


async def test_the_name_in_the_url_is_what_the_certificate_must_hold(
    poster: Poster, authority: Authority
) -> None:
    async with hostile(answering(OK), tls=authority.serving(["localhost"])) as server:
        assert (await poster.post(f"https://localhost:{server.port}/")).status == 200
        refused = await poster.post(server.url)
        assert (refused.failure, refused.sent) == (Reason.TLS_WRONG_HOST, False)
        assert server.requests[1:] == []


async def test_an_expired_certificate_is_refused(poster: Poster, authority: Authority) -> None:
    context = authority.serving(["127.0.0.1"], expired=True)
    async with hostile(answering(OK), tls=context) as server:
        response = await poster.post(server.url)
        assert (response.failure, response.sent) == (Reason.TLS_EXPIRED, False)
        assert "expired" in response.detail
        assert server.requests == []


async def test_an_unknown_authority_is_refused(
    posters: Posters, poster: Poster, serving: ssl.SSLContext
) -> None:
    system = posters()  # trusts the system's authorities
    async with hostile(answering(OK), tls=serving) as server:
        response = await system.post(server.url)
        assert (response.failure, response.sent) == (Reason.TLS_UNKNOWN_ISSUER, False)
        assert server.requests == []
        assert (await poster.post(server.url)).status == 200


async def test_plain_http_on_the_tls_port_is_a_failure_and_never_a_downgrade(
    poster: Poster,
) -> None:
    heard = bytearray()

    async def script(peer: Peer) -> None:
        heard.extend(await peer.reader.read(5))
        await peer.send(answer(400, b"this is plain HTTP"))

    async with hostile(script) as server:
        response = await poster.post(f"https://127.0.0.1:{server.port}/", b"secret")
    assert (response.status, response.failure, response.sent) == (0, Reason.TLS_FAILED, False)
    assert heard[:2] == b"\x16\x03"  # a TLS record: nothing of the request went out


async def test_tls_on_the_plain_port_is_a_bad_response(
    poster: Poster, serving: ssl.SSLContext
) -> None:
    async with hostile(answering(OK), tls=serving) as server:
        response = await poster.post(f"http://127.0.0.1:{server.port}/")
    assert response.failure in (Reason.BAD_RESPONSE, Reason.DISCONNECTED)


async def test_a_stalled_handshake_ends_at_the_deadline(poster: Poster) -> None:
    async def script(peer: Peer) -> None:
        await peer.closed()

    async with hostile(script) as server:
        response = await poster.post(f"https://127.0.0.1:{server.port}/", seconds=0.4)
        assert (response.failure, response.sent) == (Reason.CONNECT_TIMEOUT, False)
        await until(lambda: server.open == 0, "the connection is closed")


@pytest.mark.parametrize("how", ["closed", "reset"])
async def test_a_handshake_that_breaks_off_is_named(poster: Poster, how: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.read(5)
        if how == "reset":
            peer.reset()

    async with hostile(script) as server:
        response = await poster.post(f"https://127.0.0.1:{server.port}/")
    assert response.failure in (Reason.CONNECT_FAILED, Reason.TLS_FAILED)
    assert not response.sent


async def test_an_old_protocol_is_refused(poster: Poster, serving: ssl.SSLContext) -> None:
    """TLS 1.1 cannot be offered by this OpenSSL: a server hello that picks it, by hand."""
    hello = b"\x03\x02" + b"\0" * 32 + b"\0" + b"\xc0\x13" + b"\0"
    message = b"\x02" + len(hello).to_bytes(3, "big") + hello
    record = b"\x16\x03\x02" + len(message).to_bytes(2, "big") + message

    async def script(peer: Peer) -> None:
        await peer.reader.read(5)
        await peer.send(record)
        await peer.closed()

    async with hostile(script) as server:
        response = await poster.post(f"https://127.0.0.1:{server.port}/")
    assert (response.failure, response.sent) == (Reason.TLS_VERSION, False)


@pytest.mark.parametrize("how", ["closed", "reset"])
async def test_an_answer_that_breaks_off_under_tls_is_a_disconnect(
    poster: Poster, serving: ssl.SSLContext, how: str
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 X\r\nContent-Length: 10\r\n\r\nshort")
        await peer.pause()
        if how == "reset":
            peer.reset()

    async with hostile(script, tls=serving) as server:
        response = await poster.post(server.url)
    assert (response.status, response.failure, response.sent) == (200, Reason.DISCONNECTED, True)


async def test_a_receiver_that_stops_reading_under_tls_ends_at_the_deadline(
    poster: Poster, serving: ssl.SSLContext
) -> None:
    async def script(peer: Peer) -> None:
        await asyncio.Event().wait()

    async with hostile(script, tls=serving) as server:
        response = await poster.post(server.url, b"x" * 20_000_000, seconds=0.5)
        assert (response.failure, response.sent) == (Reason.TIMEOUT, True)


async def test_unsolicited_bytes_under_tls_are_never_an_answer(
    poster: Poster, serving: ssl.SSLContext
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK if peer.number == 0 else answer(503))
        await peer.pause()
        await peer.send(OK)
        await peer.closed()

    async with hostile(script, tls=serving) as server:
        assert (await poster.post(server.url)).status == 200
        await unasked_is_read()
        assert (await poster.post(server.url)).status == 503
        assert len(server.peers) == 2


async def test_a_client_certificate_that_is_missing_is_named(
    poster: Poster, authority: Authority
) -> None:
    """TLS 1.3: the refusal comes after the request may have been sent."""
    context = authority.serving(["127.0.0.1"])
    context.verify_mode = ssl.CERT_REQUIRED
    async with hostile(answering(OK), tls=context) as server:
        response = await poster.post(server.url)
        assert response.failure in (Reason.TLS_FAILED, Reason.DISCONNECTED)
        assert server.requests == []


async def test_close_leaves_no_tls_connection_open(poster: Poster, serving: ssl.SSLContext) -> None:
    async with hostile(answering(OK), tls=serving) as server:
        assert (await poster.post(server.url)).status == 200
        await poster.close()
        await until(lambda: server.open == 0, "closed")
