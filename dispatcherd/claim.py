"""Which partitions are ours: from Kafka's assignment, through a claim in Postgres, back to Kafka.

Invariant: no record of a partition is taken in, and nothing of it is sent for the first time,
before Postgres gave us its epoch and Kafka then accepted its watermark from us; a revocation
suspends, and only a higher epoch in Postgres ends a claim. Leaves out: lanes and wheels (told by
the callbacks), reading records (pipeline).

The rules, and why each is needed, are DESIGN section 4, "Claiming a partition".
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from aiokafka import TopicPartition

from dispatcherd import log
from dispatcherd.config.model import KafkaConfig
from dispatcherd.consume import Consumer, MembershipLost
from dispatcherd.delivery import Claim, Hold
from dispatcherd.errors import LogUnavailable, StoreUnavailable
from dispatcherd.metrics import Metrics
from dispatcherd.offsets import Window
from dispatcherd.record import claims
from dispatcherd.record.buffer import Buffer
from dispatcherd.record.connection import Database, describe
from dispatcherd.timers import set_within

logger = log.get(__name__)


@dataclass(slots=True, eq=False)
class Tenure:
    """One partition in this process: the window of its current incarnation, and older claims."""

    tp: TopicPartition
    window: Window
    older: list[Claim] = field(default_factory=list)
    """Claims on earlier incarnations of the topic: only what they owe is still sent."""
    expected: tuple[int, bytes] | None = None
    """(offset, fingerprint) of the record below the watermark, to be compared when it is read."""
    read_from: int = 0
    halted: str | None = None
    """Why this partition is not read although it is ours: an operator has to decide."""

    @property
    def claims(self) -> list[Claim]:
        return [*self.older, self.window.claim]


class Ownership:
    """Claims what Kafka assigns, keeps what comes back in time, drops what Postgres gave away."""

    def __init__(
        self,
        database: Database,
        consumer: Consumer,
        buffer: Buffer,
        config: KafkaConfig,
        incarnation: int,
        metrics: Metrics,
    ) -> None:
        self._database = database
        self._consumer = consumer
        self._buffer = buffer
        self._config = config
        self._incarnation = incarnation
        self._metrics = metrics
        self.tenures: dict[TopicPartition, Tenure] = {}
        """Active and suspended ones."""
        self.reading: dict[TopicPartition, Tenure] = {}
        """Those of which records may be taken in now."""
        self.adopted: dict[TopicPartition, Tenure] = {}
        """Those that nobody subscribes to any more: what they owe is sent, nothing is read."""
        self.joined = False
        """The group has given an assignment (also an empty one) and it has been claimed."""
        self.on_begun: Callable[[list[Tenure]], None] = lambda tenures: None
        self.on_suspended: Callable[[list[Tenure]], None] = lambda tenures: None
        self.on_dropped: Callable[[Tenure], None] = lambda tenure: None
        self._round = 0
        self._assigned: set[TopicPartition] = set()
        self._wake = asyncio.Event()
        consumer.on_assigned = self._heard_assigned
        consumer.on_revoked = self._heard_revoked

    # --- what the rebalance callback says: noted, not acted upon ----------------------------

    def _heard_revoked(self, tps: set[TopicPartition]) -> None:
        self._round += 1
        self._assigned = set()
        suspended = []
        for tenure in self.reading.values():
            for claim in tenure.claims:
                claim.hold = Hold.SUSPENDED
            suspended.append(tenure)
        self.reading.clear()
        if suspended:
            self.on_suspended(suspended)
            logger.info("partitions_revoked", partitions=len(suspended))

    def _heard_assigned(self, tps: set[TopicPartition]) -> None:
        self._round += 1
        self._assigned = tps
        self._wake.set()

    # --- claiming --------------------------------------------------------------------------

    async def run(self) -> None:
        """Claim whatever is assigned and not being read; for ever."""
        failures = 0
        while True:
            await self._wake.wait()
            self._wake.clear()
            missing = self._missing()
            if not missing:
                self.joined = True
                continue
            try:
                await self._claim_all(missing)
                failures = 0
                self.joined = True
            except (StoreUnavailable, LogUnavailable, MembershipLost) as error:
                failures += 1
                self._metrics.claim_failures += 1
                log_line = logger.warning if failures in (1, 10, 100) else logger.debug
                log_line("claim_failed", partitions=len(missing), error=describe(error))
                # Backs off: a member that is not current must not fence the one that is, again
                # and again; the next assignment wakes this loop at once.
                pause = min(5.0, 0.2 * 2 ** min(failures, 5)) * (0.5 + random.random())
                await set_within(self._wake, pause)
                self._wake.set()

    def working(self) -> list[Tenure]:
        """The partitions whose deliveries may be sent now."""
        return [*self.reading.values(), *self.adopted.values()]

    async def adopt(self) -> int:
        """Take over what an operator put up for adoption and nobody works on; how many partitions.
        Raises StoreUnavailable."""
        found = await claims.adopt(self._database, self._incarnation)
        for claim, watermark in found:
            tp = TopicPartition(claim.topic, claim.partition)
            tenure = self.adopted.get(tp)
            if tenure is None:
                tenure = Tenure(
                    tp, Window(claim, watermark), halted="adopted: its topic is not read"
                )
                self.adopted[tp] = self.tenures[tp] = tenure
                self._buffer.windows[claim] = tenure.window
            else:
                tenure.older.append(claim)
            logger.warning("partition_adopted", topic=tp.topic, partition=tp.partition)
        return len(found)

    def _missing(self) -> list[TopicPartition]:
        return sorted(self._assigned - self.reading.keys())

    async def _claim_all(self, tps: list[TopicPartition]) -> None:
        round_ = self._round
        for tp in self.adopted.keys() & set(tps):
            self._drop(self.adopted[tp])  # subscribed to again: claimed in full
        kept = await self._kept([tp for tp in tps if tp in self.tenures])
        fresh = []
        for tp in tps:
            if tp not in kept:
                fresh.append(await self._claim(tp))
                self._check_round(round_)
        tenures = [*kept.values(), *fresh]
        self._hold_until_begun(fresh)
        await self._prove(tenures, round_)
        self._check_round(round_)
        # A flush may have found one of them fenced meanwhile: it was dropped, and is missing still.
        begun = [tenure for tenure in tenures if self.tenures.get(tenure.tp) is tenure]
        for tenure in begun:
            self._begin(tenure)
        claimed = sum(tenure in fresh for tenure in begun)
        self._metrics.claims += claimed
        self._metrics.claims_kept += len(begun) - claimed
        self.on_begun(begun)
        logger.info("partitions_claimed", claimed=claimed, kept=len(begun) - claimed)

    def _check_round(self, round_: int) -> None:
        if round_ != self._round:
            raise MembershipLost("the assignment changed while it was being claimed")

    async def _kept(self, tps: list[TopicPartition]) -> dict[TopicPartition, Tenure]:
        """Of suspended tenures, those that nobody claimed meanwhile; the others are dropped."""
        await self.verify(tps)
        return {tp: self.tenures[tp] for tp in tps if tp in self.tenures}

    async def _claim(self, tp: TopicPartition) -> Tenure:
        config = self._config
        count = max(self._consumer.partition_count(tp.topic), tp.partition + 1)
        found = await claims.claim(self._database, tp.topic, tp.partition, count, self._incarnation)
        first, end = (await self._consumer.bounds([tp], config.request_timeout_seconds))[tp]
        current = found[-1]
        if current.watermark is not None and end < current.watermark:
            return await self._recreated(tp, found, first, end)
        halted = None
        if current.watermark is None:
            start = end if config.start == "latest" and not current.added_later else first
            await self._store_start(current, start)
        elif first > current.watermark:
            halted = await self._out_of_range(tp, current, first, end)
        assert current.watermark is not None
        window = Window(current.claim, current.watermark, current.settled, current.partial)
        tenure = Tenure(tp, window, [c.claim for c in found[:-1]], halted=halted)
        tenure.read_from = current.watermark
        mark = current.fingerprint_offset
        if mark is not None and current.fingerprint and first <= mark < current.watermark:
            tenure.expected = (mark, current.fingerprint)
            tenure.read_from = mark
        return tenure

    async def _store_start(self, current: claims.Claimed, start: int) -> None:
        if not await claims.store_start(self._database, current.claim, start):
            raise MembershipLost("the partition was claimed by another while it was being claimed")
        current.watermark = start

    async def _out_of_range(
        self, tp: TopicPartition, current: claims.Claimed, first: int, end: int
    ) -> str | None:
        """Retention ran over what was not settled: loud, and by the configured policy."""
        policy = self._config.on_out_of_range
        assert current.watermark is not None
        logger.error(
            "offset_out_of_range",
            topic=tp.topic,
            partition=tp.partition,
            watermark=current.watermark,
            first_offset=first,
            lost_at_most=first - current.watermark,
            policy=policy,
        )
        self._metrics.out_of_range += 1
        if policy == "stop":
            return (
                f"offsets {current.watermark} to {first - 1} are gone from Kafka; set "
                "kafka.on_out_of_range to earliest or latest to go on without them"
            )
        await self._store_start(current, first if policy == "earliest" else end)
        return None

    async def _recreated(
        self, tp: TopicPartition, found: list[claims.Claimed], first: int, end: int
    ) -> Tenure:
        """The log ends below what was settled: another topic of the same name."""
        current = found[-1]
        assert current.watermark is not None
        if await self._begin_incarnation(tp, current.claim, current.watermark, end):
            return await self._claim(tp)
        halted = (
            f"topic {tp.topic} was created again (it ends at {end}, settled up to "
            f"{current.watermark}); set kafka.on_topic_recreated to continue to read it as new"
        )
        window = Window(current.claim, current.watermark, current.settled, current.partial)
        return Tenure(tp, window, [c.claim for c in found[:-1]], halted=halted)

    async def recreated(self, tenure: Tenure) -> None:
        """The record below the watermark is another one than was settled: the topic was created
        again, and has grown past the watermark meanwhile. Raises StoreUnavailable."""
        tp, window = tenure.tp, tenure.window
        if self.reading.get(tp) is not tenure:
            return
        if await self._begin_incarnation(tp, window.claim, window.durable_watermark, None):
            self.reclaim(tenure)
            return
        self.halt(
            tenure,
            f"topic {tp.topic} was created again (the record below offset {window.position} is not "
            "the one that was settled); set kafka.on_topic_recreated to continue to read it as new",
        )

    async def _begin_incarnation(
        self, tp: TopicPartition, claim: Claim, watermark: int, end: int | None
    ) -> bool:
        policy = self._config.on_topic_recreated
        self._metrics.topics_recreated += 1
        logger.error(
            "topic_recreated",
            topic=tp.topic,
            partition=tp.partition,
            watermark=watermark,
            end_offset=end,
            policy=policy,
        )
        if policy != "continue":
            return False
        count = max(self._consumer.partition_count(tp.topic), tp.partition + 1)
        await claims.begin_incarnation(self._database, claim.topic_id, count)
        return True

    def _hold_until_begun(self, tenures: Iterable[Tenure]) -> None:
        for tenure in tenures:
            for claim in tenure.claims:
                claim.hold = Hold.SUSPENDED
            self.tenures[tenure.tp] = tenure
            self._buffer.windows[tenure.window.claim] = tenure.window

    async def _prove(self, tenures: list[Tenure], round_: int) -> None:
        """Kafka accepts the watermarks only from a current member of the current generation."""
        offsets = {t.tp: t.window.durable_watermark for t in tenures if t.halted is None}
        self._check_round(round_)
        await self._consumer.commit(offsets, self._config.request_timeout_seconds)
        for tenure in tenures:
            tenure.window.committed_watermark = tenure.window.durable_watermark

    def halt(self, tenure: Tenure, reason: str) -> None:
        """Read no more of a partition until an operator has decided; what it owes is still sent."""
        tenure.halted = reason
        self._consumer.hold([tenure.tp])
        logger.error(
            "partition_halted",
            topic=tenure.tp.topic,
            partition=tenure.tp.partition,
            reason=reason,
        )

    def _begin(self, tenure: Tenure) -> None:
        for claim in tenure.claims:
            claim.hold = Hold.ACTIVE
        self.reading[tenure.tp] = tenure
        if tenure.halted is not None:
            self.halt(tenure, tenure.halted)
            return
        window = tenure.window
        fresh = tenure.expected is not None and window.position == window.durable_watermark
        self._consumer.begin(tenure.tp, tenure.read_from if fresh else window.position)

    # --- losing ----------------------------------------------------------------------------

    def lost(self, fenced: set[Claim]) -> None:
        """Postgres says that these claims are somebody else's: drop their memory, then claim anew
        whatever Kafka still assigns to us."""
        for tenure in [t for t in self.tenures.values() if fenced.intersection(t.claims)]:
            self._drop(tenure)
            logger.warning(
                "partition_fenced",
                topic=tenure.tp.topic,
                partition=tenure.tp.partition,
                epoch=tenure.window.claim.epoch,
                still_assigned=tenure.tp in self._assigned,
            )
            if tenure.tp in self._assigned:
                self._consumer.hold([tenure.tp])
                asyncio.get_running_loop().call_later(0.5 + random.random(), self._wake.set)

    def _drop(self, tenure: Tenure) -> None:
        for claim in tenure.claims:
            claim.hold = Hold.FENCED
            self._buffer.forget(claim)
        self.tenures.pop(tenure.tp, None)
        self.reading.pop(tenure.tp, None)
        self.adopted.pop(tenure.tp, None)
        self._metrics.fenced += 1
        self.on_dropped(tenure)

    def reclaim(self, tenure: Tenure) -> None:
        """Give the memory of a partition up and claim it anew (its log is not what we thought)."""
        self._drop(tenure)
        if tenure.tp in self._assigned:
            self._consumer.hold([tenure.tp])
        self._wake.set()

    async def verify(self, tps: Iterable[TopicPartition] | None = None) -> None:
        """Ask Postgres whose the epochs are; drop what is not ours. Raises StoreUnavailable."""
        tenures = [self.tenures[tp] for tp in (self.tenures if tps is None else tps)]
        mine = [claim for tenure in tenures for claim in tenure.claims]
        gone = set(mine) - await claims.still_ours(self._database, mine)
        if gone:
            self.lost(gone)

    def suspended(self) -> list[Tenure]:
        """Tenures kept in memory for a partition that Kafka has not given back (yet)."""
        return [t for tp, t in self.tenures.items() if tp not in self.reading]
