"""From lanes to receivers: who may send now, and one exchange after the other.

An exchange that ends lets the same lane send its next one from within, on the same connection: no
task, no future and no timer per delivery.

Invariant: a place for each outcome is reserved before the exchange starts; an exchange that ended
is recorded whatever became of its partition; a receiver's fault is a value and stops nothing.
Leaves out: connections (exchange), and what comes of an attempt (complete).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from dispatcherd import log
from dispatcherd.batch import batch_id, encode, greatest_version
from dispatcherd.complete import Attempt, Completion
from dispatcherd.concurrency import ConcurrencyLimit
from dispatcherd.delivery import Reason, Response
from dispatcherd.endpoints import Endpoints, Outlet
from dispatcherd.exchange import Exchange
from dispatcherd.lane import Lane
from dispatcherd.metrics import EndpointMetrics, Metrics
from dispatcherd.record.buffer import Buffer
from dispatcherd.slots import HostSlots
from dispatcherd.timers import Timers

logger = log.get(__name__)

# Looking up a member of an enum costs Python 3.11 70 ns each time.
_RESOURCES: Final = Reason.RESOURCES
_HUNG: Final[tuple[Reason, ...]] = (Reason.TIMEOUT, Reason.CONNECT_TIMEOUT)
_TURNS: Final = 16
_QUICK_SECONDS: Final = 0.05
"""While others wait for its slot, a lane whose receiver answers quickly sends a few in a row: what
a lane and its connection need lies in the processor's cache then. A slow one sends one."""
_COUNT_EVERY_SECONDS: Final = 0.25
_HANGING_SECONDS: Final = 0.5
_SHORTAGE_SECONDS: Final = 60
"""After so long without a failure, a shortage of descriptors is a new one."""
_EXCHANGES_PER_START: Final = 1 << 36
"""Exchange ids: the process start in the high bits, a counter in the low ones."""


class _Exchange(Attempt):
    """One exchange under way: the flight that the exchange module tells of its end."""

    __slots__ = ("outlet", "sender", "turn")

    def __init__(
        self, sender: Sender, lane: Lane, outlet: Outlet, metrics: EndpointMetrics
    ) -> None:
        super().__init__(lane, metrics)
        self.sender = sender
        self.outlet = outlet
        self.turn = 0
        """How many the lane has sent on this slot since it was given it."""

    def ended(self, response: Response) -> None:
        """See `exchange.Flight`."""
        self.sender.ended(self, response)


class Sender:
    """Keeps every lane at as many exchanges as it has work, leave and concurrency for."""

    def __init__(
        self,
        endpoints: Endpoints,
        exchange: Exchange,
        slots: HostSlots,
        buffer: Buffer,
        timers: Timers,
        metrics: Metrics,
        incarnation: int,
        concurrency: ConcurrencyLimit,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._endpoints = endpoints
        self._exchange = exchange
        self._slots = slots
        self._buffer = buffer
        self.completion = Completion(buffer)
        self._timers = timers
        self._metrics = metrics
        self._wall = wall
        self._next_exchange = incarnation * _EXCHANGES_PER_START
        self._blocked: dict[Lane, None] = {}
        self._wakers: dict[Lane, Callable[[], None]] = {}
        self._under_way: dict[_Exchange, None] = {}
        self._concurrency = concurrency
        self._hanging = 0
        self._counted_at = 0.0
        self._starved_at = float("-inf")
        self.landed = asyncio.Event()
        """Set when the last exchange that was under way has ended."""
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Never done, but when the work after an exchange failed in a way that nobody foresaw: then
        it has that error."""
        self.open = False
        """False: nothing new is sent (not started, verifying epochs, or shutting down)."""
        exchange.on_fault = self._fault

    # --- who may send now ------------------------------------------------------------------

    def start(self) -> None:
        """Let sending begin (again)."""
        self.open = True
        for lane in list(self._endpoints.lanes.values()):
            self.poke(lane)

    def poke(self, lane: Lane) -> None:
        """Something changed for this lane: begin as many exchanges as it has work and leave for."""
        while self.open and lane.in_air < lane.allowed and not lane.queued:
            if lane.removed or lane.endpoint.held:
                return
            now = self._timers.now()
            at = lane.ready_at(now)
            if at is None:
                return
            if at > now:
                self._linger(lane, at)
                return
            if self._timers.check_gap(now):
                return
            outlet = self._endpoints.outlets[lane.endpoint.id]
            if not self._slots.take(outlet.host, self._waker(lane)):
                lane.queued = True
                return
            metrics = self._metrics.endpoint(lane.endpoint.name)
            exchange = _Exchange(self, lane, outlet, metrics)
            self._under_way[exchange] = None
            if not self._begin(exchange, now):
                del self._under_way[exchange]
                self._slots.give(outlet.host)
                return

    def _offered(self, lane: Lane) -> None:
        lane.queued = False
        self.poke(lane)

    def _waker(self, lane: Lane) -> Callable[[], None]:
        """One callable per lane, so that a lane waits for a host at most once."""
        waker = self._wakers.get(lane)
        if waker is None:
            waker = self._wakers[lane] = partial(self._offered, lane)
        return waker

    def forget(self, lane: Lane) -> None:
        """The lane's endpoint is gone."""
        self._wakers.pop(lane, None)
        self._blocked.pop(lane, None)
        self.completion.forget(lane)

    def unblock(self) -> None:
        """The recorder has room again."""
        blocked, self._blocked = self._blocked, {}
        for lane in blocked:
            self.poke(lane)

    def _linger(self, lane: Lane, at: float) -> None:
        if lane.linger is None:
            lane.linger = self._timers.schedule(at, self._lingered, lane)

    def _lingered(self, lane: Lane) -> None:
        lane.linger = None
        self.poke(lane)

    def keep_pace(self, now: float, lag_seconds: float) -> None:
        """The loop has come round, late or in time: allow fewer exchanges, or more."""
        if now - self._counted_at > _COUNT_EVERY_SECONDS:
            self._counted_at = now
            begun_before = now - _HANGING_SECONDS
            self._hanging = sum([e.started < begun_before for e in self._under_way])
        self._slots.resize(self._concurrency.adjust(lag_seconds, self._hanging))

    def _starved(self, response: Response) -> None:
        """No more at once than there are descriptors for: what waits in lanes waits for
        Kafka's backpressure, and is not failed one by one."""
        limit = self._concurrency.starved(len(self._under_way) - 1)  # without this one
        self._slots.resize(limit)
        now = self._timers.now()
        if now - self._starved_at > _SHORTAGE_SECONDS:
            logger.warning("out_of_resources", reason=response.detail, exchanges=limit)
        self._starved_at = now

    # --- one exchange ----------------------------------------------------------------------

    def _begin(self, exchange: _Exchange, now: float) -> bool:
        """Send the lane's next batch; False when there is none, or no place to record it."""
        lane = exchange.lane
        batch = lane.take(now)
        if not batch:
            return False
        endpoint = lane.endpoint
        first = batch[0]
        single = endpoint.batch.max_events == 1
        size = first.event.size if single else sum([d.event.size for d in batch])
        if not self._buffer.try_reserve(len(batch), size):
            lane.put_back(batch)
            self._blocked[lane] = None
            return False
        event = first.event
        if single:
            webhook_id, body, version = event.id, event.body, event.version
            attempts = first.attempts
        else:
            events = [d.event for d in batch]
            webhook_id, body = batch_id(events), encode(events)
            version = greatest_version(events)
            attempts = max([d.attempts for d in batch])
        self._next_exchange += 1
        exchange.id = self._next_exchange
        exchange.batch = batch
        exchange.at = at = self._wall()
        exchange.started = now
        outlet = exchange.outlet
        lines = [
            outlet.signer.lines(webhook_id, int(at), body),
            b"x-webhook-version: ",
            version.encode("ascii"),
            b"\r\nwebhook-attempt: %d" % (attempts + 1),
        ]
        if single:
            lines += (b"\r\nx-webhook-type: ", event.type.encode("ascii"))
        lines.append(b"\r\n")
        lane.in_air += 1
        self._exchange.post(
            outlet.target, b"".join(lines), body, now + endpoint.timeout_seconds, exchange
        )
        return True

    def ended(self, exchange: _Exchange, response: Response) -> None:
        """An exchange is over: record it, and begin the lane's next one on the slot that it had,
        unless another lane of the host waits for it."""
        lane = exchange.lane
        now = self._timers.now()
        lane.in_air -= 1
        try:
            self.completion.complete(exchange, response, now)
        except BaseException:
            del self._under_way[exchange]
            raise
        host = exchange.outlet.host
        exchange.turn += 1
        opened = False
        if response.failure is None:
            opened, lane.probing = lane.probing, False
        elif response.failure in _HUNG:
            lane.probing = True
        if response.failure is _RESOURCES:
            self._starved(response)
        in_turn = exchange.turn < _TURNS and now - exchange.started < _QUICK_SECONDS
        if (
            self.open
            and not lane.removed
            and not lane.endpoint.held
            and lane.in_air < lane.allowed
            and (in_turn or not self._slots.contended(host))
            and response.failure is not _RESOURCES
            and not exchange.outlet.stale
            and not self._timers.check_gap(now)
            and self._begin(exchange, now)
        ):
            if opened:
                self.poke(lane)
            return
        del self._under_way[exchange]
        self._slots.give(host)
        if not self._under_way:
            self.landed.set()
        self.poke(lane)

    # --- ending ----------------------------------------------------------------------------

    def _fault(self, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)

    @property
    def at_rest(self) -> bool:
        """Nothing is under way."""
        return not self._under_way

    def interrupt(self) -> int:
        """End what is under way at once; returns how many exchanges that were."""
        return self._exchange.interrupt()
