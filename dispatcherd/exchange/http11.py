"""One connection from aiohttp's connector: one request at a time, one answer to each.

Invariant: a flight ends exactly once; bytes that nobody asked for close the connection and are
never an answer; a connection lies in its origin's list of those at rest only when it can be used.
aiohttp's own protocol steps aside while we hold the connection, hears of its loss all the same
(the connector's `close` waits for that) and is put back before the connection goes home.
Leaves out: the grammar of an answer (answer), and who connects, keeps and gives back (fast).

An answer whose bytes are those of the last one on this connection, from the first to the last, is
not parsed again: the parser stood at the same place when it read them, so it would find the same.
Most receivers answer with the same bytes for a second at a time (the Date).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

import aiohttp.connector

from dispatcherd.delivery import Reason, Response
from dispatcherd.exchange.answer import AnswerReader, BadAnswer
from dispatcherd.exchange.classify import failed, printable
from dispatcherd.exchange.seam import Flight, Target
from dispatcherd.wheel import Timer, Wheel

_JOINED_BYTES: Final = 65_536
"""A request up to this size is joined and written at once: cheaper than a gathered write."""
_MOST_REMEMBERED: Final = 2_048
_NEVER: Final = float("inf")

TIMED_OUT: Final = "no whole answer by the deadline"
INTERRUPTED: Final = "dispatcherd is shutting down"


class Keeper(Protocol):
    """What a connection needs of the exchange that keeps it."""

    wheel: Wheel
    clock: Callable[[], float]
    keepalive_seconds: float
    on_fault: Callable[[BaseException], None]

    def reader(self) -> AnswerReader:
        """A reader with the configured bounds."""

    def gone(self, connection: HttpConnection) -> None:
        """The connection is not to be used any more."""


class HttpConnection:
    """See the module. Made only by the exchange, with a connection fresh from the connector.

    An asyncio.Protocol by what it has and not by inheritance: compiled, a class of its own is
    faster.
    """

    __slots__ = (
        "_answer",
        "_held",
        "_keeper",
        "_known",
        "_original",
        "_reader",
        "_retired",
        "_timer",
        "_timer_at",
        "_unwritten",
        "_write",
        "born",
        "deadline",
        "flight",
        "idle",
        "idle_since",
        "is_closing",
        "seen",
        "transport",
    )

    def __init__(self, keeper: Keeper, held: aiohttp.connector.Connection, idle: list[Any]) -> None:
        transport = held.transport
        if transport is None or transport.is_closing():
            held.close()
            raise aiohttp.ClientConnectionError("the connection was lost as it was made")
        self._keeper = keeper
        self._held = held
        self._original = transport.get_protocol()
        self.transport = transport
        self._write = transport.write
        self.is_closing = transport.is_closing
        self._reader = keeper.reader()
        self.idle = idle
        self.flight: Flight | None = None
        """Who waits for the answer; None: at rest."""
        self.deadline = 0.0
        self._timer: Timer | None = None
        self._timer_at = _NEVER
        self._known = b""
        """The last answer's bytes, if it came in one piece and the next may be compared to it."""
        self._answer: Response | None = None
        self._unwritten = False
        """Some of the request still lies in the transport."""
        self.seen = 0.0
        self.idle_since = self.born = keeper.clock()
        """Monotonic; `born` is set back by who knows that it was made earlier."""
        self._retired = False
        # What is not written at once is told by pause_writing. (Not 0: under TLS an empty buffer
        # would count as a full one.)
        transport.set_write_buffer_limits(high=1)
        transport.set_protocol(cast(asyncio.Protocol, self))

    # --- the way of a request ----------------------------------------------------------------

    def send(
        self, target: Target, lines: bytes, body: bytes, deadline: float, flight: Flight
    ) -> None:
        """Write the request; only when at rest and not closing."""
        self.flight = flight
        self.deadline = deadline
        if deadline < self._timer_at:
            self._arm(deadline)
        size = len(body)
        if size <= _JOINED_BYTES:
            self._write(
                b"".join((target.head, lines, b"content-length: ", b"%d" % size, b"\r\n\r\n", body))
            )
        else:
            head = b"%b%bcontent-length: %d\r\n\r\n" % (target.head, lines, size)
            self.transport.writelines((head, body))

    def data_received(self, data: bytes) -> None:
        """The hot path: an answer that is known already; all others go through `_read`."""
        flight = self.flight
        if data == self._known and flight is not None:
            self.flight = None
            self.idle.append(self)
            try:
                flight.ended(self._answer)  # type: ignore[arg-type]  # set together with _known
            except BaseException as error:
                self._keeper.on_fault(error)
            return
        self._read(data)

    def _read(self, data: bytes) -> None:
        if self.flight is None:
            self.drop()
            return
        reader = self._reader
        whole = not reader.begun
        self._known = b""
        try:
            response = reader.feed(data)
        except BadAnswer as error:
            self.fail(Reason.BAD_RESPONSE, str(error))
            return
        if response is None:
            return
        if not reader.reusable or self._unwritten or self.patience <= 0:
            self.drop()
        else:
            if whole and len(data) <= _MOST_REMEMBERED:
                self._known, self._answer = data, response
            self.idle.append(self)
        self._end(response)

    def eof_received(self) -> None:
        """The receiver has closed its side: `connection_lost` follows."""

    def pause_writing(self) -> None:
        """Not all of the request could be written at once."""
        self._unwritten = True
        self._known = b""  # an answer now is early, and must not be taken on the short way

    def resume_writing(self) -> None:
        """All is with the kernel."""
        self._unwritten = False

    def connection_lost(self, exc: Exception | None) -> None:
        """Lost, or closed by us."""
        self._original.connection_lost(exc)
        self._let_go()
        if self.flight is None:
            return
        if exc is not None:
            self._end(failed(exc, self._reader.status, sent=True))
            return
        response = self._reader.end()
        if response is None:
            when = "in mid-answer" if self._reader.begun else "without an answer"
            response = Response(self._reader.status, Reason.DISCONNECTED, f"closed {when}")
        self._end(response)

    # --- the ends of a flight ----------------------------------------------------------------

    def fail(self, reason: Reason, detail: str) -> None:
        """End the flight; the connection goes with it."""
        self.drop()
        self._end(Response(self._reader.status, reason, printable(detail)))

    def _end(self, response: Response) -> None:
        flight, self.flight = self.flight, None
        assert flight is not None
        try:
            flight.ended(response)
        except BaseException as error:
            self._keeper.on_fault(error)

    def _arm(self, deadline: float) -> None:
        """One timer for all requests of the connection: it is set anew only when it fires and
        finds that a later request is under way (or when one is due before it would fire)."""
        if self._timer is not None:
            self._keeper.wheel.cancel(self._timer)
        self._timer_at = deadline
        self._timer = self._keeper.wheel.schedule(deadline, self._expired, None)

    def _expired(self, _: None) -> None:
        self._timer = None
        self._timer_at = _NEVER
        if self.flight is None:
            return
        if self.deadline > self._keeper.clock():
            self._arm(self.deadline)
        else:
            self.fail(Reason.TIMEOUT, TIMED_OUT)

    # --- the end of the connection -----------------------------------------------------------

    @property
    def patience(self) -> float:
        """Seconds for which it may lie idle: less than the receiver says that it keeps it."""
        if self._retired:
            return 0.0
        hint = self._reader.keep_seconds
        if hint is None:
            return self._keeper.keepalive_seconds
        return min(self._keeper.keepalive_seconds, hint - 1.0 if hint > 2 else hint / 2)

    def outlasts(self, idle_seconds: float) -> bool:
        """The receiver has not said that it closes it when it has been idle for so long."""
        hint = self._reader.keep_seconds
        return hint is None or hint - 1.0 > idle_seconds

    def drop(self) -> None:
        """Close at once, also over what is not written yet."""
        self.transport.abort()
        self._let_go()

    def retire(self) -> None:
        """Serve no more requests: close now if at rest, else when the answer has come."""
        self._retired = True
        self._known = b""  # the short way would put it to rest
        if self.flight is None:
            self.drop()

    def go_home(self) -> None:
        """Back into the connector's pool, as it was; only when at rest and all is written."""
        self.transport.set_write_buffer_limits()
        self.transport.set_protocol(self._original)
        held = self._held
        self._stop()
        held.release()

    def _let_go(self) -> None:
        self._stop()
        self._held.close()

    def _stop(self) -> None:
        if self._timer is not None:
            self._keeper.wheel.cancel(self._timer)
            self._timer = None
            self._timer_at = _NEVER
        self._reader.close()
        self._keeper.gone(self)
