"""The schema: SQL files in order, applied once, under one advisory lock.

Invariant: safe to run twice and from several processes at once; a schema newer than the code is
refused, never touched. Leaves out: data migrations that need the daemon stopped (there are none).
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from importlib.resources import files

import asyncpg

from dispatcherd import __version__
from dispatcherd.delivery import Reason
from dispatcherd.errors import StoreError
from dispatcherd.record.connection import Connection

_LOCK = 0x64697370_61746368  # "dispatch": any constant of our own will do
_NAME = re.compile(r"^(\d{4})_([a-z0-9_]+)\.sql$")


@dataclass(frozen=True, slots=True)
class Migration:
    """One SQL file: `0001_initial.sql` is number 1."""

    number: int
    name: str
    sql: str


def known_migrations() -> list[Migration]:
    """The migrations this code brings, in order, without a gap."""
    found = []
    for entry in files("dispatcherd.record").joinpath("migrations").iterdir():
        match = _NAME.match(entry.name)
        if match:
            found.append(Migration(int(match[1]), match[2], entry.read_text("utf-8")))
    found.sort(key=lambda migration: migration.number)
    assert [m.number for m in found] == list(range(1, len(found) + 1)), found
    return found


async def schema_number(connection: Connection, schema: str) -> int:
    """The number of the last migration applied; 0 for an empty database."""
    table = f'"{schema}".schema_migrations'
    if await connection.fetchval("SELECT to_regclass($1)", table) is None:
        return 0
    return int(
        await connection.fetchval("SELECT coalesce(max(number), 0) FROM schema_migrations") or 0
    )


async def check_schema(connection: Connection, schema: str) -> None:
    """Raise StoreError with the remedy unless the schema is the one this code was written for."""
    have, want = await schema_number(connection, schema), len(known_migrations())
    if have > want:
        raise StoreError(_newer(have, want))
    if have < want:
        raise StoreError(
            f"the database schema is at version {have}, this code needs {want}. "
            "Run: dispatcherd migrate --config <your config>"
        )


def _newer(have: int, want: int) -> str:
    return (
        f"the database schema is at version {have}, newer than the {want} that dispatcherd "
        f"{__version__} knows. Install the dispatcherd that migrated it, or a later one"
    )


async def migrate(connection: Connection, schema: str) -> list[Migration]:
    """Apply what is missing; returns what was applied (nothing when another process was first)."""
    applied = []
    async with connection.transaction():
        await connection.execute("SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0")
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        await connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations (number int PRIMARY KEY, "
            "name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        have = await schema_number(connection, schema)
        migrations = known_migrations()
        if have > len(migrations):
            raise StoreError(_newer(have, len(migrations)))
        for migration in migrations[have:]:
            await connection.execute(migration.sql)
            await connection.execute(
                "INSERT INTO schema_migrations (number, name) VALUES ($1, $2)",
                migration.number,
                migration.name,
            )
            applied.append(migration)
        await connection.executemany(
            "INSERT INTO reasons (id, name) VALUES ($1, $2) "
            "ON CONFLICT (id) DO UPDATE SET name = excluded.name",
            [(reason.value, reason.word) for reason in Reason],
        )
    return applied


# Not to_regclass: it may answer from a cache that an advisory lock does not bring up to date.
_EXISTS = (
    "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE c.relname = $1 AND n.nspname = current_schema())"
)


async def make_day_partitions(connection: Connection, days_ahead: int) -> int:
    """Create the `attempts` partitions of today and the days ahead, by the server's clock.

    Returns how many were created. A day whose rows already lie in the default partition (a clock
    that jumped) stays there: Postgres refuses that partition, and nothing is lost by it.
    """
    made = 0
    days = await connection.fetch(
        "SELECT d::date AS day FROM generate_series(current_date, current_date + $1::int, "
        "interval '1 day') d WHERE to_regclass('attempts_' || to_char(d, 'YYYYMMDD')) IS NULL",
        days_ahead,
    )
    for row in days:
        name = f"attempts_{row['day']:%Y%m%d}"
        taken = await connection.fetchval(
            "SELECT EXISTS (SELECT FROM attempts_default WHERE day = $1)", row["day"]
        )
        if taken:
            continue
        # A row of that day may come between the look and the partition.
        with suppress(asyncpg.CheckViolationError):
            made += await _make_day_partition(connection, name, row["day"])
    return made


async def _make_day_partition(connection: Connection, name: str, day: date) -> bool:
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK + 1)
        if await connection.fetchval(_EXISTS, name):
            return False  # made by another process, which had the lock before us
        await connection.execute(
            f"CREATE TABLE {name} PARTITION OF attempts FOR VALUES "
            f"FROM ('{day}') TO (date '{day}' + 1)"
        )
    return True
