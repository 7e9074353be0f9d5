"""The fast exchange: connections from aiohttp's connector, held while their origin has work.

Everything that makes a connection is the connector's, through its public API: names, addresses
and the guard on them, happy eyeballs, TLS, the pool. A connection is taken once and then serves
request after request; between two it lies in its origin's list, from where any lane of the origin
takes it, the last used first. After a third of `keepalive_seconds` without work it goes back to
the connector's pool, where it is kept for the rest.

Invariant: at most `max_connections` are open or being opened, counting those gone back to the
pool; no idle one is used that its receiver may be about to close (Keep-Alive: timeout), and none
serves for longer than `connection_max_age_seconds`, so that a change in DNS is followed. Leaves
out: one connection's work (http11), and how many requests a host may have at once (HostSlots).
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Callable, Coroutine, Iterable
from itertools import islice
from typing import Any, Final
from weakref import WeakValueDictionary

import aiohttp.connector
from yarl import URL

from dispatcherd.address import AddressGuard
from dispatcherd.config.model import NetworkConfig
from dispatcherd.delivery import Reason, Response
from dispatcherd.exchange.answer import AnswerReader
from dispatcherd.exchange.classify import failed
from dispatcherd.exchange.connect import closed, connect
from dispatcherd.exchange.http11 import INTERRUPTED, HttpConnection
from dispatcherd.exchange.seam import Flight, Idle, Target, origin
from dispatcherd.pool import connector, own_addresses
from dispatcherd.wheel import Timer, Wheel

_SWEEP_SECONDS: Final = 0.5
_OPENED_PER_TURN: Final = 4


class _Opening:
    """A request that waits for its connection."""

    __slots__ = ("body", "deadline", "exchange", "flight", "lines", "target", "task", "timer")

    def __init__(
        self,
        exchange: FastExchange,
        target: Target,
        lines: bytes,
        body: bytes,
        deadline: float,
        flight: Flight,
    ) -> None:
        self.exchange = exchange
        self.target = target
        self.lines = lines
        self.body = body
        self.deadline = deadline
        self.flight = flight
        self.task: asyncio.Task[None] | None = None
        self.timer: Timer | None = None

    # As connect.Waiter.

    def make_room(self) -> None:
        self.exchange._make_room()

    def connected(self, held: aiohttp.connector.Connection) -> None:
        self.exchange._connected(self, held)

    def not_connected(self, error: Exception) -> None:
        self.exchange._not_connected(self, error)

    def interrupted(self) -> None:
        response = Response(0, Reason.INTERRUPTED, INTERRUPTED, sent=False)
        self.exchange._settle(self, response)

    def fault(self, error: BaseException) -> None:
        self.exchange.on_fault(error)


class FastExchange:
    """See `Exchange` and the module."""

    def __init__(
        self,
        config: NetworkConfig,
        wheel: Wheel,
        clock: Callable[[], float],
        pool: aiohttp.TCPConnector | None = None,
    ) -> None:
        """`pool`: a connector made elsewhere (tests, with their own authority for TLS)."""
        self.wheel = wheel
        self.clock = clock
        self.keepalive_seconds = config.keepalive_seconds
        self._hold_seconds = config.keepalive_seconds / 3
        self._max_age = config.connection_max_age_seconds
        self.on_fault: Callable[[BaseException], None] = _report
        self._max_head = config.max_response_header_bytes
        self._max_body = config.max_response_body_bytes
        self._most = config.max_connections
        guard = AddressGuard(config.allowed_networks, own_addresses())
        self._connector = pool or connector(config, guard)
        self._origins: WeakValueDictionary[tuple[str, ssl.SSLContext | None], Idle] = (
            WeakValueDictionary()
        )
        self._open: dict[HttpConnection, None] = {}
        self._queued: dict[_Opening, None] = {}
        """Requests that need a connection, before it is asked for."""
        self._opening: dict[_Opening, None] = {}
        self._returned: dict[asyncio.Transport, float] = {}
        """Those that went back to the connector's pool, as far as they may still be open, and when
        they were made."""
        self._sweeper: Timer | None = None
        self._swept_at = clock()
        self._closed = False

    # --- the seam ----------------------------------------------------------------------------

    def target(
        self, url: str, headers: Iterable[tuple[str, str]], tls: ssl.SSLContext | None = None
    ) -> Target:
        """See `Exchange`."""
        key = origin(URL(url, encoded=url.isascii())), tls
        idle = self._origins.get(key)
        if idle is None:
            idle = self._origins[key] = Idle()
        return Target(url, headers, idle, tls)

    def post(
        self, target: Target, lines: bytes, body: bytes, deadline: float, flight: Flight
    ) -> None:
        """See `Exchange`."""
        connection = _at_rest(target.idle)
        if connection is not None:
            connection.send(target, lines, body, deadline, flight)
            return
        opening = _Opening(self, target, lines, body, deadline, flight)
        opening.timer = self.wheel.schedule(deadline, self._expired, opening)
        if not self._queued:
            asyncio.get_running_loop().call_soon(self._open_some)
        self._queued[opening] = None

    def interrupt(self, flight: Flight | None = None) -> int:
        """See `Exchange`."""
        count = 0
        for opening in [*self._queued, *self._opening]:
            if flight is None or opening.flight is flight:
                count += 1
                self._settle(opening, Response(0, Reason.INTERRUPTED, INTERRUPTED, sent=False))
        for connection in list(self._open):
            if connection.flight is not None and flight in (None, connection.flight):
                count += 1
                connection.fail(Reason.INTERRUPTED, INTERRUPTED)
        return count

    def close(self) -> Coroutine[Any, Any, None]:
        """See `Exchange`."""
        self._closed = True
        tasks = [opening.task for opening in self._opening if opening.task is not None]
        self.interrupt()
        if self._sweeper is not None:
            self.wheel.cancel(self._sweeper)
            self._sweeper = None
        return closed(self._connector, tasks, self._open)

    @property
    def held(self) -> int:
        """Connections that this exchange holds itself, at work or at rest."""
        return len(self._open)

    def __len__(self) -> int:
        """Connections that are open or being opened, those in the connector's pool included."""
        return len(self._open) + len(self._opening) + len(self._returned)

    # --- connecting --------------------------------------------------------------------------

    def _open_some(self) -> None:
        """Ask for the connections that the next requests need; for the rest when the loop has come
        round. A new connection costs as much as twenty requests: a thousand receivers that hung and
        are tried again at one moment must not hold up those that answer."""
        loop = asyncio.get_running_loop()
        for opening in list(islice(self._queued, _OPENED_PER_TURN)):
            del self._queued[opening]
            self._opening[opening] = None
            connection = _at_rest(opening.target.idle)
            if connection is None:
                opening.task = loop.create_task(connect(self._connector, opening.target, opening))
            else:  # one has come free meanwhile
                self._send(connection, opening)
        if self._queued:
            loop.call_soon(self._open_some)

    def _send(self, connection: HttpConnection, opening: _Opening) -> None:
        self._forget(opening)
        connection.send(
            opening.target, opening.lines, opening.body, opening.deadline, opening.flight
        )

    def _connected(self, opening: _Opening, held: aiohttp.connector.Connection) -> None:
        if self.clock() >= opening.deadline:
            # The process was frozen, and its partitions may be another's by now.
            held.close()
            self._too_late(opening)
            return
        connection = HttpConnection(self, held, opening.target.idle)
        born = self._returned.pop(connection.transport, None)
        # What was made at one moment must not be made again at one moment.
        connection.born = self._age_of_new() if born is None else born
        self._open[connection] = None
        self._watch()
        self._send(connection, opening)

    def _not_connected(self, opening: _Opening, error: Exception) -> None:
        if opening not in self._opening:  # its connection was there, and failed to take it
            self.on_fault(error)
            return
        response = failed(error, 0, sent=False)
        if response.failure in (Reason.RESOURCES, Reason.NO_PORT):
            self._shed()
        self._settle(opening, response)

    def _age_of_new(self) -> float:
        return self.clock() - random.random() * self._max_age / 10

    def _expired(self, opening: _Opening) -> None:
        opening.timer = None
        self._too_late(opening)

    def _too_late(self, opening: _Opening) -> None:
        self._settle(
            opening,
            Response(0, Reason.CONNECT_TIMEOUT, "not connected by the deadline", sent=False),
        )

    def _settle(self, opening: _Opening, response: Response) -> None:
        """End the flight of one that was not connected (once, whoever comes first)."""
        if opening not in self._opening and opening not in self._queued:
            return
        self._forget(opening)
        task = opening.task
        if task is not None and task is not asyncio.current_task():
            task.cancel()
        try:
            opening.flight.ended(response)
        except BaseException as error:
            self.on_fault(error)

    def _forget(self, opening: _Opening) -> None:
        self._queued.pop(opening, None)
        self._opening.pop(opening, None)
        if opening.timer is not None:
            self.wheel.cancel(opening.timer)
            opening.timer = None

    # --- keeping, as http11.Keeper -------------------------------------------------------------

    def reader(self) -> AnswerReader:
        """See `Keeper`."""
        return AnswerReader(self._max_head, self._max_body)

    def gone(self, connection: HttpConnection) -> None:
        """See `Keeper`."""
        self._open.pop(connection, None)
        if connection in connection.idle:
            connection.idle.remove(connection)

    def _make_room(self) -> None:
        """Close what lies idle, the longest unused first, until one more may be opened."""
        while self._returned and len(self) > self._most:
            transport = next(iter(self._returned))
            del self._returned[transport]
            transport.abort()
        if len(self) > self._most:
            at_rest = next((c for c in self._open if c.flight is None), None)
            if at_rest is not None:
                at_rest.drop()

    def _shed(self) -> None:
        """Out of descriptors or ports: close everything that lies idle."""
        for transport in self._returned:
            transport.abort()
        self._returned.clear()
        for connection in list(self._open):
            if connection.flight is None:
                connection.drop()

    def _watch(self) -> None:
        if self._sweeper is None and not self._closed:
            self._swept_at = self.clock()
            self._sweeper = self.wheel.schedule(self._swept_at + _SWEEP_SECONDS, self._sweep, None)

    def _sweep(self, _: None) -> None:
        """Close or give back what has been idle for long enough. A connection that had the same
        deadline at the last sweep has done nothing since: that is how idle time is measured
        without a clock on the way of a request; it comes out up to a sweep too long."""
        self._sweeper = None
        now = self.clock()
        for connection in list(self._open):
            if now - connection.born >= self._max_age:
                connection.retire()
                continue
            if connection.flight is not None:
                continue
            if connection.deadline != connection.seen:
                connection.seen = connection.deadline
                connection.idle_since = self._swept_at
            idle = now - connection.idle_since
            if idle >= connection.patience:
                connection.drop()
            elif idle >= self._hold_seconds and connection.outlasts(idle + self.keepalive_seconds):
                connection.go_home()
                self._returned[connection.transport] = connection.born
        for transport in [t for t in self._returned if t.is_closing()]:
            del self._returned[transport]
        if self._open or self._returned:
            self._watch()


def _at_rest(idle: list[HttpConnection]) -> HttpConnection | None:
    """Take the one that was used last, if there is any."""
    while idle:
        connection = idle.pop()
        if not connection.is_closing():
            return connection
    return None


def _report(error: BaseException) -> None:
    asyncio.get_running_loop().call_exception_handler(
        {"message": "a flight's end raised", "exception": error}
    )
