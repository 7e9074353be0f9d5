"""The day partitions of `attempts` are made once, however many processes make them at once."""

from __future__ import annotations

import asyncio

import asyncpg

from dispatcherd.record.migrate import _LOCK, make_day_partitions, migrate
from tests.rig.postgres import Database, PostgresServer


async def connect(database: Database) -> asyncpg.Connection:
    return await asyncpg.connect(database.dsn, server_settings={"search_path": "dispatcherd"})


async def wait_blocked(database: Database) -> None:
    """Until somebody waits for an advisory lock in this database."""
    sql = (
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    await asyncio.to_thread(database.wait_until, sql, 1)


async def test_a_day_made_by_another_process_in_the_meantime_is_left_to_it(
    postgres_server: PostgresServer,
) -> None:
    """The late one has seen that the day is missing, and waits; then it is there."""
    database = await asyncio.to_thread(postgres_server.create_database)
    early, late = await connect(database), await connect(database)
    try:
        await migrate(early, "dispatcherd")
        assert await make_day_partitions(late, 0) == 1
        await early.execute("SELECT pg_advisory_lock($1)", _LOCK + 1)
        waiting = asyncio.create_task(make_day_partitions(late, 1))
        await wait_blocked(database)
        day = await early.fetchval("SELECT current_date + 1")
        await early.execute(
            f"CREATE TABLE attempts_{day:%Y%m%d} PARTITION OF attempts FOR VALUES "
            f"FROM ('{day}') TO (date '{day}' + 1)"
        )
        await early.execute("SELECT pg_advisory_unlock($1)", _LOCK + 1)
        assert await waiting == 0
        assert await make_day_partitions(early, 3) == 2
        assert await make_day_partitions(late, 3) == 0
    finally:
        await early.close()
        await late.close()
