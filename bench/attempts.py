"""Ten million recorded attempts, made by the server itself, and an operator's questions to them.

Half of them go to endpoint 1, which never fails; the rest to 999 others, of whose attempts one in
a hundred fails; spread over ten days that end today. Invariant: the rows are what the daemon
writes, in the schema of today: a column this does not know is an error, not a NULL. Leaves out:
how many bytes a delivery takes when the daemon writes it (the scenario storage measures that too).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import asyncpg

from tests.rig.postgres import Database

DAYS = 10
_STEP = 100_000
_VALUES = {
    "exchange_id": "(7::bigint << 36) + n",
    "offset": "n / 8 + 1000000",
    "at": "at",
    "topic_id": "1",
    "partition": "n % 8",
    "endpoint_id": "e",
    "type_id": "1 + n % 20",
    "duration_us": "800 + (random() * 3000)::int",
    "day": "at::date",
    "number": "1",
    "status": "CASE WHEN bad THEN 503 ELSE 200 END",
    "kind": "CASE WHEN bad THEN 2 ELSE 1 END",
    "reason": "CASE WHEN bad THEN 5 ELSE 1 END",
    "sent": "true",
    "webhook_id": "id",
}
"""An expression for each column; cast to the column's type."""
_SOURCE = """
FROM (SELECT n, now() - interval '{days} days' + n * (interval '{days} days' / {rows}) AS at,
        CASE WHEN n % 2 = 0 THEN 1 ELSE 2 + (random() * 998)::int END AS e,
        n % 2 = 1 AND random() < 0.01 AS bad,
        'evt_' || substr(translate(encode(sha256(int8send(n)), 'base64'), '+/=', 'xyz'), 1, 26)
        AS id
      FROM generate_series({first}::bigint, {last}::bigint) n) made
"""


def make(database: Database, rows: int, tell: Callable[[str], None]) -> None:
    """Fill `attempts`; then VACUUM ANALYZE, as autovacuum does in its time."""
    asyncio.run(_make(database.dsn, rows, tell))


async def _make(dsn: str, rows: int, tell: Callable[[str], None]) -> None:
    settings = {"search_path": "dispatcherd, public", "timezone": "UTC"}
    connection = await asyncpg.connect(dsn, server_settings=settings)
    try:
        await _partitions(connection)
        columns = await connection.fetch(
            "SELECT attname AS name, format_type(atttypid, atttypmod) AS type FROM pg_attribute "
            "WHERE attrelid = 'attempts'::regclass AND attnum > 0 AND NOT attisdropped"
        )
        unknown = {c["name"] for c in columns} - _VALUES.keys()
        assert not unknown, f"attempts has columns that bench/attempts.py does not know: {unknown}"
        names = ", ".join(f'"{c["name"]}"' for c in columns)
        values = ", ".join(_cast(_VALUES[c["name"]], c["type"]) for c in columns)
        for first in range(0, rows, _STEP):
            last = min(rows, first + _STEP) - 1
            source = _SOURCE.format(days=DAYS, rows=rows, first=first, last=last)
            await connection.execute(
                f"INSERT INTO attempts ({names}) SELECT {values} {source}", timeout=600
            )
            tell(f"{last + 1:,} of {rows:,} attempts made")
        await connection.execute("VACUUM (ANALYZE) attempts", timeout=600)
    finally:
        await connection.close()


def _cast(expression: str, to: str) -> str:
    # "char" takes its number as a character's code.
    return f'chr({expression})::"char"' if to == '"char"' else f"({expression})::{to}"


async def _partitions(connection: asyncpg.Connection) -> None:
    """A partition for each day back, whichever column the table is partitioned by."""
    for back in range(DAYS + 1):
        day = await connection.fetchval("SELECT current_date - $1::int", back)
        name = f"attempts_{day:%Y%m%d}"
        if await connection.fetchval("SELECT to_regclass($1)", name) is None:
            await connection.execute(
                f"CREATE TABLE {name} PARTITION OF attempts "
                f"FOR VALUES FROM ('{day}') TO (date '{day}' + 1)"
            )


_ID = "evt_nothing_of_this_name_here00"


def questions(database: Database) -> dict[str, str]:
    """What an operator asks, as SQL."""
    failed, ok = (
        database.value("SELECT id FROM reasons WHERE name = $1", name)
        for name in ("status_server_error", "ok")
    )
    reason_is_char = database.value(
        "SELECT format_type(atttypid, atttypmod) = '\"char\"' FROM pg_attribute "
        "WHERE attrelid = 'attempts'::regclass AND attname = 'reason'"
    )
    literal = 'chr({})::"char"' if reason_is_char else "{}"
    known = database.value("SELECT webhook_id FROM attempts TABLESAMPLE SYSTEM (0.1) LIMIT 1")
    found = {
        "by webhook id": _by_id(database, known or _ID),
        "by a webhook id that is not there": _by_id(database, _ID),
    }
    states = {
        "failed": f"reason <> {literal.format(ok)}",
        "delivered": f"reason = {literal.format(ok)}",
    }
    assert failed is not None
    for who, endpoint in (("busiest endpoint", 1), ("one of 999", 500)):
        for state, condition in states.items():
            for span, interval in (("an hour", "1 hour"), ("10 days", "10 days")):
                found[f"{who}, {state}, {span}"] = (
                    f"SELECT * FROM attempts WHERE endpoint_id = {endpoint} AND {condition} "
                    f"AND at >= now() - interval '{interval}' AND at < now() "
                    "ORDER BY at DESC LIMIT 100"
                )
    return found


def _by_id(database: Database, webhook_id: str) -> str:
    hashed = database.value(
        "SELECT EXISTS (SELECT FROM pg_indexes WHERE tablename = 'attempts' "
        "AND indexdef LIKE '%hashtextextended(webhook_id%')"
    )
    condition = f"webhook_id = '{webhook_id}'"
    if hashed:
        condition += f" AND hashtextextended(webhook_id, 0) = hashtextextended('{webhook_id}', 0)"
    return f"SELECT * FROM attempts WHERE {condition}"


def timed(database: Database, sql: str, times: int = 5) -> list[float]:
    """Milliseconds of planning and execution, warm: the first is thrown away."""
    taken = []
    for _ in range(times + 1):
        plan: Any = database.value(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}")
        top = json.loads(plan)[0]
        taken.append(top["Planning Time"] + top["Execution Time"])
    return taken[1:]
