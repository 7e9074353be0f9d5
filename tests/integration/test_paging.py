"""What is owed is paged in while flushes are under way: nothing waits for the other, nothing comes
twice.

The sender is played: it delivers whatever a lane holds, at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Literal, cast

import pytest
from aiokafka import TopicPartition

from dispatcherd.caps import OwedCaps
from dispatcherd.claim import Ownership, Tenure
from dispatcherd.config.model import Config, EndpointConfig
from dispatcherd.delivery import Key, Reason
from dispatcherd.endpoints import Endpoints
from dispatcherd.exchange import Target
from dispatcherd.lane import Lane
from dispatcherd.metrics import Metrics
from dispatcherd.quota import Quota
from dispatcherd.record import owed
from dispatcherd.record.registry import Registration
from dispatcherd.retry import Retries
from dispatcherd.timers import Timers, set_within
from tests.rig.recording import Recording, becomes, recording
from tests.rig.store import Store


class Ours:
    """All partitions there are, for good."""

    def __init__(self, tenure: Tenure) -> None:
        self._tenure = tenure

    def working(self) -> list[Tenure]:
        return [self._tenure]


class Paging:
    """Retries that run, and a sender that delivers at once."""

    def __init__(self, one: Recording, store: Store, config: Config) -> None:
        self._one = one
        self.handed: Counter[Key] = Counter()
        """How often each came to the sender."""
        claim = one.window.claim
        tenure = Tenure(TopicPartition(claim.topic, claim.partition), one.window)
        self.ours = cast(Ownership, Ours(tenure))
        self.endpoints = Endpoints(config, lambda url, headers, tls: Target(url, headers, [], tls))
        registrations = [
            Registration(n, EndpointConfig(id=f"e{n}", url=f"https://e{n}.test/"), held=False)
            for n in range(1, 3)
        ]
        self.endpoints.apply(registrations, (), {}, {})
        self.timers = Timers(Metrics())
        self.retries = Retries(
            store.database, self.endpoints, self.ours, one.recorder, self.timers, config.limits,
            self._poke, 60.0,
        )  # fmt: skip
        one.recorder.on_committed = self.retries.committed

    def _poke(self, lane: Lane) -> None:
        while batch := lane.take(self.timers.now()):
            for delivery in batch:
                self.handed[delivery.key] += 1
                assert self._one.attempt(delivery)


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Until the end of the block, and not for less."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        failed = task.done()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert not failed


@asynccontextmanager
async def paging(
    store: Store,
    rows: int,
    endpoints: int = 1,
    lane_deliveries: int = 200,
    at_owed_cap: Literal["stop_intake", "dead_letter_oldest"] = "stop_intake",
) -> AsyncIterator[tuple[Recording, Paging, Config]]:
    """So many rows are owed, in turn to each endpoint, all due; nothing of them is in memory."""
    config = Config.model_validate(
        {"limits": {"lane_deliveries": lane_deliveries, "at_owed_cap": at_owed_cap}}
    )
    # Seldom enough that a page finds a flush's worth of deletes that are not durable yet.
    async with recording(store, flush_interval_seconds=0.3) as one:
        for offset in range(rows):
            [delivery] = one.take_in(offset, 1 + offset % endpoints)
            assert one.buffer.try_reserve(1, delivery.event.size)
            one.buffer.park(delivery, 0.0, Reason.LANE_FULL)
        assert await one.recorder.drained(30)
        pager = Paging(one, store, config)
        async with running(pager.retries.run()):
            yield one, pager, config


def arrive_late(monkeypatch: pytest.MonkeyPatch, one: Recording) -> None:
    """From here on each page has been read when a flush begins, and arrives when it is durable."""
    page = owed.page

    async def late(*arguments: Any) -> list[owed.PagedRow]:
        rows = await page(*arguments)
        assert await one.recorder.drained(30)
        return rows

    monkeypatch.setattr(owed, "page", late)


async def test_what_is_paged_in_beside_flushes_comes_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with paging(store, 1_000) as (one, pager, _):
        arrive_late(monkeypatch, one)
        await becomes(lambda: len(pager.handed) == 1_000)
        assert await one.recorder.drained(30)
        assert await store.value("SELECT count(*) FROM deliveries") == 0
        flushes = len(one.flushed)
    assert set(pager.handed.values()) == {1}
    assert await store.value("SELECT count(*) FROM attempts") == 1_000
    assert flushes < 1_000


async def test_a_page_does_not_wait_for_a_flush(store: Store) -> None:
    async with store.connection() as other, paging(store, 400, 2, 40) as (one, pager, _):
        async with other.transaction():
            await other.execute("SELECT FROM progress FOR UPDATE")
            await becomes(lambda: one.buffer.under_way)
            number, handed = one.buffer.number, len(pager.handed)
            await becomes(lambda: len(pager.handed) > handed)
            assert (one.buffer.number, one.buffer.under_way) == (number, True)
        await becomes(lambda: len(pager.handed) == 400)
    assert set(pager.handed.values()) == {1}


async def test_nothing_is_buried_that_a_page_is_bringing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, buried = asyncio.Event(), asyncio.Event()
    counts: list[int] = []
    page, bury = owed.page, owed.bury_oldest

    async def late(*arguments: Any) -> list[owed.PagedRow]:
        rows = await page(*arguments)
        read.set()
        await set_within(buried, 0.5)  # as long as it takes, were it not for the page
        return rows

    async def bury_oldest(*arguments: Any) -> int:
        counts.append(await bury(*arguments))
        buried.set()
        return counts[-1]

    async with paging(store, 100, at_owed_cap="dead_letter_oldest") as (one, pager, config):
        monkeypatch.setattr(owed, "page", late)
        monkeypatch.setattr(owed, "bury_oldest", bury_oldest)
        trimmer = OwedCaps(
            store.database, pager.endpoints, pager.ours, one.recorder, Quota(1, 1_000_000),
            config.limits, 60.0,
        )  # fmt: skip
        await read.wait()
        async with running(trimmer.run()):
            await becomes(lambda: buried.is_set() and len(pager.handed) == 100)
    assert set(pager.handed.values()) == {1}
    assert not any(counts)  # all are in memory, and stay
