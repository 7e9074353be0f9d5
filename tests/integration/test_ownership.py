"""Which partitions are ours, on the real Postgres, while the assignment and the epochs move.

Kafka's client is stood in for by its few calls: what is claimed here is what becomes of a partition
that Postgres gives to somebody else just then. Kafka itself has tests/acceptance/test_members.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import cast

from aiokafka import TopicPartition

from dispatcherd.claim import Ownership
from dispatcherd.config.model import KafkaConfig
from dispatcherd.consume import Consumer
from tests.rig.recording import Recording, becomes, recording
from tests.rig.store import Store
from tests.rig.store import store as store_on

ORDERS = TopicPartition("orders", 0)


class Assigned:
    """A member to which the test assigns; the broker accepts every commit, after `meanwhile`."""

    def __init__(self) -> None:
        self.on_assigned: Callable[[set[TopicPartition]], None]
        self.on_revoked: Callable[[set[TopicPartition]], None]
        self.meanwhile: Callable[[], Awaitable[None]] | None = None

    def partition_count(self, _topic: str) -> int:
        return 1

    async def bounds(
        self, tps: Iterable[TopicPartition], _timeout_seconds: float
    ) -> dict[TopicPartition, tuple[int, int]]:
        return dict.fromkeys(tps, (0, 100))

    async def commit(self, _offsets: object, _timeout_seconds: float) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()

    def hold(self, tps: object) -> None:
        pass

    def begin(self, tp: TopicPartition, offset: int) -> None:
        pass


async def test_a_partition_fenced_while_it_is_taken_back_is_claimed_anew(
    store: Store, dsn: str
) -> None:
    """The commit that proves membership takes a while; a flush finds the epoch gone meanwhile."""
    member = Assigned()
    async with recording(store) as first, store_on(dsn) as other:
        recorder = first.recorder
        ownership = Ownership(
            store.database,
            cast(Consumer, member),
            recorder.buffer,
            KafkaConfig(),
            store.incarnation,
            first.metrics,
        )
        claiming = asyncio.create_task(ownership.run())
        member.on_assigned({ORDERS})
        await becomes(lambda: ORDERS in ownership.reading)
        before = ownership.reading[ORDERS]
        held = Recording(recorder, before.window, first.metrics)
        recorder.on_committed = lambda contents: ownership.lost(contents.fenced)

        async def another_claims_and_a_flush_finds_out() -> None:
            await other.claim()
            assert held.attempt(held.take_in(0)[0])
            assert await recorder.drained(10)

        member.meanwhile = another_claims_and_a_flush_finds_out
        member.on_revoked({ORDERS})
        member.on_assigned({ORDERS})
        await becomes(lambda: ownership.reading.get(ORDERS) not in (None, before))
        now = ownership.reading[ORDERS]
        assert ownership.tenures == {ORDERS: now}
        assert now.window.claim.epoch > before.window.claim.epoch + 1
        assert recorder.buffer.windows[now.window.claim] is now.window
        claiming.cancel()
