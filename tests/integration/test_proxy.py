"""Through an egress proxy: what it is asked for, what it may refuse, and that nothing goes past it.

Each test runs with both exchanges, against a proxy and receivers on real sockets.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from dispatcherd.address import AddressGuard
from dispatcherd.config.model import NetworkConfig, ProxyConfig
from dispatcherd.delivery import Reason
from dispatcherd.pool import connector
from tests.rig.authority import Authority
from tests.rig.connect_proxy import DARK, ConnectProxy, connect_proxy
from tests.rig.exchanges import Poster, Posters, all_of, posters, until
from tests.rig.hostile import answer, answering, hostile
from tests.rig.lookups import Names
from tests.rig.tinyproxy import PASSWORD, USERNAME, Tinyproxy
from tests.rig.waiting import free_port

__all__ = ["posters"]

PUBLIC, ALSO_PUBLIC = "93.184.216.34", "93.184.216.35"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def serving(authority: Authority) -> ssl.SSLContext:
    return authority.serving(["hooks.example.com"])


@pytest.fixture
async def proxy() -> AsyncIterator[ConnectProxy]:
    async with connect_proxy() as one:
        yield one


def through(
    posters: Posters,
    proxy: ConnectProxy,
    authority: Authority,
    names: Names | None = None,
    **keys: Any,
) -> Poster:
    """An exchange with that proxy, on loopback although loopback is not allowed to receivers."""
    password = keys.pop("password", None)
    return posters(
        tls=authority.trusting(),
        resolver=names,
        proxy_password=password,
        allowed_networks=[],
        proxy={"url": proxy.url, **keys},
    )


async def test_the_proxy_is_asked_for_the_address_that_was_checked_and_tls_is_with_the_name(
    posters: Posters, proxy: ConnectProxy, authority: Authority, serving: ssl.SSLContext
) -> None:
    poster = through(posters, proxy, authority, Names([PUBLIC]))
    async with hostile(answering(answer(200, b"ok")), tls=serving) as server:
        proxy.route = lambda target: server.port
        for _ in range(3):
            response = await poster.post("https://hooks.example.com:8443/in?x=1", b"body")
            assert (response.status, response.body) == (200, b"ok"), response.detail
        request = server.requests[0]
        assert request.line == "POST /in?x=1 HTTP/1.1"
        assert request.header("host") == "hooks.example.com:8443"
        assert request.body == b"body"
        assert len(server.peers) == 1  # the tunnel is kept, like any connection
    assert proxy.asked == [f"{PUBLIC}:8443"]
    assert "authorization" not in proxy.heads[0].lower()


async def test_inside_the_tunnel_the_receiver_is_verified(
    posters: Posters, proxy: ConnectProxy, authority: Authority, serving: ssl.SSLContext
) -> None:
    poster = through(posters, proxy, authority, Names([PUBLIC]))
    async with hostile(answering(answer(200)), tls=serving) as server:
        proxy.route = lambda target: server.port
        response = await poster.post("https://other.example.com/")
        assert (response.failure, response.sent) == (Reason.TLS_WRONG_HOST, False)
        assert server.requests == []


@pytest.mark.parametrize(
    "answers",
    [["10.0.0.1"], ["127.0.0.1"], [PUBLIC, "169.254.169.254"], ["::1"], ["64:ff9b::a00:1"]],
    ids=" and ".join,
)
async def test_a_name_with_a_forbidden_address_is_refused_before_the_proxy_hears_of_it(
    posters: Posters, proxy: ConnectProxy, authority: Authority, answers: list[str]
) -> None:
    poster = through(posters, proxy, authority, Names(answers))
    response = await poster.post("https://hooks.example.com/")
    assert (response.failure, response.sent) == (Reason.ADDRESS_FORBIDDEN, False)
    assert proxy.heads == [] and proxy.open == 0


@pytest.mark.parametrize("resolves", [False, True], ids=["checked_here", "proxy_resolves"])
@pytest.mark.parametrize("host", ["10.0.0.1", "[::1]", "127.0.0.1", "[::ffff:10.0.0.1]"])
async def test_a_forbidden_literal_is_refused_whoever_resolves(
    posters: Posters, proxy: ConnectProxy, authority: Authority, host: str, resolves: bool
) -> None:
    poster = through(posters, proxy, authority, resolves_names=resolves)
    response = await poster.post(f"https://{host}/")
    assert (response.failure, response.sent) == (Reason.ADDRESS_FORBIDDEN, False)
    assert proxy.heads == []


async def test_a_name_that_changes_its_address_later_does_not_change_what_was_checked(
    posters: Posters, proxy: ConnectProxy, authority: Authority, serving: ssl.SSLContext
) -> None:
    """DNS rebinding: the proxy is never given the name, so that its own look-up cannot differ."""
    names = Names([PUBLIC], ["127.0.0.1"])
    poster = through(posters, proxy, authority, names, resolves_names=False)
    async with hostile(answering(answer(200)), tls=serving) as server:
        proxy.route = lambda target: server.port
        assert (await poster.post("https://hooks.example.com/")).status == 200
    assert proxy.asked == [f"{PUBLIC}:443"]
    again = through(posters, proxy, authority, names)
    refused = await again.post("https://hooks.example.com/")
    assert refused.failure is Reason.ADDRESS_FORBIDDEN
    assert len(proxy.heads) == 1


async def test_a_proxy_that_resolves_is_given_the_name(
    posters: Posters, proxy: ConnectProxy, authority: Authority, serving: ssl.SSLContext
) -> None:
    names = Names(["10.0.0.1"])
    poster = through(posters, proxy, authority, names, resolves_names=True)
    async with hostile(answering(answer(200)), tls=serving) as server:
        proxy.route = lambda target: server.port
        assert (await poster.post("https://hooks.example.com/")).status == 200
    assert proxy.asked == ["hooks.example.com:443"]
    assert names.asked == 0


async def test_name_and_password_go_to_the_proxy_and_not_to_the_receiver(
    posters: Posters, proxy: ConnectProxy, authority: Authority, serving: ssl.SSLContext
) -> None:
    poster = through(posters, proxy, authority, Names([PUBLIC]), username="me", password="hünter:2")
    async with hostile(answering(answer(200)), tls=serving) as server:
        proxy.route = lambda target: server.port
        assert (await poster.post("https://hooks.example.com/")).status == 200
        names = [name.lower() for name, _ in server.requests[0].headers]
        assert not any("authorization" in name for name in names)
    expected = base64.b64encode("me:hünter:2".encode()).decode()
    assert f"\r\nProxy-Authorization: Basic {expected}\r\n" in proxy.heads[0]


@pytest.mark.parametrize(
    ("said", "reason", "words"),
    [
        (b"HTTP/1.1 407 X\r\nContent-Length: 0\r\n\r\n", Reason.PROXY_REFUSED, "proxy.username"),
        (b"HTTP/1.1 403 X\r\nContent-Length: 0\r\n\r\n", Reason.PROXY_REFUSED, "its rules"),
        (b"HTTP/1.1 405 X\r\nContent-Length: 0\r\n\r\n", Reason.PROXY_REFUSED, "CONNECT"),
        (b"HTTP/1.1 502 X\r\nContent-Length: 0\r\n\r\n", Reason.CONNECT_FAILED, "502 Bad Gateway"),
        (b"HTTP/1.1 301 X\r\nLocation: http://x/\r\n\r\n", Reason.PROXY_REFUSED, "301"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Reason.PROXY_FAILED, "did not answer CONNECT"),
        (b"", Reason.PROXY_FAILED, "did not answer CONNECT"),
    ],
    ids=["407", "403", "405", "502", "301", "not_http", "closes"],
)
async def test_a_proxy_that_does_not_do_it_is_named_and_the_receiver_is_not_blamed(
    posters: Posters,
    proxy: ConnectProxy,
    authority: Authority,
    said: bytes,
    reason: Reason,
    words: str,
) -> None:
    poster = through(
        posters, proxy, authority, Names([PUBLIC]), username="me", password="hunter2hunter2"
    )
    proxy.answer = lambda target: said
    response = await poster.post("https://hooks.example.com/")
    assert (response.status, response.failure, response.sent) == (0, reason, False)
    assert "network.proxy" in response.detail and words in response.detail, response.detail
    assert "hunter2" not in response.detail
    await until(lambda: proxy.open == 0, "the connection to the proxy is closed")


async def test_a_dark_proxy_ends_at_the_deadline(
    posters: Posters, proxy: ConnectProxy, authority: Authority
) -> None:
    poster = through(posters, proxy, authority, Names([PUBLIC]))
    proxy.answer = lambda target: DARK
    response = await poster.post("https://hooks.example.com/", seconds=0.4)
    assert (response.failure, response.sent) == (Reason.CONNECT_TIMEOUT, False)
    await until(lambda: proxy.open == 0, "the connection to the proxy is closed")


async def test_a_proxy_that_is_down_or_has_no_address_is_named(
    posters: Posters, authority: Authority
) -> None:
    for host in ("127.0.0.1", "no-such-proxy.invalid"):
        poster = posters(tls=authority.trusting(), proxy={"url": f"http://{host}:{free_port()}"})
        response = await poster.post("https://127.0.0.1/")
        assert (response.failure, response.sent) == (Reason.PROXY_FAILED, False)
        assert "network.proxy cannot be reached" in response.detail


async def test_the_next_address_is_tried_when_the_proxy_did_not_reach_the_first(
    posters: Posters, proxy: ConnectProxy, authority: Authority, serving: ssl.SSLContext
) -> None:
    poster = through(posters, proxy, authority, Names([PUBLIC, ALSO_PUBLIC]))
    working = proxy.answer
    async with hostile(answering(answer(200)), tls=serving) as server:
        proxy.route = lambda target: server.port
        proxy.answer = lambda target: (
            b"HTTP/1.1 504 X\r\n\r\n" if target.startswith(PUBLIC + ":") else working(target)
        )
        assert (await poster.post("https://hooks.example.com/")).status == 200
    assert proxy.asked == [f"{PUBLIC}:443", f"{ALSO_PUBLIC}:443"]


async def test_plain_http_goes_neither_through_the_proxy_nor_past_it(
    posters: Posters, proxy: ConnectProxy, authority: Authority
) -> None:
    poster = posters(tls=authority.trusting(), proxy={"url": proxy.url})
    async with hostile(answering(answer(200))) as server:
        response = await poster.post(server.url)
        assert (response.failure, response.sent) == (Reason.PROXY_REFUSED, False)
        assert server.peers == [] and proxy.heads == []


@pytest.mark.parametrize("host", ["127.0.0.2", "elsewhere.example.com"])
async def test_no_socket_is_made_past_the_proxy_even_where_something_asked_for_one(
    proxy: ConnectProxy, host: str
) -> None:
    """The way around the proxy, by hand: aiohttp's own connect."""
    config = NetworkConfig(proxy=ProxyConfig(url=proxy.url), allowed_networks=["0.0.0.0/0"])
    pool = connector(config, AddressGuard(config.allowed_networks), resolver=Names(["127.0.0.2"]))
    async with hostile(answering(answer(200))) as server:
        url = URL(f"http://{host}:{server.port}/")
        request = aiohttp.ClientRequest("POST", url, loop=asyncio.get_running_loop())
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await aiohttp.TCPConnector.connect(pool, request, [], aiohttp.ClientTimeout())
        assert "network.proxy" in str(caught.value.os_error)
        assert server.peers == []
    await pool.close()


async def test_many_requests_at_once_look_a_name_up_once(
    posters: Posters, proxy: ConnectProxy, authority: Authority, serving: ssl.SSLContext
) -> None:
    names = Names([PUBLIC])
    poster = through(posters, proxy, authority, names)
    async with hostile(answering(answer(200)), tls=serving) as server:
        proxy.route = lambda target: server.port
        done = await all_of(*[poster.post("https://hooks.example.com/") for _ in range(20)])
        assert [response.status for response in done] == [200] * 20
        assert names.asked == 1


@pytest.fixture
def tinyproxy(tmp_path: Path) -> Iterator[Tinyproxy]:
    one = Tinyproxy(tmp_path, connect_port=8443)
    yield one
    one.stop()


@pytest.mark.parametrize(
    ("password", "port", "reason", "words"),
    [
        ("wrong", 8443, Reason.PROXY_REFUSED, "proxy.username"),
        (PASSWORD, 9443, Reason.PROXY_REFUSED, "its rules"),
        (PASSWORD, 8443, Reason.CONNECT_FAILED, "500"),
    ],
    ids=["password", "port", "no_receiver"],
)
async def test_a_real_proxy_refuses_in_words(
    posters: Posters,
    authority: Authority,
    tinyproxy: Tinyproxy,
    password: str,
    port: int,
    reason: Reason,
    words: str,
) -> None:
    poster = posters(
        tls=authority.trusting(),
        proxy_password=password,
        proxy={"url": tinyproxy.url, "username": USERNAME},
    )
    response = await poster.post(f"https://127.0.0.1:{port}/")
    assert (response.failure, response.sent) == (reason, False), response.detail
    assert words in response.detail, response.detail
