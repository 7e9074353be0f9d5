"""What Postgres does to the recorder: nothing is lost by it, and nothing written twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Iterator

import pytest

from tests.rig.postgres import PostgresServer
from tests.rig.proxy import Proxy
from tests.rig.recording import (
    DELIVERED,
    RETRY,
    becomes,
    recording,
    through,
)
from tests.rig.store import Store, until


@pytest.fixture
def proxy(postgres_server: PostgresServer) -> Iterator[Proxy]:
    one = Proxy(postgres_server.port)
    yield one
    one.stop()


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
        assert (one.buffer.rows, one.buffer.bytes) == (0, 0)
    found = await store.fetch('SELECT "offset" FROM attempts ORDER BY 1')
    assert found == [(offset,) for offset in range(6)]


async def test_each_attempt_is_recorded_once_while_backends_are_ended_at_random(
    store: Store,
) -> None:
    draw = random.Random(4)
    rounds, count = 60, 300

    async def end_backends(seconds: float) -> None:
        await asyncio.sleep(seconds)  # drawn: a moment that nobody chose
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
        assert not one.buffer.try_reserve(1)
        assert one.window.durable_watermark == 0
        rooms: list[int] = []
        one.recorder.on_room = lambda: rooms.append(one.buffer.rows)
        proxy.heal()
        assert await one.recorder.drained(30)
        assert rooms == [0]
        assert one.recorder.healthy
        assert one.window.durable_watermark == 50
    assert await store.value("SELECT count(*) FROM attempts") == 50


async def test_the_cap_in_bytes_holds_and_one_outcome_of_any_size_is_taken(store: Store) -> None:
    async with recording(store, unrecorded_bytes=1_000) as one:
        assert one.buffer.try_reserve(1, 10_000)
        assert not one.buffer.try_reserve(1, 1)
    async with recording(store, unrecorded_bytes=1_000) as one:
        assert one.buffer.try_reserve(1, 600)
        assert not one.buffer.try_reserve(1, 600)
        assert one.buffer.try_reserve(1, 400)


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
