"""Names to addresses by the system's own means, so that no name holds up another's look-up.

`getaddrinfo` blocks, and cannot be ended. The loop's own threads for it are few (uvloop: two at
once), and serve Kafka's and Postgres's names too: two names whose servers are silent would stop
all. So look-ups run in threads of their own, many at once, few of which names can have that were
slow the last time.

Invariant: one look-up of a name at a time; an answer or an error within `timeout_seconds`. Leaves
out: which addresses may be connected to (pool), and keeping answers (aiohttp's cache).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import threading
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

_AT_ONCE = 64
_SLOW_AT_ONCE = 16
_SLOW_SECONDS = 1.0
_MOST_SLOW_NAMES = 10_000

_Found = list[tuple[Any, ...]]
_Asked = tuple[str, int, socket.AddressFamily]


class SystemResolver(AbstractResolver):
    """`getaddrinfo` in daemon threads: one that hangs does not hold up the process's end."""

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout = timeout_seconds
        self._running: dict[_Asked, asyncio.Task[_Found]] = {}
        self._slow: dict[str, None] = {}
        """Names whose last look-up was slow or had no end, the latest last."""
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._slow_slots = asyncio.Semaphore(_SLOW_AT_ONCE)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """As aiohttp's; raises gaierror, also when there is no answer in time."""
        asked = (host, port, family)
        look_up = self._running.get(asked)
        if look_up is None:
            look_up = self._running[asked] = asyncio.create_task(self._look_up(asked))
            look_up.add_done_callback(lambda done: self._ended(asked, done))
        try:
            async with asyncio.timeout(self._timeout):
                found = await asyncio.shield(look_up)
        except TimeoutError:
            raise socket.gaierror(
                socket.EAI_AGAIN, f"no answer from DNS within {self._timeout:g} s"
            ) from None
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Wait for nothing: what hangs goes with the process."""
        for look_up in list(self._running.values()):
            look_up.cancel()

    def _ended(self, asked: _Asked, look_up: asyncio.Task[_Found]) -> None:
        del self._running[asked]
        if not look_up.cancelled():
            look_up.exception()  # whoever asked may have stopped waiting for it

    async def _look_up(self, asked: _Asked) -> _Found:
        host = asked[0]
        slots = self._slow_slots if host in self._slow else self._slots
        async with slots:
            self._slow.pop(host, None)
            loop = asyncio.get_running_loop()
            lateness = loop.call_later(_SLOW_SECONDS, self._is_slow, host)
            try:
                return await _in_thread(*asked)
            finally:
                lateness.cancel()

    def _is_slow(self, host: str) -> None:
        self._slow[host] = None
        if len(self._slow) > _MOST_SLOW_NAMES:
            del self._slow[next(iter(self._slow))]


async def _in_thread(host: str, port: int, family: socket.AddressFamily) -> _Found:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[_Found] = loop.create_future()

    def tell(found: _Found | None, error: Exception | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(found or [])

    def ask() -> None:
        found, error = None, None
        try:
            found = socket.getaddrinfo(
                host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG
            )
        except Exception as raised:  # gaierror; UnicodeError for what is no name
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(tell, found, error)

    try:
        threading.Thread(target=ask, name="look-up", daemon=True).start()
    except RuntimeError as error:  # how Python says that there can be no more threads
        raise OSError(errno.ENOMEM, str(error)) from error
    return await answer
