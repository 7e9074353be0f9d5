"""What the demo asks of Postgres: by plain SQL on the daemon's tables, from outside.

Invariant: reading only (the temporary table is the session's own). Leaves out: judging (tally).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg

from dispatcherd.demo.kafka import Position
from dispatcherd.demo.tally import Place, Recorded

_SCHEMA = "dispatcherd"

_BY_ENDPOINT = """
WITH tries AS (
    SELECT endpoint_id,
           count(DISTINCT (topic_id, partition, "offset")) FILTER (WHERE kind = 1) AS delivered,
           count(*) FILTER (WHERE number > 1) AS retries,
           count(*) FILTER (WHERE r.name = 'timeout') AS timeouts,
           count(DISTINCT exchange_id) FILTER (WHERE sent) AS exchanges
    FROM attempts a JOIN reasons r ON r.id = a.reason GROUP BY 1
), kept AS (
    SELECT endpoint_id, count(*) FILTER (WHERE state = 1) AS owed,
           count(*) FILTER (WHERE state = 2) AS dead,
           count(*) FILTER (WHERE (topic_id, partition, "offset", endpoint_id) IN (
               SELECT topic_id, partition, "offset", endpoint_id FROM attempts WHERE kind = 1
           )) AS overlapping
    FROM deliveries GROUP BY 1
), speed AS (
    SELECT a.endpoint_id,
           percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (
               ORDER BY extract(epoch FROM a.at) + a.duration_us / 1e6 - p.at) AS seconds
    FROM attempts a JOIN topics t ON t.id = a.topic_id
    JOIN published p ON (p.topic, p.partition, p."offset") = (t.name, a.partition, a."offset")
    WHERE a.kind = 1 GROUP BY 1
)
SELECT e.name, tries.*, kept.*, speed.seconds FROM endpoints e
LEFT JOIN tries ON tries.endpoint_id = e.id
LEFT JOIN kept ON kept.endpoint_id = e.id
LEFT JOIN speed ON speed.endpoint_id = e.id
"""


class Ledger:
    """One connection to the demo's database."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @classmethod
    async def open(cls, dsn: str) -> Ledger:
        """Connect, to the daemon's schema."""
        settings = {"search_path": _SCHEMA, "application_name": "dispatcherd demo"}
        return cls(await asyncpg.connect(dsn, timeout=10, server_settings=settings))

    async def close(self) -> None:
        """Disconnect."""
        await self._connection.close(timeout=5)

    async def kept(self) -> dict[str, tuple[int, int]]:
        """Endpoint → (owed, dead letters) now."""
        rows = await self._connection.fetch(
            "SELECT e.name, count(*) FILTER (WHERE state = 1) AS owed, "
            "count(*) FILTER (WHERE state = 2) AS dead "
            "FROM deliveries d JOIN endpoints e ON e.id = d.endpoint_id GROUP BY 1"
        )
        return {row["name"]: (row["owed"], row["dead"]) for row in rows}

    async def watermarks(self) -> dict[Place, int]:
        """Of every partition in which something is settled."""
        rows = await self._connection.fetch(
            "SELECT t.name, p.partition, p.watermark FROM progress p "
            "JOIN topics t ON t.id = p.topic_id WHERE p.watermark > 0"
        )
        return {(row["name"], row["partition"]): row["watermark"] for row in rows}

    async def quarantined(self) -> dict[str, int]:
        """Reason → records."""
        rows = await self._connection.fetch(
            "SELECT r.name, count(*) AS n FROM quarantine q "
            "JOIN reasons r ON r.id = q.reason GROUP BY 1 ORDER BY 2 DESC, 1"
        )
        return {row["name"]: row["n"] for row in rows}

    async def recorded(self, published: Sequence[Position]) -> dict[str, Recorded]:
        """What became of every delivery, by endpoint; with the times at which the records were
        published, also how long it took."""
        connection = self._connection
        await connection.execute(
            'CREATE TEMP TABLE published (topic text, partition int, "offset" bigint, '
            "at double precision)"
        )
        await connection.copy_records_to_table(
            "published", records=published, columns=["topic", "partition", "offset", "at"]
        )
        await connection.execute("ANALYZE published")
        rows = await connection.fetch(_BY_ENDPOINT)
        await connection.execute("DROP TABLE published")
        return {row["name"]: _recorded(row) for row in rows}


def _recorded(row: Any) -> Recorded:
    p50, p99 = row["seconds"] or (None, None)
    counts = {
        name: row[name] or 0
        for name in (
            "delivered",
            "owed",
            "dead",
            "overlapping",
            "retries",
            "timeouts",
            "exchanges",
        )
    }
    return Recorded(**counts, p50_seconds=p50, p99_seconds=p99)
