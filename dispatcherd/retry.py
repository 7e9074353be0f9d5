"""What is owed comes back: the near future on the wheel, the rest paged in from Postgres.

Invariant: a delivery with a row is in memory at most once, and a row whose change is not durable
yet is not read again; what has no room stays in Postgres. Leaves out: when an attempt is to be
made again (outcome), and sending (send).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from dispatcherd import log
from dispatcherd.budget import SharedBudget
from dispatcherd.claim import Ownership, Tenure
from dispatcherd.config.model import LimitsConfig
from dispatcherd.delivery import Claim, Delivery, Hold, Reason, Request, Stage
from dispatcherd.endpoints import Endpoints
from dispatcherd.errors import StoreUnavailable
from dispatcherd.lane import Lane
from dispatcherd.outcome import company
from dispatcherd.record import owed
from dispatcherd.record.connection import Database
from dispatcherd.record.gathering import Change, Gathering
from dispatcherd.record.owed import RequestRow
from dispatcherd.record.recorder import Recorder
from dispatcherd.timers import Timers, set_within

logger = log.get(__name__)

_NEVER = float("inf")
_REQUESTS_AT_ONCE = 1_000


class Poke(Protocol):
    """Tells the sender that a lane has work."""

    def __call__(self, lane: Lane) -> None: ...


class Retries:
    """The wheel's share of what is owed, and the pager behind it."""

    def __init__(
        self,
        database: Database,
        endpoints: Endpoints,
        ownership: Ownership,
        recorder: Recorder,
        timers: Timers,
        limits: LimitsConfig,
        poke: Poke,
        poll_seconds: float,
    ) -> None:
        self._database = database
        self._endpoints = endpoints
        self._ownership = ownership
        self._recorder = recorder
        self._timers = timers
        self._limits = limits
        self._poke = poke
        self._poll_seconds = poll_seconds
        self._horizon = limits.wheel_horizon_seconds
        self.waiting = 0
        self.waiting_bytes = 0
        self._budget = SharedBudget(limits.wheel_deliveries, limits.wheel_bytes)
        """Of what is owed and in memory, but not in the air: that has its place in the recorder."""
        self._queued: dict[Lane, None] = {}
        """Lanes that may have due deliveries queued."""
        self._survey_at = 0.0
        self._requests_at = 0.0
        self._fired: dict[Lane, None] = {}
        """Lanes with deliveries that have come due and that the sender has not been told of."""
        self._wake = asyncio.Event()
        self.on_granted: Callable[[int], None] = lambda count: None

    # --- keeping and leaving ---------------------------------------------------------------

    def schedule(self, delivery: Delivery, due: float) -> None:
        """It has a row (or will, with the next flush): keep it for its time, or leave it there."""
        lane = self._endpoints.lane(delivery.endpoint_id)
        size = delivery.event.size
        if (
            lane is None
            or due - self._timers.now() > self._horizon
            or lane.next_due < due  # older rows wait in Postgres: theirs is the next free place
            or lane.due_room() <= 0
            or not self._fits(lane, size)
        ):
            self.leave(delivery, due)
            return
        delivery.stage = Stage.WAITING
        lane.waiting += 1
        lane.waiting_bytes += size
        self.waiting += 1
        self.waiting_bytes += size
        self._budget.take(size)
        delivery.timer = self._timers.schedule(due, self._fire, delivery)

    def leave(self, delivery: Delivery, due: float) -> None:
        """Out of memory, its row remains; it is paged in again when its time comes."""
        delivery.stage = Stage.GONE
        lane = self._endpoints.lane(delivery.endpoint_id)
        if lane is None:
            return
        lane.expect(due)
        if not self._recorder.buffer.pending(delivery):
            lane.owed.pop(delivery.key, None)

    def committed(self, contents: Gathering) -> None:
        """A flush is durable: what left memory meanwhile may be paged in again from here on."""
        for key, operation in contents.operations.items():
            delivery = operation.delivery
            lane = self._endpoints.lane(key.endpoint_id)
            if (
                lane is not None
                and delivery.stage is Stage.GONE
                and lane.owed.get(key) is delivery
                and not self._recorder.buffer.pending(delivery)
            ):
                del lane.owed[key]
                if operation.change is Change.OWED:
                    # A page taken before the row was durable has not seen it.
                    lane.expect(operation.due)

    def _fire(self, delivery: Delivery) -> None:
        lane = self._off_wheel(delivery)
        if lane is None or delivery.event.claim.hold is Hold.FENCED:
            delivery.stage = Stage.GONE
        elif delivery.event.claim.hold is Hold.SUSPENDED:
            self.leave(delivery, self._timers.now())
        else:
            lane.offer_due(delivery)
            self._queued[lane] = None
            # Told after all that are due in this tick: a batch that failed together is whole again.
            if not self._fired:
                asyncio.get_running_loop().call_soon(self._poke_fired)
            self._fired[lane] = None

    def _poke_fired(self) -> None:
        fired, self._fired = self._fired, {}
        for lane in fired:
            self._poke(lane)

    def _off_wheel(self, delivery: Delivery) -> Lane | None:
        delivery.timer = None
        self.waiting -= 1
        self.waiting_bytes -= delivery.event.size
        lane = self._endpoints.lane(delivery.endpoint_id)
        if lane is not None:
            lane.waiting -= 1
            lane.waiting_bytes -= delivery.event.size
        return lane

    def _fits(self, lane: Lane, size: int) -> bool:
        own, own_bytes = _held(lane)
        return self._budget.fits(own, own_bytes, size)

    def _measure(self) -> None:
        """What has left the queues since is free again; between two looks the budget only fills."""
        for lane in [lane for lane in self._queued if not lane.due]:
            del self._queued[lane]
        budget = self._budget
        budget.held = self.waiting + sum([len(lane.due) for lane in self._queued])
        budget.held_bytes = self.waiting_bytes + sum([lane.due_bytes for lane in self._queued])

    def dropped(self, tenure: Tenure) -> None:
        """The claims of this tenure are somebody else's: forget what is owed in them."""
        claims = set(tenure.claims)
        for lane in self._endpoints.lanes.values():
            for key, delivery in list(lane.owed.items()):
                if delivery.event.claim not in claims:
                    continue
                del lane.owed[key]
                if delivery.timer is not None:
                    self._timers.cancel(delivery.timer)
                    self._off_wheel(delivery)
                    delivery.stage = Stage.GONE

    def removed(self, lanes: Iterable[Lane]) -> None:
        """These endpoints are gone: so is what waits for them; `run` buries their rows."""
        for lane in lanes:
            for delivery in [*lane.due, *lane.fresh]:
                lane.remove(delivery)
                self._recorder.buffer.bury(delivery, Reason.ENDPOINT_REMOVED)
            for delivery in lane.owed.values():
                if delivery.timer is not None:
                    self._timers.cancel(delivery.timer)
                    delivery.timer = None
                    self.waiting -= 1
                    self.waiting_bytes -= delivery.event.size
                    self._recorder.buffer.bury(delivery, Reason.ENDPOINT_REMOVED)
        self.look_again()

    # --- paging ----------------------------------------------------------------------------

    def look_again(self) -> None:
        """Survey what is owed, and look for requests, as soon as possible."""
        self._survey_at = self._requests_at = 0.0
        self._wake.set()

    def look_for_requests(self) -> None:
        """An operator may have asked for something."""
        self._requests_at = 0.0
        self._wake.set()

    async def run(self) -> None:
        """Page in what is due, for ever."""
        while True:
            await set_within(self._wake, 0.1)
            self._wake.clear()
            claims = self._claims()
            if not claims:
                continue
            try:
                await self._turn(claims)
            except StoreUnavailable as error:
                # The recorder says it once and aloud; here it only means: later.
                logger.debug("paging_postponed", error=str(error))
                await asyncio.sleep(1)

    def _claims(self) -> list[Claim]:
        return [claim for t in self._ownership.working() for claim in t.claims]

    async def _turn(self, claims: list[Claim]) -> None:
        now = self._timers.now()
        if now >= self._requests_at:
            self._requests_at = now + self._poll_seconds
            async with self._recorder.turnstile:
                await self._grant(claims)
        if now >= self._survey_at:
            self._survey_at = now + self._horizon / 2
            async with self._recorder.turnstile:
                await self._survey(claims)
        self._measure()
        for lane in list(self._endpoints.backlogged):
            if lane.next_due == _NEVER or lane.removed:
                del self._endpoints.backlogged[lane]
                continue
            if lane.next_due > self._timers.now() + self._horizon or lane.endpoint.held:
                continue
            own, own_bytes = _held(lane)
            shared, most_bytes = self._budget.room(own, own_bytes)
            room = min(lane.due_room(), shared)
            if not room or room < min(lane.max_deliveries // 8, own):
                continue
            # Behind the others: who was served last is the first to go without.
            del self._endpoints.backlogged[lane]
            self._endpoints.backlogged[lane] = None
            async with self._recorder.pages:
                await self._page(lane, room, min(most_bytes, lane.max_bytes // 2))

    async def _survey(self, claims: list[Claim]) -> None:
        now = self._timers.now()
        strangers = set()
        for first in await owed.survey(self._database, claims):
            lane = self._endpoints.lane(first.endpoint_id)
            if lane is None:
                strangers.add(first.endpoint_id)
            else:
                lane.expect(now + max(0.0, first.due_in_seconds))
        for endpoint_id in strangers:
            count = await owed.bury_removed(self._database, claims, endpoint_id)
            if count:
                logger.warning("owed_to_removed_endpoint", endpoint_id=endpoint_id, buried=count)

    async def _page(self, lane: Lane, room: int, most_bytes: int) -> None:
        claims = self._claims()
        now = self._timers.now()
        before, lane.next_due = lane.next_due, _NEVER
        try:
            rows = await owed.page(
                self._database,
                claims,
                lane.endpoint.id,
                self._horizon,
                room,
                most_bytes,
                lane.owed.keys(),
                now,
            )
        except BaseException:
            lane.expect(before)
            raise
        now = self._timers.now()
        max_events = lane.endpoint.batch.max_events
        for row in rows:
            delivery = row.delivery
            if delivery.key in lane.owed or delivery.event.claim.hold is not Hold.ACTIVE:
                continue
            if max_events > 1:
                number = delivery.attempts - delivery.cycle_start
                delivery.company = company(Reason(row.reason), number, max_events)
            due = now + row.due_in_seconds
            size = delivery.event.size
            if lane.due_room() <= 0 or not self._fits(lane, size):
                lane.expect(due)
                break
            lane.owed[delivery.key] = delivery
            if due <= now:
                lane.offer_due(delivery)
                self._queued[lane] = None
                self._budget.take(size)
            else:
                self.schedule(delivery, due)
        if len(rows) >= room or sum([r.delivery.event.size for r in rows]) >= most_bytes:
            lane.expect(now + rows[-1].due_in_seconds)
        self._poke(lane)

    # --- operators' requests ---------------------------------------------------------------

    async def _grant(self, claims: list[Claim]) -> None:
        rows = await owed.requests(self._database, claims, _REQUESTS_AT_ONCE)
        if not rows:
            return
        elsewhere = []
        for row in rows:
            lane = self._endpoints.lane(row.key.endpoint_id)
            delivery = lane.owed.get(row.key) if lane is not None else None
            if lane is None or delivery is None:
                elsewhere.append(row)
            elif delivery.stage is not Stage.GONE:
                self._grant_in_memory(lane, delivery, row)
            # GONE with a change that is not durable yet: the next turn finds it in Postgres.
        await owed.grant(self._database, claims, elsewhere)
        now = self._timers.now()
        for row in elsewhere:
            lane = self._endpoints.lane(row.key.endpoint_id)
            if lane is not None and row.request is Request.RETRY:
                lane.expect(now)
        logger.info("requests_granted", count=len(rows))
        self.on_granted(len(rows))
        if len(rows) == _REQUESTS_AT_ONCE:
            self._requests_at = 0.0
            self._wake.set()

    def _grant_in_memory(self, lane: Lane, delivery: Delivery, row: RequestRow) -> None:
        delivery.request, delivery.request_no = row.request, row.number
        if delivery.stage is Stage.AIR:
            return  # acted upon when the attempt ends
        now = self._timers.now()
        if delivery.timer is not None:
            self._timers.cancel(delivery.timer)
            self._off_wheel(delivery)
        else:
            lane.remove(delivery)
        if row.request is Request.DISCARD:
            self._recorder.buffer.discard(delivery, row.number)
            return
        delivery.cycle_start = delivery.attempts
        self._recorder.buffer.owe(delivery, now, Reason.OPERATOR_RETRY)
        delivery.request = None
        lane.offer_due(delivery)
        self._queued[lane] = None
        self._poke(lane)


def _held(lane: Lane) -> tuple[int, int]:
    """(deliveries, bytes) of what a lane holds that is owed, waiting or queued."""
    return len(lane.due) + lane.waiting, lane.due_bytes + lane.waiting_bytes
