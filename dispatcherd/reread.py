"""What is owed without rows comes back: held offset ranges are read again from Kafka and parked.

Invariant: rows and the range's new start are in one flush, so that a crash between neither loses
nor doubles; a range is read only while its endpoint has room, and never faster than there is. What
Kafka has deleted meanwhile is counted and named, not skipped in silence, and so is what can no
longer be read: it waits, or is passed over, as `kafka.on_unreadable` says. Leaves out: when events
are held (intake), the caps (quota), and sending what was parked (retry).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka import errors as kafka_errors

from dispatcherd import inflate, log
from dispatcherd.claim import Ownership
from dispatcherd.config.model import Config
from dispatcherd.consume import (
    UNREADABLE,
    Record,
    Unreadable,
    connection_options,
)
from dispatcherd.decode import Decoder
from dispatcherd.delivery import Delivery, Key, Reason, Refused
from dispatcherd.endpoints import Endpoints
from dispatcherd.errors import StoreUnavailable
from dispatcherd.metrics import Metrics
from dispatcherd.parking import Parking
from dispatcherd.quota import Quota
from dispatcherd.record import backlog
from dispatcherd.record.connection import Database
from dispatcherd.record.gathering import HeldRange
from dispatcherd.record.recorder import Recorder
from dispatcherd.unreadable import end_of_batch, first_readable

logger = log.get(__name__)

_RECORDS_AT_ONCE = 500
_POLL_SECONDS = 1.0


class Rereader:
    """Reads held ranges again, one at a time, with a client outside the group."""

    def __init__(
        self,
        config: Config,
        sasl_password: str | None,
        database: Database,
        ownership: Ownership,
        endpoints: Endpoints,
        quota: Quota,
        recorder: Recorder,
        parking: Parking,
        metrics: Metrics,
        now: Callable[[], float],
    ) -> None:
        self._config = config
        self._password = sasl_password
        self._database = database
        self._ownership = ownership
        self._endpoints = endpoints
        self._quota = quota
        self._recorder = recorder
        self._parking = parking
        self._metrics = metrics
        self._now = now
        self._decoder = Decoder(config.decode)
        self._client: AIOKafkaConsumer | None = None
        self._stuck: set[Key] = set()
        """Ranges that begin with what could be read once and cannot be now: the policy is to stop,
        and only a restart can change it."""

    async def run(self) -> None:
        """For ever: whatever is held for an endpoint that has room again."""
        try:
            while True:
                await asyncio.sleep(self._config.postgres.poll_interval_seconds)
                try:
                    while await self._turn():
                        pass
                except (StoreUnavailable, kafka_errors.KafkaError, OSError) as error:
                    logger.debug("reread_postponed", error=str(error))
                    await self._close()
        finally:
            await self._close()

    async def _turn(self) -> bool:
        """Read a piece of every range that may be read; False when there is nothing to do."""
        claims = [claim for t in self._ownership.reading.values() for claim in t.claims]
        if not claims:
            return False
        moved = False
        for held in await backlog.held_ranges(self._database, claims):
            lane = self._endpoints.lane(held.endpoint_id)
            if lane is None:
                self._lost(held, held.end, "the endpoint was removed")
                moved = True
                continue
            if (
                lane.endpoint.held
                or held.endpoint_id in self._quota.full
                or held.key in self._stuck
            ):
                continue
            moved |= await self._read(held)
        if moved:
            await self._recorder.durable()  # only then does the table show where to go on
        else:
            await self._close()
        return moved

    async def _read(self, held: HeldRange) -> bool:
        room = min(_RECORDS_AT_ONCE, self._quota.room(held.endpoint_id))
        tp = TopicPartition(held.claim.topic, held.claim.partition)
        tenure = self._ownership.reading.get(tp)
        if room <= 0 or tenure is None or held.claim not in tenure.claims:
            return False
        if tenure.window.claim is not held.claim:
            self._lost(held, held.end, "the topic was created again")
            return True
        try:
            found, position = await self._fetch(tp, held.start, room)
        except Unreadable:
            return await self._read_around(tp, held)
        except kafka_errors.OffsetOutOfRangeError:
            client = await self._opened()
            first = int((await client.beginning_offsets([tp]))[tp])
            self._lost(held, min(max(first, held.start), held.end), "Kafka has deleted them")
            return True
        # What is an event by today's rules may have been none when it was first read.
        quarantined = await backlog.quarantined(self._database, held.claim, held.start, position)
        if self._ownership.reading.get(tp) is not tenure:
            return False
        records = [record for record in found.get(tp, []) if record.offset not in quarantined]
        return self._park(held, records, position)

    async def _fetch(
        self, tp: TopicPartition, offset: int, most: int
    ) -> tuple[dict[TopicPartition, list[Record]], int]:
        """Records from an offset on, and where to go on; raises Unreadable and Kafka's errors."""
        client = await self._opened()
        client.assign([tp])
        client.seek(tp, offset)
        try:
            with inflate.turn(self._config.limits.batch_inflated_bytes):
                found = await client.getmany(
                    tp, timeout_ms=int(_POLL_SECONDS * 1000), max_records=most
                )
        except kafka_errors.KafkaError as error:
            if isinstance(error, UNREADABLE):
                raise Unreadable(str(error)) from error
            raise
        except Exception as error:  # a codec's or the parser's own; or too much at once
            raise Unreadable(str(error)) from error
        return found, int(await client.position(tp))

    async def _read_around(self, tp: TopicPartition, held: HeldRange) -> bool:
        """One record; or, where the range begins with what cannot be read, go on behind that, if it
        stands in the quarantine since it was first read. Otherwise it was readable then, and is
        owed: what becomes of it is the policy's to say."""
        why = ""

        async def readable(offset: int) -> bool:
            nonlocal why
            try:
                await self._fetch(tp, offset, 1)
            except Unreadable as error:
                why = str(error)
                return False
            return True

        if await readable(held.start):
            found, position = await self._fetch(tp, held.start, 1)
            return self._park(held, found.get(tp, []), position)
        known_end = await backlog.unreadable_up_to(self._database, held.claim, held.start)
        if known_end is not None:
            held.resume_at = min(known_end, held.end)
            self._recorder.buffer.reread(held)
            return True
        beyond = await end_of_batch(await self._opened(), tp, held.start)
        if beyond is None:
            beyond = await first_readable(readable, held.start, held.end)
        beyond = min(beyond, held.end)
        self._metrics.unreadable += 1
        if self._config.kafka.on_unreadable == "skip":
            self._lost(held, beyond, f"cannot be read any more: {why}")
            return True
        self._stuck.add(held.key)
        remedy = "set kafka.on_unreadable to skip to go on behind them"
        why = f"cannot be read any more: {why}; they and all behind them stay owed; {remedy}"
        self._say("held_range_unreadable", held, beyond, why)
        return False

    def _park(self, held: HeldRange, records: list[Record], position: int) -> bool:
        """Rows for what routes to the endpoint, and the range's new start, without a wait between:
        they are in one flush."""
        lane = self._endpoints.lane(held.endpoint_id)
        if lane is None:
            return False
        held.resume_at = min(position, held.end)
        now = self._now()
        for record in records:
            if record.offset >= held.end:
                break
            delivery = self._delivery(held, record, now)
            if delivery is None:
                continue
            if not self._recorder.buffer.try_reserve(1, delivery.event.size):
                held.resume_at = record.offset
                break
            self._parking.park(lane, delivery, Reason.BACKLOG_FULL, now)
        if held.resume_at == held.start:
            return False
        self._recorder.buffer.reread(held)
        return True

    def _delivery(self, held: HeldRange, record: Record, now: float) -> Delivery | None:
        decoded = self._decoder.decode(
            held.claim, record.offset, record.value, record.headers, record.timestamp
        )
        if isinstance(decoded, Refused):
            return None  # went to quarantine when it was first read
        event, document = decoded
        event.appended_at = record.timestamp / 1000
        for endpoint in self._endpoints.router.route(event, document):
            if endpoint.id == held.endpoint_id:
                return Delivery(event, endpoint.id, now)
        return None

    def _lost(self, held: HeldRange, resume_at: int, why: str) -> None:
        held.resume_at = resume_at
        self._metrics.held_offsets_lost += resume_at - held.start
        self._say("held_range_lost", held, resume_at, why)
        self._recorder.buffer.reread(held)

    def _say(self, event: str, held: HeldRange, up_to: int, why: str) -> None:
        lane = self._endpoints.lane(held.endpoint_id)
        logger.error(
            event,
            endpoint=lane.endpoint.name if lane is not None else held.endpoint_id,
            topic=held.claim.topic,
            partition=held.claim.partition,
            offsets=f"{held.start} to {up_to - 1}",
            reason=why,
        )

    async def _opened(self) -> AIOKafkaConsumer:
        if self._client is None:
            client = AIOKafkaConsumer(
                **connection_options(self._config.kafka, self._password),
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                isolation_level=self._config.kafka.isolation_level,
                max_partition_fetch_bytes=self._config.kafka.fetch_max_bytes_per_partition,
            )
            await client.start()
            self._client = client
        return self._client

    async def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            # It belongs to no group and commits nothing: how its connections end is no news.
            with contextlib.suppress(Exception):
                async with asyncio.timeout(2):
                    await client.stop()
