"""Claiming a partition in Postgres: the epoch alone decides who may settle.

Invariant: after `claim` returns, no process with a lower epoch can change this partition's rows.
A claim proves nothing about Kafka: the caller commits the watermark there, and begins only if the
broker accepts it. Leaves out: seeking, discarding, waiting (the claim module of the package).
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import asyncpg
import orjson

from dispatcherd.delivery import Claim
from dispatcherd.record.connection import Connection, Database
from dispatcherd.record.registry import CHANNEL

_RANGE = re.compile(r"\[(-?\d+),(-?\d+)\)")


@dataclass(slots=True)
class Claimed:
    """What Postgres knows of a partition at the moment it became ours."""

    claim: Claim
    watermark: int | None
    """None: nobody ever claimed it; the start is to be resolved and stored."""
    settled: list[tuple[int, int]] = field(default_factory=list)
    partial: dict[int, set[int]] = field(default_factory=dict)
    """Half-settled records, with the endpoints that a row in `deliveries` has settled as well."""
    fingerprint: bytes | None = None
    fingerprint_offset: int | None = None
    added_later: bool = False
    """The partition did not exist yet when its topic was first seen."""


async def see_topic(connection: Connection, name: str, partitions: int) -> None:
    """Note a topic when it is first seen, with how many partitions it has then."""
    await connection.execute(
        "INSERT INTO topics (name, partitions, id_key) SELECT $1, $2, $3 "
        "WHERE NOT EXISTS (SELECT FROM topics WHERE name = $1) ON CONFLICT DO NOTHING",
        name,
        partitions,
        os.urandom(16),
    )


async def begin_incarnation(database: Database, topic_id: int, partitions: int) -> None:
    """The topic was created again: from here on its records have other ids and other keys.

    `topic_id` is the incarnation that was found stale; safe when several processes find it out.
    """
    async with database.session() as connection:
        await connection.execute(
            "INSERT INTO topics (name, incarnation, partitions, id_key) "
            "SELECT name, incarnation + 1, $2, $3 FROM topics WHERE id = $1 "
            "ON CONFLICT DO NOTHING",
            topic_id,
            partitions,
            os.urandom(16),
        )


async def claim(
    database: Database, topic: str, partition: int, partitions: int, incarnation: int
) -> list[Claimed]:
    """Raise the epoch of this partition, in every incarnation of its topic; the current one last.

    Blocked by a frozen holder's lock, it waits for lock_timeout and then ends that backend.
    Raises StoreUnavailable.
    """
    async with database.session() as connection:
        await see_topic(connection, topic, partitions)
        try:
            return await _claim(connection, topic, partition, incarnation)
        except asyncpg.LockNotAvailableError:
            await _end_holders(connection, topic, partition)
            return await _claim(connection, topic, partition, incarnation)


async def _claim(
    connection: Connection, topic: str, partition: int, incarnation: int
) -> list[Claimed]:
    claimed = []
    async with connection.transaction():
        topics = await connection.fetch(
            "SELECT id, id_key, partitions FROM topics WHERE name = $1 ORDER BY incarnation",
            topic,
        )
        for position, row in enumerate(topics):
            current = position == len(topics) - 1
            if current:
                await connection.execute(
                    "INSERT INTO progress (topic_id, partition) VALUES ($1, $2) "
                    "ON CONFLICT DO NOTHING",
                    row["id"],
                    partition,
                )
            progress = await connection.fetchrow(
                "UPDATE progress SET epoch = epoch + 1, incarnation = $3, claimed_at = now(), "
                "adopted = false "
                "WHERE topic_id = $1 AND partition = $2 "
                "RETURNING epoch, watermark, settled::text, partial::text, fingerprint, "
                "fingerprint_offset",
                row["id"],
                partition,
                incarnation,
            )
            if progress is None:
                continue
            held = Claim(topic, row["id"], partition, progress["epoch"], bytes(row["id_key"]))
            found = await _claimed(connection, held, progress)
            found.added_later = partition >= row["partitions"]
            claimed.append(found)
    return claimed


async def _claimed(connection: Connection, held: Claim, progress: asyncpg.Record) -> Claimed:
    watermark = progress["watermark"]
    partial = {int(offset): set(ids) for offset, ids in orjson.loads(progress["partial"]).items()}
    if watermark is not None:
        rows = await connection.fetch(
            'SELECT "offset", endpoint_id FROM deliveries '
            'WHERE topic_id = $1 AND partition = $2 AND "offset" >= $3',
            held.topic_id,
            held.partition,
            watermark,
        )
        for row in rows:
            partial.setdefault(row["offset"], set()).add(row["endpoint_id"])
    return Claimed(
        claim=held,
        watermark=watermark,
        settled=[(int(low), int(high)) for low, high in _RANGE.findall(progress["settled"])],
        partial=partial,
        fingerprint=progress["fingerprint"],
        fingerprint_offset=progress["fingerprint_offset"],
    )


async def _end_holders(connection: Connection, topic: str, partition: int) -> None:
    """End backends of dispatcherd that hold locks on progress and wait for a client that is silent.

    A frozen process inside a flush is the case in mind: its transaction rolls back, its flush will
    be fenced. Only sessions of the same role can be ended, which is what is wanted.
    """
    await connection.execute(
        "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a "
        "WHERE a.application_name = 'dispatcherd' AND a.datname = current_database() "
        "AND a.pid <> pg_backend_pid() AND a.wait_event = 'ClientRead' AND a.state <> 'idle' "
        "AND a.state_change < now() - interval '2 seconds' "
        "AND EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.relation = "
        "'progress'::regclass)"
    )


async def store_start(database: Database, held: Claim, watermark: int) -> bool:
    """Store a resolved start before the first record is read. False: not our epoch any more."""
    async with database.session() as connection:
        tag = await connection.execute(
            "UPDATE progress SET watermark = $4 WHERE topic_id = $1 AND partition = $2 "
            "AND epoch = $3",
            held.topic_id,
            held.partition,
            held.epoch,
            watermark,
        )
    return bool(tag == "UPDATE 1")


async def still_ours(database: Database, claims: Sequence[Claim]) -> set[Claim]:
    """Of these claims, the ones whose epoch nobody has raised."""
    if not claims:
        return set()
    async with database.session() as connection:
        rows = await connection.fetch(
            "SELECT p.topic_id, p.partition, p.epoch FROM progress p JOIN unnest($1::int[], "
            "$2::int[], $3::bigint[]) AS m (topic_id, partition, epoch) "
            "USING (topic_id, partition, epoch)",
            [c.topic_id for c in claims],
            [c.partition for c in claims],
            [c.epoch for c in claims],
        )
    found = {tuple(row) for row in rows}
    return {c for c in claims if (c.topic_id, c.partition, c.epoch) in found}


# --- partitions that nobody subscribes to any more -------------------------------------------

_NOBODYS = (
    "NOT EXISTS (SELECT FROM instances i WHERE i.incarnation = p.incarnation "
    "AND coalesce(i.stopped_at, 'infinity') > now() - interval '1 minute' "
    "AND i.heartbeat_at > now() - interval '1 minute')"
)
"""The last owner has stopped, or shown no sign of life, for a minute."""


@dataclass(slots=True, frozen=True)
class Orphan:
    """A partition that owes deliveries and that no process works on."""

    topic: str
    partition: int
    owed: int
    adopted: bool


async def orphans(connection: Connection) -> list[Orphan]:
    """Every such partition, by name; one line also for several incarnations of a topic."""
    rows = await connection.fetch(
        "SELECT t.name, p.partition, sum(b.owed)::bigint AS owed, bool_and(p.adopted) AS adopted "
        "FROM backlog b JOIN progress p USING (topic_id, partition) "
        f"JOIN topics t ON t.id = b.topic_id WHERE b.owed > 0 AND {_NOBODYS} "
        "GROUP BY 1, 2 ORDER BY 1, 2"
    )
    return [Orphan(*row) for row in rows]


async def put_up(connection: Connection, topic: str) -> int:
    """Put a topic's partitions up for adoption; how many there are that owe something. A process
    that runs takes those that nobody works on."""
    tag = await connection.execute(
        "UPDATE progress p SET adopted = true FROM topics t WHERE t.id = p.topic_id "
        "AND t.name = $1 AND EXISTS (SELECT FROM backlog b WHERE b.owed > 0 "
        "AND (b.topic_id, b.partition) = (p.topic_id, p.partition))",
        topic,
    )
    await connection.execute("SELECT pg_notify($1, 'adopt')", CHANNEL)
    return int(tag.split()[-1])


async def adopt(database: Database, incarnation: int) -> list[tuple[Claim, int]]:
    """Claim what is up for adoption and nobody's; each with its watermark. Of several processes
    that ask at once, one gets it: the row is locked, and then somebody's."""
    async with database.session() as connection:
        rows = await connection.fetch(
            "UPDATE progress p SET epoch = p.epoch + 1, incarnation = $1, claimed_at = now() "
            f"FROM topics t WHERE t.id = p.topic_id AND p.adopted AND {_NOBODYS} "
            "RETURNING t.name, p.topic_id, p.partition, p.epoch, t.id_key, "
            "coalesce(p.watermark, 0) AS watermark",
            incarnation,
        )
    return [
        (
            Claim(r["name"], r["topic_id"], r["partition"], r["epoch"], bytes(r["id_key"])),
            r["watermark"],
        )
        for r in rows
    ]
