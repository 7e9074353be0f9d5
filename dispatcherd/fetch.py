"""The intake loop: fetch where there is room, take in, wait where there is none.

Invariant: a poll is never cancelled (aiokafka would leak its fetch context), a partition with
records waiting is not fetched further, and a blocked partition blocks no other. Leaves out: what
becomes of a record (intake) and which partitions are ours (claim).
"""

from __future__ import annotations

import asyncio
import gc

from aiokafka import TopicPartition

from dispatcherd import inflate, log
from dispatcherd.claim import Ownership, Tenure
from dispatcherd.consume import (
    Consumer,
    Crowded,
    OutOfRange,
    Record,
    Unreadable,
)
from dispatcherd.errors import LogUnavailable, StoreUnavailable
from dispatcherd.intake import Blocked, Intake
from dispatcherd.metrics import Metrics
from dispatcherd.parking import Parking
from dispatcherd.record.buffer import Buffer
from dispatcherd.record.catalogue import Catalogue
from dispatcherd.timers import Timers
from dispatcherd.unreadable import end_of_batch, first_readable

logger = log.get(__name__)

_BLOCKED_PAUSE_SECONDS = 0.005
_IDLE_POLL_SECONDS = 0.1
_GATHER_SECONDS = 0.004
_FEW = 200
"""A request to Kafka costs as much as ten deliveries, whatever it brings. After one that brought
few records, the last there were, the next is not sent at once: more will have come by then. What
comes after a silence is read at once."""
_RELIEVE_EVERY_SECONDS = 0.1
_PASS_GAPS_EVERY_SECONDS = 1.0
_ALIVE_EVERY_SECONDS = 30
_SUSPECT_POLL_SECONDS = 0.5
_MOST_READ_SINGLY = 500
_MOST_REFUSED_TYPES = 10_000


class FetchLoop:
    """Polls Kafka and feeds the intake."""

    def __init__(
        self,
        consumer: Consumer,
        intake: Intake,
        ownership: Ownership,
        catalogue: Catalogue,
        parking: Parking,
        buffer: Buffer,
        timers: Timers,
        metrics: Metrics,
        skip_unreadable: bool,
        most_waiting_bytes: int,
    ) -> None:
        """`most_waiting_bytes`: of compressed batches, inflated and not yet taken in."""
        self._skip_unreadable = skip_unreadable
        self._most_waiting = most_waiting_bytes
        self._sizes: dict[TopicPartition, int] = {}
        """Bytes of the values that were last handed to the intake, of partitions with any."""
        self._half_read: set[TopicPartition] = set()
        """Partitions of whose last batch the client may still hold a part, inflated."""
        self._consumer = consumer
        self._intake = intake
        self._ownership = ownership
        self._catalogue = catalogue
        self._parking = parking
        self._buffer = buffer
        self._timers = timers
        self._metrics = metrics
        self._polled_at = self._gathers_until = 0.0
        self._relieved_at = self._passed_at = 0.0
        self._settled, self._measured_at = 0, 0.0
        self.healthy = True
        """False while Kafka does not answer."""
        self.doubted: list[Tenure] = []
        """Tenures whose record below the watermark is not the one that was settled."""

    async def run(self, stopping: asyncio.Event) -> None:
        """Until stopping."""
        while not stopping.is_set():
            await self._turn(self._timers.now())

    async def _turn(self, now: float) -> None:
        intake = self._intake
        cause = intake.take(now) if intake.fetched else None
        if self.doubted and not await self._answer_doubts():
            return
        if cause is Blocked.TYPES:
            await self._learn_types()
            return
        if cause is not None:
            self._metrics.paused(cause.value, _BLOCKED_PAUSE_SECONDS)
        if cause is None and now < self._gathers_until:
            await asyncio.sleep(self._gathers_until - now)
            now = self._timers.now()
        if now - self._relieved_at > _RELIEVE_EVERY_SECONDS:
            self._relieved_at = now
            self._relieve(cause, now)
        free = [
            tp
            for tp, tenure in self._ownership.reading.items()
            if tp not in intake.fetched and tenure.halted is None
        ]
        if inflate.live_bytes() > self._most_waiting:
            self._drop_half_read()
        if cause not in (None, Blocked.WINDOW, Blocked.OWED) or not free or self._is_laden():
            await asyncio.sleep(_BLOCKED_PAUSE_SECONDS)
            if now - self._polled_at > _ALIVE_EVERY_SECONDS:
                self._polled_at = now
                await self._poll([], 0)  # the client leaves the group when it is never asked
            return
        self._polled_at = now
        wait = _IDLE_POLL_SECONDS if cause is None else _BLOCKED_PAUSE_SECONDS
        found = await self._poll(free, wait)
        for tenure, records in found:
            intake.add(tenure, records)
        if 0 < sum([len(records) for _, records in found]) < _FEW and self._at_the_end(found):
            self._gathers_until = self._timers.now() + _GATHER_SECONDS
        if now - self._passed_at > _PASS_GAPS_EVERY_SECONDS:
            self._passed_at = now
            await self._pass_gaps(free)

    def _at_the_end(self, found: list[tuple[Tenure, list[Record]]]) -> bool:
        """Whether these were the last records of their partitions, as far as is known."""
        end = self._consumer.highwater
        return all(records[-1].offset + 1 >= (end(tenure.tp) or 0) for tenure, records in found)

    async def _pass_gaps(self, tps: list[TopicPartition]) -> None:
        """A partition may end with what is never handed out: control records of transactions,
        aborted or compacted records. No later record proves that gap; the client's position does,
        once it has nothing to hand out and no error to raise."""
        for tp in tps:
            tenure = self._ownership.reading.get(tp)
            if tenure is None or tp in self._intake.fetched:
                continue
            if tenure.window.position >= (self._consumer.highwater(tp) or 0):
                continue
            for found, records in await self._poll([tp], 0):
                self._intake.add(found, records)
            if tp in self._intake.fetched:
                continue
            position = await self._consumer.fetched_to(tp)
            if position is not None and self._ownership.reading.get(tp) is tenure:
                tenure.window.skip_to(position)
                if tenure.window.dirty:
                    self._buffer.touch()

    # --- what compressed batches become in memory ---------------------------------------------

    def _is_laden(self) -> bool:
        """Whether so much waits to be taken in that there is no room for another poll's."""
        waiting = self._intake.fetched
        if not waiting:
            return False
        return sum(self._sizes.get(tp, 0) for tp in waiting) > self._most_waiting // 2

    def _weigh(self, found: dict[TopicPartition, list[Record]], asked: int) -> None:
        if not self._consumer.last_inflated and not self._sizes:
            return  # nothing here is compressed; a fetch has its own bound
        for tp, records in found.items():
            self._sizes[tp] = sum([len(record.value or b"") for record in records])
            self._half_read.discard(tp)
        if found and sum(len(records) for records in found.values()) >= asked:
            self._half_read.add(next(reversed(found)))

    def _drop_half_read(self) -> None:
        """Blocked partitions' batches are inflated again when it is their turn."""
        for tp in self._half_read.intersection(self._intake.fetched):
            if tp in self._ownership.reading:
                self._consumer.begin(tp, self._intake.fetched[tp].records[-1].offset + 1)
        self._half_read.clear()
        self._free_what_was_dropped()

    def _free_what_was_dropped(self) -> None:
        """What the client drops of a batch that it has read in part is a cycle (its iterator holds
        itself): it would lie in memory, inflated, until the collector comes by itself."""
        if inflate.live_bytes() > self._most_waiting // 2:
            gc.collect()

    async def _answer_doubts(self) -> bool:
        try:
            while self.doubted:
                await self._ownership.recreated(self.doubted[-1])
                self.doubted.pop()
        except StoreUnavailable:
            await asyncio.sleep(0.5)
            return False
        return True

    async def _poll(
        self, free: list[TopicPartition], seconds: float
    ) -> list[tuple[Tenure, list[Record]]]:
        asked = self._consumer.at_once
        try:
            found = await self._consumer.poll(free, seconds)
            self._weigh(found, asked)
            if not self.healthy:
                self.healthy = True
                logger.warning("kafka_available_again")
        except OutOfRange as error:
            for tp in error.partitions:
                tenure = self._ownership.reading.get(tp)
                if tenure is not None:
                    self._intake.forget([tp])
                    self._ownership.reclaim(tenure)
            return []
        except Unreadable:
            await self._find_unreadable(free)
            return []
        except Crowded:
            self._read_again(free)
            return []
        except LogUnavailable as error:
            if self.healthy:
                self.healthy = False
                logger.error("kafka_unavailable", error=str(error))
            await asyncio.sleep(0.5)
            return []
        reading = self._ownership.reading
        return [(reading[tp], records) for tp, records in found.items() if tp in reading]

    # --- what the client cannot read ---------------------------------------------------------

    def _read_again(self, tps: list[TopicPartition]) -> None:
        """From where we are; of these partitions nothing waits to be taken in."""
        reading = self._ownership.reading
        for tp in tps:
            if tp in reading:
                self._consumer.begin(tp, reading[tp].window.position)
        self._free_what_was_dropped()

    async def _find_unreadable(self, free: list[TopicPartition]) -> None:
        """The client failed on a batch, and threw away what it had read of other partitions in the
        same call: every one is read again from where we are, each alone until the bad one shows."""
        reading = self._ownership.reading
        self._read_again(free)
        for tp in free:
            if self._is_laden():
                return  # the rest, and the bad one if it is there, when there is room again
            tenure = reading.get(tp)
            if tenure is None:
                continue
            try:
                records, why = await self._read_singly(tp)
                if reading.get(tp) is not tenure:
                    continue
                if records:
                    self._intake.add(tenure, records)  # up to the bad one: it shows next time
                elif why is not None:
                    await self._pass_unreadable(tenure, why)
            except (OutOfRange, Crowded, LogUnavailable) as error:
                logger.debug("search_for_unreadable_postponed", error=str(error))
                return

    async def _read_singly(self, tp: TopicPartition) -> tuple[list[Record], str | None]:
        """Records up to the one that cannot be read, and why it cannot."""
        records: list[Record] = []
        why = None
        size = 0
        try:
            while len(records) < _MOST_READ_SINGLY and size <= self._most_waiting // 4:
                found = await self._consumer.poll([tp], _SUSPECT_POLL_SECONDS, max_records=1)
                if not found.get(tp):
                    break
                records += found[tp]
                size += len(found[tp][0].value or b"")
        except Unreadable as error:
            why = str(error)
        self._sizes[tp] = size
        return records, why

    async def _pass_unreadable(self, tenure: Tenure, why: str) -> None:
        """By the configured policy: halt the partition, or go on behind what cannot be read."""
        self._metrics.unreadable += 1
        bad, tp = tenure.window.position, tenure.tp
        if not self._skip_unreadable:
            self._ownership.halt(
                tenure,
                f"the record at offset {bad} (or one packed with it) cannot be read: {why}; set "
                "kafka.on_unreadable to skip to go on behind it",
            )
            return
        end = (await self._consumer.bounds([tp], 10))[tp][1]
        beyond = await end_of_batch(self._consumer.client, tp, bad)
        if beyond is None:
            beyond = await first_readable(lambda offset: self._readable(tp, offset), bad, end)
        if self._ownership.reading.get(tp) is not tenure or tenure.window.position != bad:
            return
        if not self._intake.quarantine_unreadable(tenure, beyond, why, self._timers.now()):
            return  # no place to record it in now: it will show again
        self._consumer.begin(tp, beyond)

    async def _readable(self, tp: TopicPartition, offset: int) -> bool:
        self._consumer.begin(tp, offset)
        try:
            await self._consumer.poll([tp], _SUSPECT_POLL_SECONDS, max_records=1)
        except Unreadable:
            return False
        return True

    async def _learn_types(self) -> None:
        intake = self._intake
        asked, intake.unknown_types = intake.unknown_types, set()
        try:
            await self._catalogue.learn(asked)
        except StoreUnavailable:
            await asyncio.sleep(0.5)
            return
        refused = asked - self._catalogue.ids.keys()
        if refused and len(intake.refused_types) < _MOST_REFUSED_TYPES:
            intake.refused_types |= refused

    def _relieve(self, cause: Blocked | None, now: float) -> None:
        tight = cause in (Blocked.WINDOW, Blocked.MEMORY)
        turnover = self._turnover(now)
        for tenure in self._ownership.reading.values():
            self._parking.relieve(tenure.window, tight, cause is Blocked.MEMORY, turnover, now)

    def _turnover(self, now: float) -> float:
        """Seconds in which what is in memory is settled, at the rate since it was last asked."""
        in_memory, _ = self._intake.in_memory()
        settled = self._metrics.deliveries_routed - in_memory
        rate = (settled - self._settled) / max(now - self._measured_at, 0.001)
        self._settled, self._measured_at = settled, now
        return in_memory / rate if rate > 0 else float("inf")
