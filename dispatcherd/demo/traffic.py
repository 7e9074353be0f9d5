"""The demo's traffic: publishing at a steady pace, and watching until everything is settled.

Invariant: only so many deliveries are under way at once, whatever the machine can do. Leaves out:
what is published (samples), the final account (ledger, tally).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

from dispatcherd.demo.kafka import EmbeddedKafka
from dispatcherd.demo.ledger import Ledger
from dispatcherd.demo.samples import Sample, Shop
from dispatcherd.demo.scenario import ROLES, End
from dispatcherd.demo.stand import Metrics, Stand
from dispatcherd.demo.view import Counts, Snapshot

_EVENTS_PER_SECOND = 600
_MOST_PUBLISHING_SECONDS = 15.0
_LEAD = 2_000
"""Deliveries that may be under way: a pace that this machine keeps shows what an endpoint costs,
not how long a queue is; and the embedded Kafka forgets the oldest of more than it holds."""
_AT_ONCE = 500
_PAUSE_SECONDS = 0.02
_LOOK_EVERY_SECONDS = 0.2
_SETTLING_SECONDS = 45.0
_EVENTS_PER_SETTLING_SECOND = 500


class Traffic:
    """One run of events through a stand."""

    def __init__(self, stand: Stand, kafka: EmbeddedKafka, ledger: Ledger, events: int) -> None:
        self._stand = stand
        self._kafka = kafka
        self._ledger = ledger
        self._events = events
        self.patience_seconds = _SETTLING_SECONDS + events / _EVENTS_PER_SETTLING_SECOND
        self._ended = 0
        """Deliveries that are over, but for those to whoever never answers."""
        self._published_events = 0
        self._routed = dict.fromkeys((role.name for role in ROLES), 0)
        self.samples: list[Sample] = []
        """What has been published."""
        self.in_time = False
        """Everything was settled before the patience ran out."""

    async def run(self, show: Callable[[Snapshot, bool], None]) -> None:
        """Publish and watch; returns when all is settled, or when that took too long.

        `show` is called a few times a second, the last time with True. Raises DemoFailed.
        """
        started = time.monotonic()
        publishing = asyncio.create_task(self._publish())
        try:
            while True:
                self._stand.check()
                if publishing.done():
                    publishing.result()
                seconds = time.monotonic() - started
                # In this order: what is owed once all is settled can only become less.
                settled = publishing.done() and await self._settled()
                snapshot = await self._look(seconds)
                self.in_time = settled and not self._owes(snapshot)
                done = self.in_time or seconds > self.patience_seconds
                show(snapshot, done)
                if done:
                    return
                await asyncio.sleep(_LOOK_EVERY_SECONDS)
        finally:
            publishing.cancel()

    async def _publish(self) -> None:
        rate = max(_EVENTS_PER_SECOND, self._events / _MOST_PUBLISHING_SECONDS)
        records = Shop().records(self._events, lambda: datetime.now(UTC))
        started = time.monotonic()
        over = False
        while not over:
            due = int((time.monotonic() - started) * rate) - self._published_events
            if self._under_way() > _LEAD:
                due = 0
            for _ in range(min(due, _AT_ONCE)):
                sample = next(records, None)
                if sample is None:
                    over = True
                    break
                self._hand_over(sample)
            self._kafka.poll()
            await asyncio.sleep(0 if due > _AT_ONCE else _PAUSE_SECONDS)
        await self._kafka.flush(30)

    def _under_way(self) -> int:
        return sum(self._routed[r.name] for r in ROLES if r.end is not End.OWED) - self._ended

    def _hand_over(self, sample: Sample) -> None:
        self._kafka.publish(sample.topic, sample.value, sample.key, sample.headers)
        self.samples.append(sample)
        self._published_events += sample.type is not None
        for role in ROLES:
            self._routed[role.name] += role.wants(sample)

    async def _look(self, seconds: float) -> Snapshot:
        metrics = await self._stand.metrics()
        kept = await self._ledger.kept()
        endpoints = {}
        for role in ROLES:
            delivered = metrics.get(("dispatcherd_deliveries_total", role.name, "delivered"), 0)
            owed, dead = kept.get(role.name, (0, 0))
            endpoints[role.name] = Counts(self._routed[role.name], int(delivered), owed, dead)
        answering = [endpoints[role.name] for role in ROLES if role.end is not End.OWED]
        self._ended = sum(counts.delivered + counts.dead for counts in answering)
        quarantined = _sum(metrics, "dispatcherd_quarantined_total")
        return Snapshot(seconds, self._published_events, self._events, quarantined, endpoints)

    async def _settled(self) -> bool:
        return await self._ledger.watermarks() == self._kafka.ends

    def _owes(self, snapshot: Snapshot) -> bool:
        """Whether anything is still owed, but to whoever never answers."""
        return any(snapshot.endpoints[role.name].owed for role in ROLES if role.end is not End.OWED)


def _sum(metrics: Metrics, name: str) -> int:
    return int(sum(value for key, value in metrics.items() if key[0] == name))
