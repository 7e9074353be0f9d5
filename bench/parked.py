"""Parked deliveries by the hundred thousand, laid into the tables as the daemon would have done.

Invariant: what is laid is what the daemon finds after a restart: registered endpoints, a topic
whose records all lie below the watermark, bodies, deliveries and their counts. Leaves out: who
drains them (herd, scale).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import asyncpg
from confluent_kafka import Producer

from bench.load import PARTITIONS, Plan, body, event_id
from tests.rig.postgres import Database

_OWED, _STATUS_SERVER_ERROR, _WHOLE = 1, 5, 1
_ATTEMPTS = 3


def lay(
    database: Database, bootstrap: str, topic: str, plan: Plan, numbers: range, due: datetime
) -> None:
    """Park events `numbers` of the plan, each for its endpoint, all due at one moment.

    The topic must be empty. It gets as many records as there are parked events (never read: they
    lie below the watermark), spread evenly: event i of them is record i // 8 of partition i mod 8.
    """
    assert plan.fanout == 1
    _fill(bootstrap, topic, len(numbers))
    asyncio.run(_lay(database.dsn, topic, plan, numbers, due))


def _fill(bootstrap: str, topic: str, count: int) -> None:
    producer = Producer(
        {"bootstrap.servers": bootstrap, "linger.ms": 20, "log_level": 0,
         "queue.buffering.max.messages": 1_000_000}
    )  # fmt: skip
    for number in range(count):
        while True:
            try:
                producer.produce(topic, b"{}", partition=number % PARTITIONS)
                break
            except BufferError:
                producer.poll(0.05)
        if number & 0xFFF == 0:
            producer.poll(0)
    assert producer.flush(120) == 0


async def _lay(dsn: str, topic: str, plan: Plan, numbers: range, due: datetime) -> None:
    connection = await asyncpg.connect(dsn, server_settings={"search_path": "dispatcherd, public"})
    try:
        topic_id = await connection.fetchval(
            "INSERT INTO topics (name, partitions, id_key) VALUES ($1, $2, $3) RETURNING id",
            topic, PARTITIONS, os.urandom(16),
        )  # fmt: skip
        ends = [len(range(p, len(numbers), PARTITIONS)) for p in range(PARTITIONS)]
        await connection.executemany(
            "INSERT INTO progress (topic_id, partition, watermark) VALUES ($1, $2, $3)",
            [(topic_id, partition, end) for partition, end in enumerate(ends)],
        )
        endpoints = await _numbered(
            connection, "endpoints (name, spec)", [f"e{n}" for n in range(plan.endpoints)]
        )
        types = await _numbered(
            connection, "event_types (name)", [plan.type_of(n) for n in range(plan.endpoints)]
        )
        at_ns = time.time_ns()

        def bodies() -> Iterator[tuple[object, ...]]:
            for index, n in enumerate(numbers):
                partition, offset = index % PARTITIONS, index // PARTITIONS
                yield (
                    topic_id, partition, offset, event_id(n), types[plan.type_of(n)], "1",
                    "2026-01-02T03:04:05.678Z", _WHOLE, b"[]", body(plan, n, at_ns),
                )  # fmt: skip

        def deliveries() -> Iterator[tuple[object, ...]]:
            for index, n in enumerate(numbers):
                partition, offset = index % PARTITIONS, index // PARTITIONS
                yield (
                    topic_id, partition, offset, endpoints[f"e{n % plan.endpoints}"], _OWED,
                    _STATUS_SERVER_ERROR, 503, _ATTEMPTS, due,
                )  # fmt: skip

        await connection.copy_records_to_table(
            "bodies", records=bodies(), timeout=600, columns=(
                "topic_id", "partition", "offset", "webhook_id", "type_id", "version", "timestamp",
                "shape", "headers", "body"),
        )  # fmt: skip
        await connection.copy_records_to_table(
            "deliveries", records=deliveries(), timeout=600, columns=(
                "topic_id", "partition", "offset", "endpoint_id", "state", "reason", "status",
                "attempts", "due"),
        )  # fmt: skip
        await connection.execute(
            "INSERT INTO backlog (topic_id, partition, endpoint_id, owed) "
            "SELECT topic_id, partition, endpoint_id, count(*) FROM deliveries GROUP BY 1, 2, 3"
        )
        await connection.execute("VACUUM (ANALYZE) deliveries, bodies, backlog", timeout=600)
        await connection.execute("CHECKPOINT", timeout=600)
    finally:
        await connection.close()


async def _numbered(connection: asyncpg.Connection, into: str, names: list[str]) -> dict[str, int]:
    """Insert names; name → id."""
    found = {}
    values = "($1, '{}')" if "spec" in into else "($1)"
    for name in dict.fromkeys(names):
        found[name] = await connection.fetchval(
            f"INSERT INTO {into} VALUES {values} RETURNING id", name
        )
    return found


def in_seconds(seconds: float) -> datetime:
    """A moment from now."""
    return datetime.now(UTC) + timedelta(seconds=seconds)
