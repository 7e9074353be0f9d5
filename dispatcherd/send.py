"""From lanes to receivers and back: who may send now, one exchange, what it came to.

An exchange that ends lets the same lane send its next one from within, on the same connection: no
task, no future and no timer per delivery.

Invariant: a place for each outcome is reserved before the exchange starts; an exchange that ended
is recorded whatever became of its partition; a receiver's fault is a value and stops nothing.
Leaves out: connections (exchange), what an answer means (outcome), timers of retries (retry).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from dispatcherd import log
from dispatcherd.batch import batch_id, encode, failed_members, greatest_version
from dispatcherd.concurrency import ConcurrencyLimit
from dispatcherd.delivery import (
    Delivery,
    Hold,
    Outcome,
    OutcomeKind,
    Reason,
    Request,
    Response,
    Stage,
)
from dispatcherd.endpoints import Endpoints, Outlet
from dispatcherd.exchange import Exchange
from dispatcherd.lane import Lane
from dispatcherd.metrics import EndpointMetrics, Metrics
from dispatcherd.outcome import OK, company, decide, failed
from dispatcherd.record.buffer import Buffer
from dispatcherd.slots import HostSlots
from dispatcherd.timers import Timers

logger = log.get(__name__)

# Looking up a member of an enum costs Python 3.11 70 ns each time.
_DELIVERED: Final = OutcomeKind.DELIVERED
_INTERRUPTED: Final = Reason.INTERRUPTED
_FENCED: Final = Hold.FENCED
_GONE: Final = Stage.GONE
_PARTIAL: Final = Reason.PARTIAL_FAILURE
_RESOURCES: Final = Reason.RESOURCES
_HUNG: Final = (Reason.TIMEOUT, Reason.CONNECT_TIMEOUT)
_FIRST_ATTEMPT: Final = b"\r\nwebhook-attempt: 1"
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


class _Exchange:
    """One exchange under way: the flight that the exchange module tells of its end."""

    __slots__ = ("at", "batch", "id", "lane", "metrics", "outlet", "sender", "started", "turn")

    def __init__(
        self, sender: Sender, lane: Lane, outlet: Outlet, metrics: EndpointMetrics
    ) -> None:
        self.sender = sender
        self.lane = lane
        self.outlet = outlet
        self.metrics = metrics
        self.batch: list[Delivery] = []
        self.id = 0
        self.at = 0.0
        """Unix seconds at which it began."""
        self.started = 0.0
        """The same moment, monotonic."""
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
        self._timers = timers
        self._metrics = metrics
        self._wall = wall
        self._next_exchange = incarnation * _EXCHANGES_PER_START
        self._blocked: dict[Lane, None] = {}
        self._wakers: dict[Lane, Callable[[], None]] = {}
        self._failing: dict[Lane, set[Reason]] = {}
        """Lanes whose last exchange got no answer, and what has been said of it since."""
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
        self.on_retry: Callable[[Delivery, float], None] = lambda delivery, due: None
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
            if not self._begin(_Exchange(self, lane, outlet, metrics), now):
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
        self._failing.pop(lane, None)

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
        limit = self._concurrency.starved(len(self._under_way))
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
            _FIRST_ATTEMPT if not attempts else b"\r\nwebhook-attempt: %d" % (attempts + 1),
        ]
        if single:
            lines += (b"\r\nx-webhook-type: ", event.type.encode("ascii"))
        lines.append(b"\r\n")
        lane.in_air += 1
        self._under_way[exchange] = None
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
        del self._under_way[exchange]
        self._complete(exchange, response, now)
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
        self._slots.give(host)
        if not self._under_way:
            self.landed.set()
        self.poke(lane)

    def _complete(self, exchange: _Exchange, response: Response, now: float) -> None:
        lane = exchange.lane
        if response.failure is not None or lane in self._failing:
            self._note(lane, response)
        refused: frozenset[str] | None = frozenset()
        if response.failure is None and 200 <= response.status < 300:
            if lane.endpoint.batch.max_events > 1:
                refused = failed_members(response.body)
            if refused is not None and not refused:
                self._all_delivered(exchange, response.status, now)
                return
        policy = lane.endpoint.retry
        at, took = exchange.at, now - exchange.started
        draw = random.random()  # one for the batch: what failed together is due together
        metrics = exchange.metrics
        for delivery in exchange.batch:
            delivery.attempts += 1
            number = delivery.attempts - delivery.cycle_start
            if refused is None or delivery.event.id in refused:
                outcome = failed(response, _PARTIAL, number, policy, at + took, draw)
            else:
                outcome = decide(response, number, policy, at + took, draw)
            if outcome.reason is _INTERRUPTED or outcome.reason is _RESOURCES:
                delivery.cycle_start += 1  # ours to answer for: it does not count
            if outcome.kind is not _DELIVERED and len(exchange.batch) > 1:
                max_events = lane.endpoint.batch.max_events
                delivery.company = company(outcome.reason, number, max_events)
            metrics.attempted(outcome, took)
            if outcome.kind is _DELIVERED and delivery.event.appended_at:
                metrics.latencies.observe(at + took - delivery.event.appended_at)
            self._buffer.attempt(
                delivery, exchange.id, at, took, response.status, outcome, response.sent
            )
            self._settle(lane, delivery, outcome, response.status, now)

    def _all_delivered(self, exchange: _Exchange, status: int, now: float) -> None:
        """The hot path, of what `_complete` does: the same came of the whole batch."""
        at, took = exchange.at, now - exchange.started
        metrics, buffer = exchange.metrics, self._buffer
        metrics.attempted(OK, took, len(exchange.batch))
        for delivery in exchange.batch:
            delivery.attempts += 1
            event = delivery.event
            if event.appended_at:
                metrics.latencies.observe(at + took - event.appended_at)
            buffer.attempt(delivery, exchange.id, at, took, status, OK, True)
            if event.claim.hold is _FENCED:
                delivery.stage = _GONE
            else:
                buffer.delivered(delivery)

    def _note(self, lane: Lane, response: Response) -> None:
        """Log each way in which an endpoint cannot be reached once, and once that it can again."""
        if response.failure is None:
            del self._failing[lane]
            logger.info("endpoint_reached_again", endpoint=lane.endpoint.name)
        elif response.failure is not _INTERRUPTED:
            said = self._failing.setdefault(lane, set())
            if response.failure not in said:
                said.add(response.failure)
                logger.warning(
                    "endpoint_not_reached",
                    endpoint=lane.endpoint.name,
                    reason=response.failure.word,
                    detail=response.detail,
                )

    def _settle(
        self, lane: Lane, delivery: Delivery, outcome: Outcome, status: int, now: float
    ) -> None:
        """What an outcome means for the delivery, and for what an operator asked meanwhile."""
        if delivery.event.claim.hold is _FENCED:
            delivery.stage = _GONE
            return
        buffer = self._buffer
        if outcome.kind is _DELIVERED:
            buffer.delivered(delivery)
            return
        if delivery.request is Request.DISCARD:
            buffer.discard(delivery, delivery.request_no)
            return
        due = now + outcome.delay_seconds
        if delivery.request is Request.RETRY:
            delivery.cycle_start = delivery.attempts
            due = now
        elif outcome.kind is not OutcomeKind.RETRY or lane.removed:
            reason = Reason.ENDPOINT_REMOVED if lane.removed else outcome.reason
            buffer.bury(delivery, reason, status)
            lane.owed[delivery.key] = delivery
            return
        buffer.owe(delivery, due, outcome.reason, status)
        delivery.request = None
        lane.owed[delivery.key] = delivery
        self.on_retry(delivery, due)

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
