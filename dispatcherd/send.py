"""From lanes to receivers and back: who may send now, one exchange, what it came to.

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

from dispatcherd.batch import batch_id, encode
from dispatcherd.delivery import (
    Attempt,
    Delivery,
    Hold,
    Outcome,
    OutcomeKind,
    Reason,
    Request,
    Response,
    Stage,
)
from dispatcherd.endpoints import Endpoints
from dispatcherd.exchange import Exchange, exchanged, header_lines
from dispatcherd.lane import Lane
from dispatcherd.metrics import Metrics
from dispatcherd.outcome import decide
from dispatcherd.pool import HostSlots
from dispatcherd.record.recorder import Recorder
from dispatcherd.timers import Timers

_EXCHANGES_PER_START = 1 << 36
"""Exchange ids: the process start in the high bits, a counter in the low ones."""


class Sender:
    """Workers on lanes: each takes batches as long as there are any, then ends."""

    def __init__(
        self,
        endpoints: Endpoints,
        exchange: Exchange,
        slots: HostSlots,
        recorder: Recorder,
        timers: Timers,
        metrics: Metrics,
        incarnation: int,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._endpoints = endpoints
        self._exchange = exchange
        self._slots = slots
        self._recorder = recorder
        self._timers = timers
        self._metrics = metrics
        self._wall = wall
        self._next_exchange = incarnation * _EXCHANGES_PER_START
        self._blocked: dict[Lane, None] = {}
        self._wakers: dict[int, Callable[[], None]] = {}
        self._workers: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[None] | None = None
        self.open = False
        """False: nothing new is sent (not started, verifying epochs, or shutting down)."""
        self.on_retry: Callable[[Delivery, float], None] = lambda delivery, due: None

    # --- who may send now ------------------------------------------------------------------

    def start(self) -> None:
        """Let sending begin (again)."""
        self.open = True
        for lane in list(self._endpoints.lanes.values()):
            self.poke(lane)

    def poke(self, lane: Lane) -> None:
        """Something changed for this lane: give it as many workers as it has work and leave for."""
        while self.open and lane.workers < lane.endpoint.concurrency:
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
            host = self._endpoints.outlets[lane.endpoint.id].host
            if not self._slots.take(host, self._waker(lane)):
                return
            batch = self._next_batch(lane, now)
            if not batch:
                self._slots.give(host)
                return
            lane.workers += 1
            worker = asyncio.create_task(self._work(lane, host, batch))
            self._workers.add(worker)
            worker.add_done_callback(self._ended)

    def _waker(self, lane: Lane) -> Callable[[], None]:
        """One callable per lane, so that a lane waits for a host at most once."""
        waker = self._wakers.get(lane.endpoint.id)
        if waker is None:
            waker = self._wakers[lane.endpoint.id] = partial(self.poke, lane)
        return waker

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

    def _next_batch(self, lane: Lane, now: float) -> list[Delivery]:
        batch = lane.take(now)
        if batch and not self._recorder.try_reserve(len(batch), sum(d.event.size for d in batch)):
            lane.put_back(batch)
            self._blocked[lane] = None
            return []
        return batch

    # --- one worker ------------------------------------------------------------------------

    async def _work(self, lane: Lane, host: str, batch: list[Delivery]) -> None:
        try:
            while batch:
                await self._attempt(lane, batch)
                batch = []
                if not self.open or lane.workers > lane.endpoint.concurrency:
                    break
                # Another lane of this host may be waiting: it is asked first.
                self._slots.give(host)
                host = ""
                if lane.removed or self._timers.check_gap(self._timers.now()):
                    break
                outlet = self._endpoints.outlets[lane.endpoint.id]
                if not self._slots.take(outlet.host, self._waker(lane)):
                    break
                host = outlet.host
                batch = self._next_batch(lane, self._timers.now())
        finally:
            lane.workers -= 1
            if host:
                self._slots.give(host)
        if not lane.removed:
            self.poke(lane)

    def _ended(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        if worker.cancelled() or worker.exception() is None:
            return
        if self._failed is not None and not self._failed.done():
            error = worker.exception()
            assert error is not None
            self._failed.set_exception(error)

    async def run(self) -> None:
        """Ends only when a worker failed in a way that nobody foresaw: with that error."""
        self._failed = asyncio.get_running_loop().create_future()
        await self._failed

    async def _attempt(self, lane: Lane, batch: list[Delivery]) -> None:
        endpoint = lane.endpoint
        outlet = self._endpoints.outlets[endpoint.id]
        self._next_exchange += 1
        exchange_id = self._next_exchange
        first = batch[0].event
        if endpoint.batch.max_events == 1:
            webhook_id, body, version = first.id, first.body, first.version
        else:
            events = [d.event for d in batch]
            webhook_id, body = batch_id(events), encode(events)
            version = max(event.version for event in events)
        at = self._wall()
        number = max(d.attempts for d in batch) + 1
        headers = [
            *outlet.headers,
            *outlet.signer.headers(webhook_id, int(at), body),
            ("x-webhook-version", version),
            ("webhook-attempt", str(number)),
        ]
        lane.in_air += 1
        started = self._timers.now()
        response = Response(0, Reason.INTERRUPTED, "dispatcherd is shutting down", sent=True)
        try:
            response = await exchanged(
                self._exchange,
                self._exchange.target(endpoint.url, ()),
                header_lines(headers),
                body,
                started + endpoint.timeout_seconds,
            )
        finally:
            # Also when this worker is cancelled: an exchange that began is recorded.
            lane.in_air -= 1
            took = self._timers.now() - started
            self._complete(lane, batch, response, exchange_id, at, took)

    def _complete(
        self,
        lane: Lane,
        batch: list[Delivery],
        response: Response,
        exchange_id: int,
        at: float,
        took: float,
    ) -> None:
        policy = lane.endpoint.retry
        draw = random.random()  # one for the batch: what failed together is due together
        metrics = self._metrics.endpoint(lane.endpoint.name)
        now = self._timers.now()
        for delivery in batch:
            delivery.attempts += 1
            number = delivery.attempts - delivery.cycle_start
            outcome = decide(response, number, policy, at + took, draw)
            if outcome.reason is Reason.INTERRUPTED:
                delivery.cycle_start += 1  # ours to answer for: it does not count
            metrics.attempted(outcome, took)
            if outcome.kind is OutcomeKind.DELIVERED and delivery.event.appended_at:
                metrics.latencies.observe(at + took - delivery.event.appended_at)
            self._recorder.attempt(
                Attempt(
                    delivery,
                    exchange_id,
                    delivery.attempts,
                    at,
                    took,
                    response.status,
                    outcome,
                    response.sent,
                )
            )
            self._settle(lane, delivery, outcome, response.status, now)

    def _settle(
        self, lane: Lane, delivery: Delivery, outcome: Outcome, status: int, now: float
    ) -> None:
        """What an outcome means for the delivery, and for what an operator asked meanwhile."""
        if delivery.event.claim.hold is Hold.FENCED:
            delivery.stage = Stage.GONE
            return
        recorder = self._recorder
        if outcome.kind is OutcomeKind.DELIVERED:
            recorder.delivered(delivery)
            return
        if delivery.request is Request.DISCARD:
            recorder.discard(delivery, delivery.request_no)
            return
        due = now + outcome.delay_seconds
        if delivery.request is Request.RETRY:
            delivery.cycle_start = delivery.attempts
            due = now
        elif outcome.kind is not OutcomeKind.RETRY or lane.removed:
            reason = Reason.ENDPOINT_REMOVED if lane.removed else outcome.reason
            recorder.bury(delivery, reason, status)
            lane.owed[delivery.key] = delivery
            return
        recorder.owe(delivery, due, outcome.reason, status)
        delivery.request = None
        lane.owed[delivery.key] = delivery
        self.on_retry(delivery, due)

    # --- stopping --------------------------------------------------------------------------

    async def drain(self, timeout_seconds: float) -> int:
        """Start nothing new; let attempts finish, then interrupt the rest. Returns how many."""
        self.open = False
        if self._workers:
            await asyncio.wait(set(self._workers), timeout=timeout_seconds)
        interrupted = list(self._workers)
        for worker in interrupted:
            worker.cancel()
        if interrupted:
            await asyncio.wait(interrupted, timeout=2)
        return len(interrupted)
