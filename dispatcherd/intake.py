"""From fetched records to lanes: decode, route, and decide between queueing, parking and waiting.

Invariant: a record enters its window whole or not at all; what has no room is parked when that
helps others, and otherwise left in Kafka. Records of a partition enter in offset order. Leaves
out: fetching (consume), sending, and the durable side of parking (record).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from aiokafka import TopicPartition

from dispatcherd import log
from dispatcherd.claim import Tenure
from dispatcherd.concurrency import ConcurrencyLimit
from dispatcherd.config.model import Config
from dispatcherd.conformity import Conformity
from dispatcherd.consume import Record
from dispatcherd.decode import Decoder
from dispatcherd.delivery import Delivery, Endpoint, Event, Hold, Reason, Refused
from dispatcherd.endpoints import Endpoints
from dispatcherd.lane import Lane
from dispatcherd.metrics import Metrics
from dispatcherd.offsets import Window
from dispatcherd.overflow import Overflow
from dispatcherd.parking import Parking
from dispatcherd.quota import Quota
from dispatcherd.record.buffer import Buffer
from dispatcherd.record.catalogue import Catalogue

logger = log.get(__name__)


class Blocked(StrEnum):
    """Why a record cannot be taken in now."""

    WINDOW = "window"
    MEMORY = "memory"
    UNRECORDED = "unrecorded"
    LANE = "hold"
    OWED = "owed_cap"
    TYPES = "types"


_SHORT_OF_ROOM: Final[tuple[Blocked, ...]] = (Blocked.WINDOW, Blocked.MEMORY)


@dataclass(slots=True)
class Fetched:
    """Records of one partition that wait to be taken in; the first may be decoded already."""

    tenure: Tenure
    records: list[Record]
    head: tuple[Event, Any] | Refused | None = None


class Intake:
    """Takes fetched records in, partition by partition."""

    def __init__(
        self,
        config: Config,
        endpoints: Endpoints,
        catalogue: Catalogue,
        conformity: Conformity,
        buffer: Buffer,
        parking: Parking,
        quota: Quota,
        metrics: Metrics,
        concurrency: ConcurrencyLimit,
        poke: Callable[[Lane], None],
    ) -> None:
        limits = config.limits
        # Asked for each record, and the attributes of a model are slow.
        self._window_deliveries = limits.window_deliveries
        self._window_bytes = limits.window_bytes
        self._memory_deliveries = limits.memory_deliveries
        self._memory_bytes = limits.memory_bytes
        self._parking = parking
        self._quota = quota
        self._holds_excess = limits.at_owed_cap == "hold"
        self._stops_at_cap = limits.at_owed_cap == "stop_intake"
        self._keep_bytes = config.decode.max_quarantine_bytes
        self._decoder = Decoder(config.decode)
        self._endpoints = endpoints
        self._catalogue = catalogue
        self._conformity = conformity
        self._buffer = buffer
        self._metrics = metrics
        self._poke = poke
        self.fetched: dict[TopicPartition, Fetched] = {}
        """What has been fetched and not taken in; a partition in here is not fetched further."""
        self.unknown_types: set[str] = set()
        """Types that need their number before their records can be taken in."""
        self.refused_types: set[str] = set()
        """Types over the cap: asked for, and not given a number."""
        self.on_recreated: Callable[[Tenure], None] = lambda tenure: None
        self._deliveries = 0
        self._bytes = 0
        self._overflow = Overflow(limits.hold_seconds, limits.park_after_seconds)
        self._concurrency = concurrency

    def add(self, tenure: Tenure, records: list[Record]) -> None:
        """Fetched records of a partition that has nothing waiting."""
        self.fetched[tenure.tp] = Fetched(tenure, records)
        self._metrics.records_consumed += len(records)

    def forget(self, tps: Iterable[TopicPartition]) -> None:
        """Drop what waits of these partitions: it will be fetched again, by us or another."""
        for tp in tps:
            self.fetched.pop(tp, None)

    def in_memory(self) -> tuple[int, int]:
        """(deliveries, bytes) between the watermarks and the positions of all partitions."""
        windows = self._buffer.windows.values()
        return sum(w.deliveries for w in windows), sum(w.bytes for w in windows)

    def take(self, now: float) -> Blocked | None:
        """Take in all that waits; returns the gravest cause if something must go on waiting."""
        self._deliveries, self._bytes = self.in_memory()
        cause: Blocked | None = None
        touched: dict[int, Lane] = {}
        for tp, fetched in list(self.fetched.items()):
            blocked = self._take_partition(fetched, now, touched)
            if not fetched.records:
                del self.fetched[tp]
            if blocked is not None:
                cause = blocked
                if blocked in _SHORT_OF_ROOM and not self._concurrency.late:
                    # It is the flush under way that all wait for: what is done need not.
                    self._buffer.settle()
                if blocked not in (Blocked.WINDOW, Blocked.TYPES):
                    break
        for lane in touched.values():
            self._poke(lane)
        return cause

    def _take_partition(
        self, fetched: Fetched, now: float, touched: dict[int, Lane]
    ) -> Blocked | None:
        tenure, records = fetched.tenure, fetched.records
        window = tenure.window
        if window.claim.hold is not Hold.ACTIVE:
            records.clear()
            return None
        blocked: Blocked | None = None
        count = len(records)
        taken = 0
        while taken < count:
            record = records[taken]
            if tenure.expected is not None and not self._same_topic(tenure, record):
                records.clear()
                return None
            offset: int = record.offset
            if window.wanted(offset):
                blocked = self._take_record(fetched, record, now, touched)
                if blocked is not None:
                    break
            elif offset >= window.position:
                window.skip_to(offset + 1)
            taken += 1
            fetched.head = None
        if blocked is None:
            if records:
                window.mark(records[-1].offset, fingerprint(records[-1]))
            if window.dirty:
                self._buffer.touch()
        del records[:taken]
        return blocked

    def _same_topic(self, tenure: Tenure, record: Record) -> bool:
        assert tenure.expected is not None
        offset, known = tenure.expected
        if record.offset < offset:
            return True
        tenure.expected = None
        if record.offset > offset or fingerprint(record) == known:
            return True  # compacted away or deleted: cannot be told, a stated non-guarantee
        self.on_recreated(tenure)
        return False

    def _take_record(
        self, fetched: Fetched, record: Record, now: float, touched: dict[int, Lane]
    ) -> Blocked | None:
        window = fetched.tenure.window
        if fetched.head is None:
            fetched.head = self._decode(window, record)
        if isinstance(fetched.head, Refused):
            return self._quarantine(window, record, fetched.head, now)
        event, document = fetched.head
        if event.type not in self._catalogue.ids:
            if event.type not in self.refused_types:
                self.unknown_types.add(event.type)
                return Blocked.TYPES
            fetched.head = Refused(
                Reason.TOO_MANY_TYPES,
                f"type {event.type[:100]!r} would exceed decode.max_types",
            )
            return self._quarantine(window, record, fetched.head, now)
        try:
            wanted = self._endpoints.router.route(event, document)
        except Exception as error:  # our own pure code: one record must not stop the rest
            fetched.head = _our_fault(error)
            return self._quarantine(window, record, fetched.head, now)
        return self._admit(window, event, wanted, now, touched)

    def _decode(self, window: Window, record: Record) -> tuple[Event, Any] | Refused:
        self._metrics.bytes_consumed += len(record.value or b"")
        try:
            decoded = self._decoder.decode(
                window.claim, record.offset, record.value, record.headers, record.timestamp
            )
            if isinstance(decoded, Refused):
                return decoded
            rules = self._conformity.rules
            if rules is not None:
                refused = self._conformity.refusal(rules, *decoded)
                if refused is not None:
                    return refused
        except Exception as error:
            return _our_fault(error)
        decoded[0].appended_at = record.timestamp / 1000
        return decoded

    def _quarantine(
        self, window: Window, record: Record, refused: Refused, now: float
    ) -> Blocked | None:
        size = min(len(record.value or b""), self._keep_bytes)
        if not self._buffer.try_reserve(1, size):
            return Blocked.UNRECORDED
        headers = tuple((name, value or b"") for name, value in record.headers)
        self._buffer.quarantine(
            window,
            record.offset,
            refused,
            record.key,
            record.value,
            headers,
            self._keep_bytes,
            now,
        )
        self._note_quarantine(window, record.offset, refused)
        return None

    def quarantine_unreadable(self, tenure: Tenure, beyond: int, why: str, now: float) -> bool:
        """One row for the offsets from the window's position to `beyond`, which the client cannot
        read; they are settled by it. False when there is no place for the row now."""
        window = tenure.window
        if not self._buffer.try_reserve(1):
            return False
        offset = window.position
        detail = f"offsets {offset} to {beyond - 1} cannot be read: {why}"[:300]
        refused = Refused(Reason.UNREADABLE, detail)
        self._buffer.quarantine(window, offset, refused, None, None, (), 0, now)
        window.skip_to(beyond)
        self._note_quarantine(window, offset, refused)
        return True

    def _note_quarantine(self, window: Window, offset: int, refused: Refused) -> None:
        self._metrics.quarantine(refused.reason)
        logger.warning(
            "record_quarantined",
            topic=window.claim.topic,
            partition=window.claim.partition,
            offset=offset,
            reason=refused.reason.word,
            detail=refused.detail,
        )

    # --- room ------------------------------------------------------------------------------

    def _admit(
        self,
        window: Window,
        event: Event,
        wanted: tuple[Endpoint, ...],
        now: float,
        touched: dict[int, Lane],
    ) -> Blocked | None:
        before = window.settled_endpoints(event.offset)
        if before:
            wanted = tuple(endpoint for endpoint in wanted if endpoint.id not in before)
        self._metrics.events += 1
        if not wanted:
            window.add(event.offset, {}, now, 0)
            return None
        size = event.size
        blocked = self._room(window, len(wanted), size)
        if blocked is not None:
            self._metrics.events -= 1
            return blocked
        full = self._quota.full
        if len(wanted) == 1 and not before and not full:
            endpoint = wanted[0]
            lane = self._endpoints.lanes[endpoint.id]
            if not endpoint.held and not self._overflow.stuck(lane, now) and lane.has_room(size):
                self._queue_single(window, event, lane, now, touched)
                return None
        if full and self._stops_at_cap and any(endpoint.id in full for endpoint in wanted):
            self._metrics.events -= 1
            return Blocked.OWED
        lanes = self._endpoints.lanes
        overflow = set()
        for endpoint in wanted:
            lane = lanes[endpoint.id]
            if full and self._holds_excess and endpoint.id in full:
                continue
            if endpoint.held or self._overflow.stuck(lane, now):
                overflow.add(endpoint.id)
            elif not lane.has_room(size):
                if self._overflow.waits(lane, now, self._concurrency.late):
                    self._metrics.events -= 1
                    return Blocked.LANE
                overflow.add(endpoint.id)
        if overflow and not self._buffer.try_reserve(len(overflow), len(overflow) * size):
            self._metrics.events -= 1
            return Blocked.UNRECORDED
        self._queue(window, event, wanted, overflow, now, touched)
        return None

    def _queue_single(
        self, window: Window, event: Event, lane: Lane, now: float, touched: dict[int, Lane]
    ) -> None:
        """The hot path, of what `_queue` does: one endpoint, and room in its lane."""
        number = lane.endpoint.id
        delivery = Delivery(event, number, now)
        window.add_single(event.offset, delivery, now, event.size)
        self._deliveries += 1
        self._bytes += event.size
        self._metrics.deliveries_routed += 1
        lane.offer(delivery)
        self._overflow.offered(lane, now)
        touched[number] = lane

    def _queue(
        self,
        window: Window,
        event: Event,
        wanted: tuple[Endpoint, ...],
        overflow: set[int],
        now: float,
        touched: dict[int, Lane],
    ) -> None:
        lanes = self._endpoints.lanes
        deliveries: dict[int, Delivery | None] = {e.id: Delivery(event, e.id, now) for e in wanted}
        held = self._quota.full.intersection(deliveries) if self._holds_excess else ()
        for number in held:
            deliveries[number] = None
        window.add(event.offset, deliveries, now, event.size)
        for number in held:
            self._buffer.hold(window, event.offset, number)
            self._metrics.endpoint(lanes[number].endpoint.name).parked(Reason.BACKLOG_FULL)
        self._deliveries += len(deliveries)
        self._bytes += event.size
        self._metrics.deliveries_routed += len(deliveries)
        for number, delivery in deliveries.items():
            if delivery is None:
                continue
            lane = lanes[number]
            if number in overflow:
                reason = Reason.ENDPOINT_HELD if lane.endpoint.held else Reason.LANE_FULL
                self._parking.park(lane, delivery, reason, now)
            else:
                lane.offer(delivery)
                self._overflow.offered(lane, now)
                touched[number] = lane

    def _room(self, window: Window, count: int, size: int) -> Blocked | None:
        if window.deliveries and (
            window.deliveries + count > self._window_deliveries
            or window.bytes + size > self._window_bytes
        ):
            return Blocked.WINDOW
        if self._deliveries and (
            self._deliveries + count > self._memory_deliveries
            or self._bytes + size > self._memory_bytes
        ):
            return Blocked.MEMORY
        return None


def fingerprint(record: Record) -> bytes:
    """Eight bytes that tell a record from another one at the same position."""
    digest = hashlib.blake2b(str(record.timestamp).encode(), digest_size=8)
    digest.update(record.key or b"")
    digest.update(record.value or b"")
    return digest.digest()


def _our_fault(error: Exception) -> Refused:
    logger.error("internal_error", error=f"{type(error).__name__}: {error}"[:300], exc_info=error)
    return Refused(Reason.INTERNAL_ERROR, f"dispatcherd failed on it: {type(error).__name__}")
