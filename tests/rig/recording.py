"""A recorder that runs on a real database, and what hands outcomes in."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from dispatcherd.config.model import LimitsConfig, PostgresConfig
from dispatcherd.delivery import (
    Claim,
    Delivery,
    Outcome,
    OutcomeKind,
    Reason,
)
from dispatcherd.metrics import Metrics
from dispatcherd.offsets import Window
from dispatcherd.record.buffer import Buffer
from dispatcherd.record.connection import Database
from dispatcherd.record.gathering import Gathering
from dispatcherd.record.recorder import Recorder
from tests.rig.proxy import Proxy
from tests.rig.store import Store, event

STATEMENT_SECONDS = 3.0
DELIVERED = Outcome(OutcomeKind.DELIVERED, Reason.OK)
RETRY = Outcome(OutcomeKind.RETRY, Reason.UNAVAILABLE, 60.0)


class Recording:
    """A recorder that runs, with one claim and its window."""

    def __init__(self, recorder: Recorder, window: Window, metrics: Metrics) -> None:
        self.recorder = recorder
        self.window = window
        self.metrics = metrics
        self.flushed: list[Gathering] = []
        self.buffer = recorder.buffer
        self.buffer.windows[window.claim] = window
        recorder.on_committed = self.flushed.append

    def take_in(self, offset: int, *endpoints: int) -> list[Delivery]:
        """A record with its deliveries enters the window."""
        made = event(self.window.claim, offset)
        deliveries = {n: Delivery(made, n, 0.0) for n in endpoints or (1,)}
        self.window.add(offset, dict(deliveries), 0.0, made.size)
        return list(deliveries.values())

    def attempt(self, delivery: Delivery, outcome: Outcome = DELIVERED) -> bool:
        """As the sender does: a place first, then the outcome and what follows from it."""
        if not self.buffer.try_reserve(1, delivery.event.size):
            return False
        delivery.attempts += 1
        status = 200 if outcome is DELIVERED else 503
        number = delivery.event.offset * 1_000 + delivery.attempts
        self.buffer.attempt(delivery, number, 1.7e9, 0.01, status, outcome, True)
        if outcome is DELIVERED:
            self.buffer.delivered(delivery)
        else:
            self.buffer.owe(delivery, 1e9, outcome.reason, status)
        return True


@asynccontextmanager
async def recording(
    store: Store,
    database: Database | None = None,
    claim: Claim | None = None,
    flush_interval_seconds: float = 0.01,
    **limits: int,
) -> AsyncIterator[Recording]:
    """Runs until the end of the block; a fault of the recorder fails the test."""
    claim = claim or await store.claim()
    metrics = Metrics()
    config = PostgresConfig(
        flush_interval_seconds=flush_interval_seconds,
        statement_timeout_seconds=STATEMENT_SECONDS,
    )
    recorder = Recorder(
        Buffer(store.catalogue, LimitsConfig(**limits), config.flush_max_rows),
        database or store.database,
        store.catalogue,
        store.incarnation,
        config,
        metrics,
    )
    running = asyncio.create_task(recorder.run())
    try:
        yield Recording(recorder, Window(claim, 0), metrics)
    finally:
        failed = running.done()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await recorder.close()
        assert not failed


@asynccontextmanager
async def through(proxy: Proxy, dsn: str) -> AsyncIterator[Database]:
    """A database behind the proxy."""
    before = dsn.rsplit("/", 1)[1]
    database = Database(
        PostgresConfig(
            dsn=f"postgresql://postgres@127.0.0.1:{proxy.port}/{before}",
            connect_timeout_seconds=2.0,
            statement_timeout_seconds=STATEMENT_SECONDS,
        )
    )
    try:
        yield database
    finally:
        await database.close()


async def becomes(condition: Callable[[], bool]) -> None:
    """Until it is true."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 (it has no event)
            await asyncio.sleep(0.01)
