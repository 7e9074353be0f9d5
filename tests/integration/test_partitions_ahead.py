"""The day partitions of `attempts`: made ahead, by the server's clock, and never in the way."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import pytest

from dispatcherd.record import flush, migrate
from dispatcherd.record.connection import Database
from tests.rig.store import Store, attempt_row, gathering

PARTITIONS = (
    "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
    "WHERE i.inhparent = 'attempts'::regclass ORDER BY 1"
)
LIES_IN = "SELECT tableoid::regclass::text FROM attempts"


async def make(database: Database, days_ahead: int) -> int:
    async with database.session() as connection:
        return await migrate.make_day_partitions(connection, days_ahead)


async def write(store: Store, number: int) -> None:
    claim = await store.claim()
    ids = store.catalogue.ids
    async with store.connection() as connection:
        contents = gathering(number, [attempt_row(store, claim, number)])
        await flush.write(connection, store.incarnation, contents, time.monotonic(), ids)


async def test_today_and_the_days_ahead_get_a_partition_each_once(store: Store) -> None:
    assert await make(store.database, 3) == 4
    assert await make(store.database, 3) == 0
    assert await make(store.database, 5) == 2
    expected = await store.fetch(
        "SELECT 'attempts_' || to_char(current_date + n, 'YYYYMMDD') FROM generate_series(0, 5) n"
    )
    assert await store.fetch(PARTITIONS) == [*expected, ("attempts_default",)]


async def test_a_row_lies_in_the_partition_of_the_servers_day(store: Store) -> None:
    await make(store.database, 1)
    await write(store, 1)
    today = await store.value("SELECT 'attempts_' || to_char(current_date, 'YYYYMMDD')")
    assert await store.fetch(LIES_IN) == [(today,)]


async def test_without_a_partition_a_row_lies_in_the_default_one_and_stays_there(
    store: Store,
) -> None:
    await write(store, 1)
    assert await store.fetch(LIES_IN) == [("attempts_default",)]
    assert await make(store.database, 2) == 2  # all but today's
    await write(store, 2)
    assert await store.fetch(LIES_IN) == [("attempts_default",)] * 2


async def test_processes_that_make_them_at_once_do_not_get_in_each_others_way(
    store: Store,
) -> None:
    made = await asyncio.gather(*(make(store.database, 6) for _ in range(4)))
    assert sum(made) == 7


async def test_a_row_that_comes_while_a_partition_is_made_does_not_stop_the_daemon(
    store: Store,
) -> None:
    """Between the look at the default partition and the new one: Postgres refuses that one."""
    async with store.connection() as writer:
        transaction = writer.transaction()
        await transaction.start()
        await writer.execute(
            'INSERT INTO attempts (exchange_id, "offset", at, topic_id, partition, endpoint_id, '
            "type_id, duration_us, number, status, kind, reason, sent, webhook_id) "
            "VALUES (1, 1, now(), 1, 1, 1, 1, 1, 1, 200, 1, 1, true, 'x')"
        )
        making = asyncio.create_task(make(store.database, 2))
        await asyncio.wait({making}, timeout=1)
        await transaction.commit()
        made = await making
    assert made == 2
    assert await store.fetch(LIES_IN) == [("attempts_default",)]
    names = [name for (name,) in await store.fetch(PARTITIONS)]
    assert len(names) == 3


async def test_flushes_go_on_while_partitions_are_made(store: Store) -> None:
    """A new partition locks the table for a moment: a flush under way is waited for, and none is
    lost."""
    claim = await store.claim()
    stop = asyncio.Event()

    async def flush_on() -> int:
        number = 0
        ids = store.catalogue.ids
        async with store.connection() as connection:
            while not stop.is_set():
                number += 1
                rows = [attempt_row(store, claim, number * 100 + n) for n in range(100)]
                contents = gathering(number, rows)
                await flush.write(connection, store.incarnation, contents, time.monotonic(), ids)
        return number

    flushing = asyncio.create_task(flush_on())
    await make(store.database, 0)
    for days in range(1, 20):
        await make(store.database, days)
    stop.set()
    flushed = await flushing
    assert await store.value("SELECT count(*) FROM attempts") == 100 * flushed


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago"])
async def test_the_day_is_utcs_whatever_the_servers_zone(store: Store, dsn: str, zone: str) -> None:
    name = dsn.rsplit("/", 1)[1]
    plain = await asyncpg.connect(dsn)
    try:
        await plain.execute(f"ALTER DATABASE {name} SET timezone = '{zone}'")
    finally:
        await plain.close()
    await make(store.database, 0)
    await write(store, 1)
    [(where,)] = await store.fetch(LIES_IN)
    assert where == "attempts_" + time.strftime("%Y%m%d", time.gmtime())
