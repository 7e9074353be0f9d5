"""The recorder on the real Postgres: all that is handed in is written once, come what may."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from dispatcherd.config.model import LimitsConfig, PostgresConfig
from dispatcherd.delivery import (
    Attempt,
    Claim,
    Delivery,
    Outcome,
    OutcomeKind,
    Reason,
    Refused,
    Stage,
)
from dispatcherd.metrics import Metrics
from dispatcherd.offsets import Window
from dispatcherd.record.connection import Database
from dispatcherd.record.gathering import Gathering
from dispatcherd.record.recorder import Recorder
from tests.rig.postgres import PostgresServer
from tests.rig.proxy import Proxy
from tests.rig.store import Store, event, until
from tests.rig.store import store as store_on

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
        recorder.windows[window.claim] = window
        recorder.on_committed = self.flushed.append

    def take_in(self, offset: int, *endpoints: int) -> list[Delivery]:
        made = event(self.window.claim, offset)
        deliveries = {n: Delivery(made, n, 0.0) for n in endpoints or (1,)}
        self.window.add(offset, dict(deliveries), 0.0, made.size)
        return list(deliveries.values())

    def attempt(self, delivery: Delivery, outcome: Outcome = DELIVERED) -> bool:
        """As the sender does: a place first, then the outcome and what follows from it."""
        if not self.recorder.try_reserve(1, delivery.event.size):
            return False
        delivery.attempts += 1
        status = 200 if outcome is DELIVERED else 503
        number = delivery.event.offset * 1_000 + delivery.attempts
        self.recorder.attempt(
            Attempt(delivery, number, delivery.attempts, 1.7e9, 0.01, status, outcome, True)
        )
        if outcome is DELIVERED:
            self.recorder.delivered(delivery)
        else:
            self.recorder.owe(delivery, 1e9, outcome.reason, status)
        return True


@asynccontextmanager
async def recording(
    store: Store,
    database: Database | None = None,
    claim: Claim | None = None,
    **limits: int,
) -> AsyncIterator[Recording]:
    """Runs until the end of the block; a fault of the recorder fails the test."""
    claim = claim or await store.claim()
    metrics = Metrics()
    recorder = Recorder(
        database or store.database,
        store.catalogue,
        store.incarnation,
        PostgresConfig(flush_interval_seconds=0.01, statement_timeout_seconds=STATEMENT_SECONDS),
        LimitsConfig(**limits),
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


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[Proxy]:
    one = Proxy(postgres.port)
    yield one
    one.stop()


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


# --- what is handed in ---------------------------------------------------------------------


async def test_outcomes_are_durable_and_then_the_watermark_is(store: Store) -> None:
    async with recording(store) as one:
        done, failed = one.take_in(0)[0], one.take_in(1)[0]
        open_ = one.take_in(2)[0]
        assert one.attempt(done)
        assert one.attempt(failed, RETRY)
        assert one.window.durable_watermark == 0
        assert await one.recorder.drained(10)
        assert one.window.durable_watermark == one.window.watermark == 2
        assert failed.owed
        assert not open_.owed
    assert await store.value("SELECT watermark FROM progress") == 2
    assert await store.value("SELECT count(*) FROM attempts") == 2
    assert await store.fetch('SELECT "offset" FROM deliveries') == [(1,)]


async def test_a_row_that_is_owed_goes_when_it_is_delivered(store: Store) -> None:
    async with recording(store) as one:
        [delivery] = one.take_in(0)
        one.attempt(delivery, RETRY)
        assert one.recorder.pending(delivery)
        await one.recorder.drained(10)
        assert not one.recorder.pending(delivery)
        one.attempt(delivery)
        assert delivery.stage is Stage.GONE
        await one.recorder.drained(10)
    assert await store.value("SELECT count(*) FROM deliveries") == 0
    assert await store.fetch("SELECT number FROM attempts ORDER BY 1") == [(1,), (2,)]


async def test_a_half_settled_record_is_known_to_the_next_claim(store: Store) -> None:
    async with recording(store) as one:
        first, second, third = one.take_in(0, 1, 2, 3)
        one.attempt(first)
        one.attempt(second, RETRY)
        await one.recorder.drained(10)
    [partial] = await store.fetch("SELECT partial::text FROM progress")
    assert partial == ('{"0": [1, 2]}',)
    assert not third.owed


async def test_places_are_given_back_whatever_came_of_them(store: Store) -> None:
    async with recording(store) as one:
        for offset in range(0, 40, 4):
            delivered, owed, buried, parked = (one.take_in(offset + n)[0] for n in range(4))
            one.attempt(delivered)
            one.attempt(owed, RETRY)
            one.attempt(owed, RETRY)
            one.attempt(owed)
            one.attempt(buried, RETRY)
            one.recorder.bury(buried, Reason.UNAVAILABLE, 503)
            assert one.recorder.try_reserve(1, parked.event.size)
            one.recorder.park(parked, 0.0, Reason.LANE_FULL)
        for offset, value in ((100, b"x" * 500), (101, None)):
            size = min(len(value or b""), 100)
            assert one.recorder.try_reserve(1, size)
            refused = Refused(Reason.NOT_JSON, "no")
            one.recorder.quarantine(one.window, offset, refused, b"k", value, (), 100, 0.0)
        assert one.recorder.rows > 0
        assert await one.recorder.drained(10)
        assert (one.recorder.rows, one.recorder.bytes) == (0, 0)
        assert one.window.durable_watermark == 102
    kept = await store.fetch('SELECT length(value), value_bytes FROM quarantine ORDER BY "offset"')
    assert kept == [(100, 500), (None, 0)]


async def test_a_delivery_that_was_parked_in_the_air_records_its_outcome(store: Store) -> None:
    async with recording(store) as one:
        [delivery] = one.take_in(0)
        assert one.recorder.try_reserve(1, delivery.event.size)  # the attempt's
        assert one.recorder.try_reserve(1, delivery.event.size)  # the row's
        one.recorder.park(delivery, 0.0, Reason.TOO_SLOW)
        await one.recorder.drained(10)
        assert one.window.durable_watermark == 1
        outcome = Attempt(delivery, 1, 1, 1.7e9, 9.0, 200, DELIVERED, True)
        one.recorder.attempt(outcome)
        one.recorder.delivered(delivery)
        await one.recorder.drained(10)
        assert (one.recorder.rows, one.recorder.bytes) == (0, 0)
    assert await store.value("SELECT count(*) FROM deliveries") == 0
    assert await store.value("SELECT count(*) FROM bodies") == 0
    assert await store.value("SELECT count(*) FROM attempts") == 1


# --- Postgres's faults ---------------------------------------------------------------------


async def test_a_flush_whose_commit_was_answered_to_nobody_is_not_written_twice(
    store: Store, proxy: Proxy, dsn: str
) -> None:
    async with through(proxy, dsn) as database, recording(store, database) as one:
        one.attempt(one.take_in(0)[0])
        await one.recorder.drained(10)
        for offset in range(1, 6):
            proxy.cut_answer_to(b"COMMIT")
            one.attempt(one.take_in(offset)[0])
            assert await one.recorder.drained(20)
            assert one.window.durable_watermark == offset + 1
        assert proxy.cuts == 5
        assert one.metrics.flush_failures >= 5
        assert one.recorder.healthy
        assert (one.recorder.rows, one.recorder.bytes) == (0, 0)
    found = await store.fetch('SELECT "offset" FROM attempts ORDER BY 1')
    assert found == [(offset,) for offset in range(6)]


async def test_each_attempt_is_recorded_once_while_backends_are_ended_at_random(
    store: Store,
) -> None:
    draw = random.Random(4)
    rounds, count = 60, 300

    async def end_backends(seconds: float) -> None:
        await asyncio.sleep(seconds)
        await store.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE "
            "datname = current_database() AND pid <> pg_backend_pid() AND query !~ 'terminate'"
        )

    async with recording(store) as one:
        for start in range(0, rounds * count, count):
            for offset in range(start, start + count):
                [delivery] = one.take_in(offset)
                assert one.attempt(delivery, DELIVERED if offset % 10 else RETRY)
            await end_backends(draw.random() * 0.04)
            assert await one.recorder.drained(20)
        assert one.metrics.flush_failures > rounds // 10
        assert one.window.durable_watermark == rounds * count
    rows = await store.fetch('SELECT count(*), count(DISTINCT "offset") FROM attempts')
    assert rows == [(rounds * count, rounds * count)]
    assert await store.value("SELECT count(*) FROM deliveries") == rounds * count // 10
    assert await store.value("SELECT watermark FROM progress") == rounds * count


async def test_without_postgres_the_buffer_fills_to_its_cap_and_is_written_when_it_is_back(
    store: Store, proxy: Proxy, dsn: str
) -> None:
    async with (
        through(proxy, dsn) as database,
        recording(store, database, unrecorded_rows=50) as one,
    ):
        proxy.cut()
        taken = [one.take_in(offset)[0] for offset in range(80)]
        accepted = [delivery for delivery in taken if one.attempt(delivery)]
        assert len(accepted) == 50
        await becomes(lambda: not one.recorder.healthy)
        assert not one.recorder.try_reserve(1)
        assert one.window.durable_watermark == 0
        rooms: list[int] = []
        one.recorder.on_room = lambda: rooms.append(one.recorder.rows)
        proxy.heal()
        assert await one.recorder.drained(30)
        assert rooms == [0]
        assert one.recorder.healthy
        assert one.window.durable_watermark == 50
    assert await store.value("SELECT count(*) FROM attempts") == 50


async def test_the_cap_in_bytes_holds_and_one_outcome_of_any_size_is_taken(store: Store) -> None:
    async with recording(store, unrecorded_bytes=1_000) as one:
        assert one.recorder.try_reserve(1, 10_000)
        assert not one.recorder.try_reserve(1, 1)
        one.recorder.release(1, 10_000)
        assert one.recorder.try_reserve(1, 600)
        assert not one.recorder.try_reserve(1, 600)
        assert one.recorder.try_reserve(1, 400)
        one.recorder.release(2, 1_000)


async def test_a_frozen_postgres_costs_time_and_nothing_else(
    store: Store, proxy: Proxy, dsn: str
) -> None:
    """A server that answers nothing and resets nothing: only our own timeouts end the wait."""
    async with through(proxy, dsn) as database, recording(store, database) as one:
        one.attempt(one.take_in(0)[0])
        await one.recorder.drained(10)
        proxy.go_dark()
        one.attempt(one.take_in(1)[0])
        await becomes(lambda: not one.recorder.healthy)
        proxy.heal()
        assert await one.recorder.drained(30)
        assert one.window.durable_watermark == 2
    assert await store.value("SELECT count(*) FROM attempts") == 2


SLOW = """
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN IF NEW."offset" = 1 THEN PERFORM pg_sleep(2); END IF; RETURN NEW; END';
    CREATE TRIGGER slow BEFORE INSERT ON attempts FOR EACH ROW EXECUTE FUNCTION slow();
"""
SLEEPS = (
    "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query ~ '^COPY' AND "
    "wait_event = 'PgSleep' AND datname = current_database())"
)


@pytest.mark.parametrize("fault", ["ended", "frozen"])
async def test_a_copy_that_waits_for_room_in_the_socket_does_not_wait_for_ever(
    store: Store, fault: str
) -> None:
    """asyncpg waits there without a bound, and hears nothing of a connection that is lost."""
    await store.execute(SLOW)
    async with recording(store) as one:
        for offset in range(10_000):
            [delivery] = one.take_in(offset)
            delivery.event.id = f"{offset:02000d}"  # 20 MB: more than the kernel keeps
            one.attempt(delivery)
        await until(store, SLEEPS)
        backend = await store.value("SELECT pid FROM pg_stat_activity WHERE query ~ '^COPY'")
        os.kill(backend, signal.SIGSTOP if fault == "frozen" else signal.SIGTERM)
        try:
            await becomes(lambda: not one.recorder.healthy)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(backend, signal.SIGCONT)
        await until(
            store, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)", backend
        )
        await store.execute("DROP TRIGGER slow ON attempts")
        assert await one.recorder.drained(60)
        assert one.window.durable_watermark == 10_000
    rows = await store.fetch('SELECT count(*), count(DISTINCT "offset") FROM attempts')
    assert rows == [(10_000, 10_000)]


# --- fencing, and the end ------------------------------------------------------------------


async def test_a_claim_that_was_lost_is_told_and_its_watermark_stays(
    store: Store, dsn: str
) -> None:
    async with recording(store) as one, store_on(dsn) as other:
        [delivery] = one.take_in(0)
        await other.claim()
        one.attempt(delivery)
        await one.recorder.drained(10)
        assert one.flushed[-1].fenced == {one.window.claim}
        assert one.window.durable_watermark == 0
        assert (one.recorder.rows, one.recorder.bytes) == (0, 0)
        one.recorder.forget(one.window.claim)
        [late] = [Delivery(event(one.window.claim, 1), 1, 0.0)]
        one.attempt(late, RETRY)
        await one.recorder.drained(10)
    assert await store.value("SELECT watermark FROM progress") == 0
    assert await store.value("SELECT count(*) FROM deliveries") == 0
    assert await store.value("SELECT count(*) FROM attempts") == 2


async def test_a_recorder_that_is_cut_off_leaves_each_attempt_recorded_at_most_once(
    store: Store, dsn: str
) -> None:
    """A crash of the process: what was not durable is owed by the log again, and nothing is there
    twice. The next process starts from the stored watermark."""
    for generation in range(15):
        async with store_on(dsn) as process:
            claim = await process.claim()
            start = await process.value("SELECT watermark FROM progress")
            async with recording(process, claim=claim) as one:
                one.window = Window(claim, start)
                one.recorder.windows[claim] = one.window
                for offset in range(start, start + 300):
                    one.attempt(one.take_in(offset)[0])
                    if offset % 20 == 0:
                        await asyncio.sleep(0.001 * generation)
    rows = await store.fetch(
        'SELECT count(*), count(DISTINCT "offset"), max("offset") + 1 FROM attempts'
    )
    [(count, distinct, top)] = rows
    assert count == distinct == top
    assert top < 15 * 300  # some of them were cut off in the middle
    assert await store.value("SELECT watermark FROM progress") == top
