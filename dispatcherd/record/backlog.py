"""How much is owed: counts kept beside the rows, and what is owed without rows (held ranges).

Invariant: a count changes in the transaction that changes the rows it counts, under the lock of
the partition's progress row; so the sums are exact without counting ten million rows. Leaves out:
what is done when a cap is reached (quota), and reading held ranges again (reread).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from dispatcherd.delivery import Claim, Reason, Request
from dispatcherd.record.connection import Connection, Database
from dispatcherd.record.gathering import Change, HeldRange, Operation

Counts = Mapping[tuple[int, int, int], tuple[int, int]]
"""(topic_id, partition, endpoint_id) → change of (owed, dead)."""


def change_of(operation: Operation) -> tuple[int, int]:
    """What one operation does to (owed, dead). A delivery in memory has no row yet, or an owed one:
    dead letters are only in Postgres."""
    before = 0 if operation.with_body else 1
    if operation.change is Change.OWED:
        return 1 - before, 0
    if operation.change is Change.DEAD:
        return -before, 1
    return -before, 0


def changes(operations: Iterable[Operation]) -> Counts:
    """The sums of `change_of`, by partition and endpoint."""
    found: dict[tuple[int, int, int], tuple[int, int]] = {}
    for operation in operations:
        owed, dead = change_of(operation)
        if owed or dead:
            claim = operation.delivery.event.claim
            key = (claim.topic_id, claim.partition, operation.delivery.endpoint_id)
            before = found.get(key, (0, 0))
            found[key] = before[0] + owed, before[1] + dead
    return found


async def count(connection: Connection, counts: Counts) -> None:
    """Apply changes."""
    if not counts:
        return
    keys = sorted(counts)
    await connection.execute(
        "INSERT INTO backlog AS b (topic_id, partition, endpoint_id, owed, dead) "
        "SELECT * FROM unnest($1::int[], $2::int[], $3::int[], $4::bigint[], $5::bigint[]) "
        "ON CONFLICT (topic_id, partition, endpoint_id) DO UPDATE SET "
        "owed = b.owed + excluded.owed, dead = b.dead + excluded.dead",
        [key[0] for key in keys],
        [key[1] for key in keys],
        [key[2] for key in keys],
        [counts[key][0] for key in keys],
        [counts[key][1] for key in keys],
    )


async def granted(connection: Connection, keys: Sequence[Sequence[int]]) -> Counts:
    """What operators' requests on rows are about to change; `keys` as `owed.grant` has them."""
    rows = await connection.fetch(
        "SELECT d.topic_id, d.partition, d.endpoint_id, d.state, d.request, count(*) AS n "
        "FROM deliveries d JOIN unnest($1::int[], $2::int[], $3::bigint[], $4::int[], "
        '$5::bigint[]) AS n (topic_id, partition, "offset", endpoint_id, request_no) '
        'USING (topic_id, partition, "offset", endpoint_id, request_no) GROUP BY 1, 2, 3, 4, 5',
        *keys,
    )
    found: Counter[tuple[int, int, int, bool]] = Counter()
    for row in rows:
        key = (row["topic_id"], row["partition"], row["endpoint_id"])
        found[(*key, row["state"] == Change.DEAD)] -= row["n"]
        if row["request"] == Request.RETRY:
            found[(*key, False)] += row["n"]
    return {key[:3]: (found[(*key[:3], False)], found[(*key[:3], True)]) for key in found}


async def bury(connection: Connection, ours: set[tuple[int, int]], endpoint_id: int) -> None:
    """Everything owed to a removed endpoint in these partitions becomes dead letters; what was held
    for it is let go."""
    arrays = [topic_id for topic_id, _ in ours], [partition for _, partition in ours]
    await connection.execute(
        "UPDATE backlog b SET dead = dead + owed, owed = 0 "
        "FROM unnest($1::int[], $2::int[]) AS o (topic_id, partition) "
        "WHERE b.topic_id = o.topic_id AND b.partition = o.partition AND b.endpoint_id = $3",
        *arrays,
        endpoint_id,
    )
    await connection.execute(
        "DELETE FROM held_ranges h USING unnest($1::int[], $2::int[]) AS o (topic_id, partition) "
        "WHERE h.topic_id = o.topic_id AND h.partition = o.partition AND h.endpoint_id = $3",
        *arrays,
        endpoint_id,
    )


async def owed_by_endpoint(database: Database) -> dict[int, int]:
    """What all processes together owe, by endpoint."""
    async with database.session() as connection:
        rows = await connection.fetch(
            "SELECT endpoint_id, sum(owed)::bigint AS owed FROM backlog GROUP BY 1"
        )
    return {row["endpoint_id"]: row["owed"] for row in rows}


# --- held ranges ---------------------------------------------------------------------------


async def hold(connection: Connection, ranges: Sequence[HeldRange]) -> None:
    """Begin ranges, or extend them."""
    if not ranges:
        return
    await connection.execute(
        "INSERT INTO held_ranges AS h (topic_id, partition, endpoint_id, start_offset, end_offset) "
        "SELECT * FROM unnest($1::int[], $2::int[], $3::int[], $4::bigint[], $5::bigint[]) "
        "ON CONFLICT (topic_id, partition, endpoint_id, start_offset) DO UPDATE SET "
        "end_offset = greatest(h.end_offset, excluded.end_offset)",
        *_arrays(ranges),
        [held.end for held in ranges],
    )


async def resume(connection: Connection, ranges: Sequence[HeldRange]) -> None:
    """Everything below `resume_at` of these ranges has rows now; a range read to its end goes."""
    if not ranges:
        return
    # The end is the table's: the range may have grown since it was read.
    await connection.execute(
        "WITH gone AS (DELETE FROM held_ranges h USING unnest($1::int[], $2::int[], $3::int[], "
        "$4::bigint[], $5::bigint[]) AS r (topic_id, partition, endpoint_id, start_offset, "
        "resume_at) WHERE (h.topic_id, h.partition, h.endpoint_id, h.start_offset) = "
        "(r.topic_id, r.partition, r.endpoint_id, r.start_offset) RETURNING h.*, r.resume_at) "
        "INSERT INTO held_ranges (topic_id, partition, endpoint_id, start_offset, end_offset, "
        "since) SELECT topic_id, partition, endpoint_id, resume_at, end_offset, since FROM gone "
        "WHERE resume_at < end_offset",
        *_arrays(ranges),
        [held.resume_at for held in ranges],
    )


def _arrays(ranges: Sequence[HeldRange]) -> list[list[int]]:
    return [
        [held.claim.topic_id for held in ranges],
        [held.claim.partition for held in ranges],
        [held.endpoint_id for held in ranges],
        [held.start for held in ranges],
    ]


async def held_ranges(database: Database, claims: Sequence[Claim]) -> list[HeldRange]:
    """The first range of each endpoint in each of these partitions."""
    by_key = {(c.topic_id, c.partition): c for c in claims}
    async with database.session() as connection:
        rows = await connection.fetch(
            "SELECT DISTINCT ON (topic_id, partition, endpoint_id) topic_id, partition, "
            "endpoint_id, start_offset, end_offset FROM held_ranges "
            "JOIN unnest($1::int[], $2::int[]) AS o (topic_id, partition) "
            "USING (topic_id, partition) ORDER BY topic_id, partition, endpoint_id, start_offset",
            [c.topic_id for c in claims],
            [c.partition for c in claims],
        )
    return [
        HeldRange(
            by_key[(r["topic_id"], r["partition"])],
            r["endpoint_id"],
            r["start_offset"],
            r["end_offset"],
            resume_at=r["start_offset"],
        )
        for r in rows
    ]


async def quarantined(database: Database, claim: Claim, start: int, end: int) -> set[int]:
    """The offsets from `start` to below `end` whose records lie in quarantine."""
    async with database.session() as connection:
        rows = await connection.fetch(
            'SELECT "offset" FROM quarantine WHERE topic_id = $1 AND partition = $2 '
            'AND "offset" >= $3 AND "offset" < $4',
            claim.topic_id,
            claim.partition,
            start,
            end,
        )
    return {row["offset"] for row in rows}


async def unreadable_up_to(database: Database, claim: Claim, offset: int) -> int | None:
    """The end of the offsets, `offset` among them, for which one row of the quarantine says that
    they cannot be read; None: there is no such row. How far it reaches stands in its detail."""
    async with database.session() as connection:
        end = await connection.fetchval(
            "SELECT substring(detail FROM '^offsets [0-9]+ to ([0-9]+) ')::bigint + 1 "
            'FROM quarantine WHERE topic_id = $1 AND partition = $2 AND "offset" <= $3 '
            'AND reason = $4 ORDER BY "offset" DESC LIMIT 1',
            claim.topic_id,
            claim.partition,
            offset,
            Reason.UNREADABLE,
        )
    return end if end is not None and end > offset else None
