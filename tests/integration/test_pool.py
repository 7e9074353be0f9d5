"""The pool on real sockets: what is connected to is judged at connect, whatever DNS said before,
and what a receiver says unasked is no answer.

The receivers listen on 127.0.0.1 (allowed here) and 127.0.0.2 (not): a refusal is shown by the
second one never seeing a connection, and not by an error alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import aiohttp
import pytest
import uvloop

from dispatcherd.address import AddressGuard
from dispatcherd.config.model import NetworkConfig
from dispatcherd.pool import ForbiddenConnect, connector, own_addresses
from tests.rig.lookups import Names
from tests.rig.waiting import wait_for

ALLOWED, FORBIDDEN = "127.0.0.1", "127.0.0.2"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"


class Receiver:
    """A thread per connection, written by hand: it answers, and speaks unasked when told to."""

    def __init__(self, address: str, port: int = 0) -> None:
        self._listener = socket.create_server((address, port))
        self.port: int = self._listener.getsockname()[1]
        self.connections: list[socket.socket] = []
        self.answers = [OK]
        """What each connection answers, the last one for all further ones."""
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            answer = self.answers[min(len(self.connections), len(self.answers) - 1)]
            self.connections.append(connection)
            threading.Thread(target=self._serve, args=(connection, answer), daemon=True).start()

    def _serve(self, connection: socket.socket, answer: bytes) -> None:
        buffer = b""
        with contextlib.suppress(OSError):
            while data := connection.recv(65_536):
                buffer += data
                while b"\r\n\r\n{}" in buffer:
                    buffer = buffer.split(b"\r\n\r\n{}", 1)[1]
                    connection.sendall(answer)

    def stop(self) -> None:
        """Close everything."""
        self._listener.close()
        for connection in self.connections:
            connection.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    one = Receiver(ALLOWED)
    yield one
    one.stop()


@pytest.fixture
def forbidden(receiver: Receiver) -> Iterator[Receiver]:
    """On the same port as the allowed one, so that one name and port could mean either."""
    one = Receiver(FORBIDDEN, receiver.port)
    yield one
    one.stop()


def guard(*allowed: str, own: Sequence[str] = ()) -> AddressGuard:
    return AddressGuard(allowed or [f"{ALLOWED}/32"], own)


async def post(session: aiohttp.ClientSession, url: str) -> int:
    async with session.post(url, data=b"{}", allow_redirects=False) as answer:
        await answer.read()
        return answer.status


def pool(names: Names | None = None, judge: AddressGuard | None = None, **settings: Any) -> Any:
    config = NetworkConfig(**{"keepalive_seconds": 60.0, **settings})
    made = connector(config, judge or guard(), resolver=names)
    return aiohttp.ClientSession(connector=made, timeout=aiohttp.ClientTimeout(total=10))


def cause(error: BaseException) -> BaseException:
    """The ForbiddenConnect inside what aiohttp raised."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, ForbiddenConnect):
        seen = getattr(seen, "os_error", None) or seen.__cause__
    assert seen is not None, repr(error)
    return seen


async def assert_refused(session: aiohttp.ClientSession, url: str, word: str) -> None:
    with pytest.raises((aiohttp.ClientError, OSError)) as caught:
        await post(session, url)
    assert word in str(cause(caught.value))


# --- the address that is connected to ------------------------------------------------------


async def test_a_name_that_answers_with_an_allowed_address_is_connected_to(
    receiver: Receiver,
) -> None:
    async with pool(Names([ALLOWED])) as session:
        assert await post(session, f"http://receiver.example:{receiver.port}/") == 200


@pytest.mark.parametrize(
    "answer",
    [[FORBIDDEN], [ALLOWED, FORBIDDEN], [FORBIDDEN, ALLOWED], ["8.8.8.8", FORBIDDEN],
     [ALLOWED, "::ffff:127.0.0.2"], [ALLOWED, "10.0.0.1"], [ALLOWED, "fe80::1%lo"]],
)  # fmt: skip
async def test_a_name_that_answers_with_any_forbidden_address_is_refused(
    receiver: Receiver, forbidden: Receiver, answer: list[str]
) -> None:
    async with pool(Names(answer)) as session:
        await assert_refused(session, f"http://mixed.example:{receiver.port}/", "is forbidden")
    assert receiver.connections == forbidden.connections == []


async def test_a_name_that_answers_otherwise_the_second_time_is_judged_again(
    receiver: Receiver, forbidden: Receiver
) -> None:
    """DNS rebinding: the first answer is harmless, the one for the next connection is not."""
    receiver.answers = [OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")]
    names = Names([ALLOWED], [FORBIDDEN])
    async with pool(names, dns_cache_seconds=0.0) as session:
        url = f"http://rebinds.example:{receiver.port}/"
        assert await post(session, url) == 200
        await assert_refused(session, url, "is forbidden")
    assert names.asked == 2
    assert forbidden.connections == []


class Lying(AddressGuard):
    """Says nothing the first time it is asked about an address, as a name server that answers one
    thing to the check and another to the connection would have it."""

    def __init__(self, allowed: Sequence[str]) -> None:
        super().__init__(allowed)
        self.asked: list[str] = []

    def check(self, address: str) -> None:
        self.asked.append(address)
        if self.asked.count(address) > 1:
            super().check(address)


async def test_the_check_at_connect_stands_alone_when_the_one_after_dns_was_passed(
    receiver: Receiver, forbidden: Receiver
) -> None:
    judge = Lying([f"{ALLOWED}/32"])
    async with pool(Names([FORBIDDEN]), judge) as session:
        await assert_refused(session, f"http://passed.example:{receiver.port}/", "is forbidden")
    assert judge.asked == [FORBIDDEN, FORBIDDEN]
    assert forbidden.connections == []


@pytest.mark.parametrize(
    "host",
    [FORBIDDEN, "127.2", "2130706434", "0x7f.0.0.2", "0177.0.0.2", "①②⑦.⓪.⓪.②", "127。0。0。2",
     "[::ffff:127.0.0.2]", "[::ffff:7f00:2]"],
)  # fmt: skip
async def test_a_literal_is_judged_in_every_spelling_though_no_name_server_is_asked(
    receiver: Receiver, forbidden: Receiver, host: str
) -> None:
    async with pool() as session:
        with pytest.raises((aiohttp.ClientError, OSError, ValueError)):
            await post(session, f"http://{host}:{receiver.port}/")
    assert forbidden.connections == []


async def test_localhost_by_the_systems_own_resolver_is_judged_by_its_address(
    receiver: Receiver,
) -> None:
    async with pool(judge=AddressGuard([])) as session:
        await assert_refused(session, f"http://localhost:{receiver.port}/", "loopback")
    assert receiver.connections == []


async def test_the_hosts_own_addresses_are_refused(receiver: Receiver) -> None:
    mine = sorted(own_addresses())
    assert "127.0.0.1" in mine
    assert "::1" in mine or not socket.has_ipv6
    for address in mine:
        judge = AddressGuard([], mine)
        async with pool(Names([address]), judge) as session:
            await assert_refused(session, f"http://own.example:{receiver.port}/", "is forbidden")


async def test_a_redirect_to_a_forbidden_address_is_not_followed(
    receiver: Receiver, forbidden: Receiver
) -> None:
    where = f"http://{FORBIDDEN}:{forbidden.port}/".encode()
    receiver.answers = [
        b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + where + b"\r\n\r\n"
    ]
    async with pool() as session:
        assert await post(session, f"http://{ALLOWED}:{receiver.port}/") == 302
    assert forbidden.connections == []


@pytest.mark.parametrize("names", [Names([]), None], ids=["no address", "no such name"])
@pytest.mark.parametrize("cache", [0.0, 10.0])
async def test_a_name_without_an_address_is_a_failure_of_dns(
    receiver: Receiver, names: Names | None, cache: float
) -> None:
    async with pool(names, dns_cache_seconds=cache) as session:
        with pytest.raises(aiohttp.ClientConnectorDNSError):
            await post(session, f"http://does-not-exist.invalid:{receiver.port}/")


# --- bytes that nobody asked for -----------------------------------------------------------

LOOPS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
Run = Callable[[Coroutine[Any, Any, None]], None]


@LOOPS
@pytest.mark.parametrize("blocked", [False, True], ids=["read already", "still in the kernel"])
@pytest.mark.parametrize("unasked", [OK, OK + OK, b"HTTP/1.1 200 OK\r\n", b"\x00", b"HTTP/1.1 2"])
def test_what_came_on_an_idle_connection_is_never_taken_for_an_answer(
    run: Run, receiver: Receiver, blocked: bool, unasked: bytes
) -> None:
    """Also when the loop was blocked, so that the bytes have not been read when the next request
    takes its connection: the next answer is the one that was made for it, or none."""
    receiver.answers = [OK, BUSY]

    async def scenario() -> None:
        async with pool() as session:
            url = f"http://{ALLOWED}:{receiver.port}/"
            assert await post(session, url) == 200
            (idle,) = receiver.connections
            idle.sendall(unasked)  # into this process's own kernel: there when it returns
            if not blocked:
                await asyncio.sleep(0.05)  # the loop reads it; no condition shows that it has
            answered: int | None = None
            with contextlib.suppress(aiohttp.ClientError):
                answered = await post(session, url)
            if len(receiver.connections) == 1:
                # aiohttp drops half an answer unseen; then the answer is a real one or an error.
                assert not unasked.startswith(OK)
            else:
                assert answered == 503

    run(scenario())


@LOOPS
def test_an_idle_connection_that_the_receiver_closed_is_not_used(
    run: Run, receiver: Receiver
) -> None:
    receiver.answers = [OK, BUSY]

    async def scenario() -> None:
        async with pool() as session:
            url = f"http://{ALLOWED}:{receiver.port}/"
            assert await post(session, url) == 200
            receiver.connections[0].shutdown(socket.SHUT_RDWR)
            assert await post(session, url) == 503

    run(scenario())


@LOOPS
def test_a_quiet_idle_connection_is_used_again(run: Run, receiver: Receiver) -> None:
    async def scenario() -> None:
        async with pool() as session:
            for _ in range(5):
                assert await post(session, f"http://{ALLOWED}:{receiver.port}/") == 200

    run(scenario())
    wait_for(lambda: len(receiver.connections) == 1, 5, "one connection for all")
