"""What is owed, read back: which endpoints have rows, the next page of them, operators' requests.

Invariant: only rows of partitions that are ours are read, and only as many as there is room for.
Called under the recorder's turnstile, so that a row that is being deleted is not read again; but
for `page`, which says what it needs.
Leaves out: what is in memory (retry) and who asks (look).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import orjson

from dispatcherd.delivery import Claim, Delivery, Event, Key, Reason, Request, Shape
from dispatcherd.record import backlog
from dispatcherd.record.connection import Connection, Database
from dispatcherd.record.flush import drop_orphan_bodies
from dispatcherd.record.gathering import Change


@dataclass(slots=True, frozen=True)
class DueSince:
    """An endpoint with owed rows in one partition, and when the first of them is due."""

    claim: Claim
    endpoint_id: int
    due_in_seconds: float


@dataclass(slots=True, frozen=True)
class PagedRow:
    """One owed delivery as it came from its row."""

    delivery: Delivery
    due_in_seconds: float
    reason: int
    """Why it is owed: a `Reason`."""


@dataclass(slots=True, frozen=True)
class RequestRow:
    """An operator's request that is waiting for the owner."""

    key: Key
    request: Request
    number: int


_SURVEY = """
WITH RECURSIVE owned AS (
    SELECT * FROM unnest($1::int[], $2::int[]) AS o (topic_id, partition)
), skip AS (
    SELECT o.topic_id, o.partition, f.endpoint_id, f.due FROM owned o CROSS JOIN LATERAL (
        SELECT d.endpoint_id, d.due FROM deliveries d WHERE d.topic_id = o.topic_id
        AND d.partition = o.partition AND d.state = 1 ORDER BY d.endpoint_id, d.due LIMIT 1) f
    UNION ALL
    SELECT s.topic_id, s.partition, f.endpoint_id, f.due FROM skip s CROSS JOIN LATERAL (
        SELECT d.endpoint_id, d.due FROM deliveries d WHERE d.topic_id = s.topic_id
        AND d.partition = s.partition AND d.state = 1 AND d.endpoint_id > s.endpoint_id
        ORDER BY d.endpoint_id, d.due LIMIT 1) f
)
SELECT topic_id, partition, endpoint_id, extract(epoch FROM due - now())::float8 AS due_in
FROM skip
"""


async def survey(database: Database, claims: Sequence[Claim]) -> list[DueSince]:
    """Which endpoints have owed rows in these partitions; one index probe per answer."""
    if not claims:
        return []
    by_key = {(c.topic_id, c.partition): c for c in claims}
    async with database.session() as connection:
        rows = await connection.fetch(
            _SURVEY, [c.topic_id for c in claims], [c.partition for c in claims]
        )
    return [
        DueSince(by_key[(r["topic_id"], r["partition"])], r["endpoint_id"], r["due_in"])
        for r in rows
    ]


_PAGE = """
WITH picked AS (
    SELECT d.* FROM unnest($1::int[], $2::int[]) AS o (topic_id, partition)
    CROSS JOIN LATERAL (
        SELECT d.topic_id, d.partition, d."offset", d.endpoint_id, d.attempts, d.cycle_start, d.due,
            d.reason
        FROM deliveries d WHERE d.topic_id = o.topic_id AND d.partition = o.partition
        AND d.endpoint_id = $3 AND d.state = 1 AND d.due <= now() + make_interval(secs => $4)
        AND (d.topic_id, d.partition, d."offset") NOT IN
            (SELECT * FROM unnest($7::int[], $8::int[], $9::bigint[]))
        ORDER BY d.due LIMIT $5) d
    ORDER BY d.due LIMIT $5
), sized AS (
    SELECT p.*, b.webhook_id, b.type_id, b.version, b.timestamp, b.shape, b.headers, b.body,
        b.tenant, sum(octet_length(b.body)) OVER (ORDER BY p.due, p.topic_id,
        p.partition, p."offset" ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
        AS before FROM picked p JOIN bodies b USING (topic_id, partition, "offset")
)
SELECT s.topic_id, s.partition, s."offset", s.attempts, s.cycle_start, s.reason,
    extract(epoch FROM s.due - now())::float8 AS due_in,
    s.webhook_id, t.name AS type, s.version, s.timestamp, s.shape, s.headers, s.body, s.tenant
FROM sized s JOIN event_types t ON t.id = s.type_id
WHERE s.before IS NULL OR s.before < $6 ORDER BY s.due, s.topic_id, s.partition, s."offset"
"""


async def page(
    database: Database,
    claims: Sequence[Claim],
    endpoint_id: int,
    horizon_seconds: float,
    limit: int,
    most_bytes: int,
    known: Collection[Key],
    now: float,
) -> list[PagedRow]:
    """Deliveries owed to an endpoint, due within the horizon, earliest first, without those that
    are `known`: at most `limit`, and none behind the one with which `most_bytes` is reached.

    A flush may be under way. What it changes is known until it is durable, and stays left out here
    if it becomes so meanwhile: `known` is asked once, before the statement sees the table. What it
    adds meanwhile is seen or not; who hears of the flush's end has to look again."""
    by_key = {(c.topic_id, c.partition): c for c in claims}
    async with database.session() as connection:
        rows = await connection.fetch(
            _PAGE,
            [c.topic_id for c in claims],
            [c.partition for c in claims],
            endpoint_id,
            horizon_seconds,
            limit,
            most_bytes,
            [key.topic_id for key in known],
            [key.partition for key in known],
            [key.offset for key in known],
        )
    paged = []
    for row in rows:
        event = Event(
            claim=by_key[(row["topic_id"], row["partition"])],
            offset=row["offset"],
            id=row["webhook_id"],
            type=row["type"],
            version=row["version"],
            timestamp=row["timestamp"],
            body=bytes(row["body"]),
            headers=tuple((n, v.encode("latin-1")) for n, v in orjson.loads(row["headers"])),
            shape=Shape(row["shape"]),
            tenant=row["tenant"],
        )
        delivery = Delivery(event, endpoint_id, now, row["attempts"], row["cycle_start"], owed=True)
        paged.append(PagedRow(delivery, row["due_in"], row["reason"]))
    return paged


async def requests(database: Database, claims: Sequence[Claim], limit: int) -> list[RequestRow]:
    """Operators' requests on rows of these partitions."""
    if not claims:
        return []
    async with database.session() as connection:
        rows = await connection.fetch(
            'SELECT d.topic_id, d.partition, d."offset", d.endpoint_id, d.request, d.request_no '
            "FROM deliveries d JOIN unnest($1::int[], $2::int[]) AS o (topic_id, partition) "
            "USING (topic_id, partition) WHERE d.request IS NOT NULL LIMIT $3",
            [c.topic_id for c in claims],
            [c.partition for c in claims],
            limit,
        )
    return [RequestRow(Key(*row[:4]), Request(row["request"]), row["request_no"]) for row in rows]


_OURS = (
    "SELECT p.topic_id, p.partition FROM progress p JOIN unnest($1::int[], $2::int[], "
    "$3::bigint[]) AS m (topic_id, partition, epoch) USING (topic_id, partition, epoch) "
    "ORDER BY p.topic_id, p.partition FOR UPDATE OF p"
)


async def grant(database: Database, claims: Sequence[Claim], rows: Sequence[RequestRow]) -> None:
    """Carry out requests on rows that are only in Postgres, where the epoch is still ours."""
    if not rows:
        return
    async with database.session() as connection, connection.transaction():
        ours = await _lock(connection, claims)
        rows = [row for row in rows if (row.key.topic_id, row.key.partition) in ours]
        retries = [row for row in rows if row.request is Request.RETRY]
        discards = [row for row in rows if row.request is Request.DISCARD]
        moved = await backlog.granted(connection, _arrays(rows))
        if retries:
            await connection.execute(
                "UPDATE deliveries d SET state = $6, reason = $7, due = now(), "
                "cycle_start = attempts, version = version + 1, changed_at = now(), "
                f"request = NULL, request_no = NULL {_MATCH}",
                *_arrays(retries),
                int(Change.OWED),
                int(Reason.OPERATOR_RETRY),
            )
        if discards:
            await connection.execute(
                "DELETE FROM deliveries d USING unnest($1::int[], $2::int[], $3::bigint[], "
                '$4::int[], $5::bigint[]) AS n (topic_id, partition, "offset", endpoint_id, '
                f"request_no) WHERE {_SAME}",
                *_arrays(discards),
            )
            arrays = _arrays(discards)
            await drop_orphan_bodies(connection, arrays[0], arrays[1], arrays[2])
        await backlog.count(connection, moved)


_SAME = (
    '(d.topic_id, d.partition, d."offset", d.endpoint_id, d.request_no) = '
    '(n.topic_id, n.partition, n."offset", n.endpoint_id, n.request_no)'
)
_MATCH = (
    "FROM unnest($1::int[], $2::int[], $3::bigint[], $4::int[], $5::bigint[]) AS n "
    f'(topic_id, partition, "offset", endpoint_id, request_no) WHERE {_SAME}'
)


async def bury_removed(database: Database, claims: Sequence[Claim], endpoint_id: int) -> int:
    """The endpoint was removed: what was owed to it becomes dead letters. Returns how many."""
    async with database.session() as connection, connection.transaction():
        ours = await _lock(connection, claims)
        await backlog.bury(connection, ours, endpoint_id)
        tag = await connection.execute(
            "UPDATE deliveries d SET state = $4, reason = $5, version = version + 1, "
            "changed_at = now() FROM unnest($1::int[], $2::int[]) AS o (topic_id, partition) "
            "WHERE d.topic_id = o.topic_id AND d.partition = o.partition "
            "AND d.endpoint_id = $3 AND d.state = 1",
            [topic_id for topic_id, _ in ours],
            [partition for _, partition in ours],
            endpoint_id,
            int(Change.DEAD),
            int(Reason.ENDPOINT_REMOVED),
        )
    return int(tag.split()[-1])


async def bury_oldest(
    database: Database,
    claims: Sequence[Claim],
    endpoint_id: int,
    count: int,
    keep: Sequence[Key],
) -> int:
    """The oldest rows owed to an endpoint, but for those in memory, become dead letters
    (`backlog_full`). Returns how many."""
    async with database.session() as connection, connection.transaction():
        ours = sorted(await _lock(connection, claims))
        rows = await connection.fetch(
            "UPDATE deliveries d SET state = $4, reason = $5, version = version + 1, "
            'changed_at = now() FROM (SELECT c.topic_id, c.partition, c."offset" FROM '
            "deliveries c JOIN unnest($1::int[], $2::int[]) AS o (topic_id, partition) "
            "USING (topic_id, partition) WHERE c.endpoint_id = $3 AND c.state = 1 "
            'AND (c.topic_id, c.partition, c."offset") NOT IN (SELECT * FROM '
            "unnest($6::int[], $7::int[], $8::bigint[])) ORDER BY c.since LIMIT $9) old "
            "WHERE d.topic_id = old.topic_id AND d.partition = old.partition "
            'AND d."offset" = old."offset" AND d.endpoint_id = $3 '
            "RETURNING d.topic_id, d.partition",
            [topic_id for topic_id, _ in ours],
            [partition for _, partition in ours],
            endpoint_id,
            int(Change.DEAD),
            int(Reason.BACKLOG_FULL),
            [key.topic_id for key in keep],
            [key.partition for key in keep],
            [key.offset for key in keep],
            count,
        )
        buried = Counter((row["topic_id"], row["partition"], endpoint_id) for row in rows)
        await backlog.count(connection, {key: (-n, n) for key, n in buried.items()})
    return len(rows)


async def _lock(connection: Connection, claims: Sequence[Claim]) -> set[tuple[int, int]]:
    rows = await connection.fetch(
        _OURS,
        [c.topic_id for c in claims],
        [c.partition for c in claims],
        [c.epoch for c in claims],
    )
    return {(row["topic_id"], row["partition"]) for row in rows}


def _arrays(rows: Sequence[RequestRow]) -> list[list[int]]:
    keys = [row.key for row in rows]
    return [*([key[i] for key in keys] for i in range(4)), [row.number for row in rows]]
