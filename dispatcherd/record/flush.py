"""One flush, one transaction: flush number, COPY, fenced progress, then what is owed.

Invariant: what is written for a partition is written only if its epoch is still ours, decided by
Postgres under the row's lock; attempts are written in any case, because they happened. A row that
Postgres refuses does not take its neighbours along. Leaves out: reconnecting and repeating
(recorder).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import asyncpg
import orjson

from dispatcherd.delivery import Claim, Event
from dispatcherd.offsets import Progress
from dispatcherd.record import backlog
from dispatcherd.record.connection import Connection
from dispatcherd.record.gathering import Change, Gathering, Operation

ATTEMPT_COLUMNS = (
    "exchange_id",
    "offset",
    "at",
    "topic_id",
    "partition",
    "endpoint_id",
    "type_id",
    "duration_us",
    "number",
    "status",
    "kind",
    "reason",
    "sent",
    "webhook_id",
)
_STATEMENT_BYTES = 4_194_304
_STATEMENT_OPERATIONS = 250
"""Rows that are encoded at once: a few milliseconds in which nothing else runs. (Deleting one needs
its key alone: a flush's are deleted together.)"""
_Place = tuple[int, int, int]
"""(topic_id, partition, offset): where a body lies once, for all its deliveries."""
_WEBHOOK_ID = ATTEMPT_COLUMNS.index("webhook_id")

REFUSED_BY_DATA = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.RaiseError,
    asyncpg.ProgramLimitExceededError,
    ValueError,
    OverflowError,
)
"""Errors that are about a row and not about the server: found by halving."""


async def prepare(connection: Connection) -> None:
    """Let a connection take the moments of attempts as numbers (`gathering.postgres_moment`). What
    it reads of that type comes as numbers too. `write` needs it; once for each connection."""
    await connection.set_type_codec(
        "timestamptz", schema="pg_catalog", encoder=_as_is, decoder=_as_is, format="tuple"
    )


def _as_is(moment: tuple[int]) -> tuple[int]:
    return moment


async def already_committed(connection: Connection, incarnation: int, number: int) -> bool:
    """Whether flush `number` of this process committed although its answer was lost.

    Waits for an old backend that still holds the row (bounded by lock_timeout). Must run before
    the flush is repeated; see DESIGN, "A flush", step 1.
    """
    row = await connection.fetchrow(
        "SELECT flush FROM instances WHERE incarnation = $1 FOR UPDATE", incarnation
    )
    if row is None:
        raise asyncpg.NoDataFoundError(f"instances has no row for incarnation {incarnation}")
    return int(row["flush"]) >= number


async def write(
    connection: Connection,
    incarnation: int,
    contents: Gathering,
    now: float,
    type_ids: dict[str, int],
) -> int:
    """Write a frozen gathering in one transaction; `contents.fenced` says what was not ours.

    Returns how many rows Postgres refused (each replaced by a minimal one, or left out when even
    that was refused). Raises what asyncpg raises; after an error the fate is unknown until
    `already_committed` has answered.
    """
    refused = 0
    async with connection.transaction():
        advanced = await connection.execute(
            "UPDATE instances SET flush = $2, heartbeat_at = now() "
            "WHERE incarnation = $1 AND flush = $2 - 1",
            incarnation,
            contents.number,
        )
        if advanced != "UPDATE 1":
            raise RuntimeError(f"flush {contents.number} was written before: {advanced}")
        if contents.attempts:
            refused += await _copy(
                connection, "attempts", ATTEMPT_COLUMNS, contents.attempts, _minimal_attempt
            )
        claims = {progress.claim for progress in contents.progress}
        claims.update(op.delivery.event.claim for op in contents.operations.values())
        claims.update(row.claim for row in contents.quarantine)
        claims.update(held.claim for held in (*contents.held.values(), *contents.reread.values()))
        ours = await _lock_ours(connection, claims)
        contents.fenced = claims - ours
        if ours:
            await _advance(connection, [p for p in contents.progress if p.claim in ours])
            refused += await _quarantine(connection, contents, ours)
            operations = [
                op for op in contents.operations.values() if op.delivery.event.claim in ours
            ]
            await _change_owed(connection, operations, now, type_ids)
            await backlog.count(connection, backlog.changes(operations))
            await backlog.hold(connection, [h for h in contents.held.values() if h.claim in ours])
            await backlog.resume(
                connection, [r for r in contents.reread.values() if r.claim in ours]
            )
    return refused


async def _lock_ours(connection: Connection, claims: set[Claim]) -> set[Claim]:
    """Lock the progress rows of these claims in key order; the ones whose epoch is still ours."""
    if not claims:
        return set()
    by_key = {(c.topic_id, c.partition, c.epoch): c for c in claims}
    keys = sorted(by_key)
    rows = await connection.fetch(
        "SELECT p.topic_id, p.partition, p.epoch FROM progress p "
        "JOIN unnest($1::int[], $2::int[], $3::bigint[]) AS mine (topic_id, partition, epoch) "
        "USING (topic_id, partition, epoch) ORDER BY p.topic_id, p.partition FOR UPDATE OF p",
        [k[0] for k in keys],
        [k[1] for k in keys],
        [k[2] for k in keys],
    )
    return {by_key[(r["topic_id"], r["partition"], r["epoch"])] for r in rows}


async def _advance(connection: Connection, progress: Sequence[Progress]) -> None:
    if not progress:
        return
    # asyncpg cannot encode an array of multiranges: text and a cast.
    await connection.execute(
        "UPDATE progress p SET watermark = n.watermark, settled = n.settled::int8multirange, "
        "partial = n.partial::jsonb, fingerprint = coalesce(n.fingerprint, p.fingerprint), "
        "fingerprint_offset = coalesce(n.fingerprint_offset, p.fingerprint_offset), "
        "changed_at = now() "
        "FROM unnest($1::int[], $2::int[], $3::bigint[], $4::text[], $5::text[], $6::bytea[], "
        "$7::bigint[]) AS n (topic_id, partition, watermark, settled, partial, fingerprint, "
        "fingerprint_offset) WHERE p.topic_id = n.topic_id AND p.partition = n.partition",
        [p.claim.topic_id for p in progress],
        [p.claim.partition for p in progress],
        [p.watermark for p in progress],
        [p.settled for p in progress],
        [orjson.dumps(p.partial).decode() for p in progress],
        [p.fingerprint for p in progress],
        [p.fingerprint_offset for p in progress],
    )


async def _quarantine(connection: Connection, contents: Gathering, ours: set[Claim]) -> int:
    rows = [row for row in contents.quarantine if row.claim in ours]
    refused = 0
    for row in rows:
        headers = orjson.dumps([[n, v.decode("latin-1")] for n, v in row.headers])
        arguments = [
            row.claim.topic_id,
            row.claim.partition,
            row.offset,
            int(row.reason),
            row.detail,
            row.key,
            row.value,
            row.value_bytes,
            headers,
        ]
        try:
            async with connection.transaction():
                await connection.execute(_QUARANTINE, *arguments)
        except REFUSED_BY_DATA:
            refused += 1
            arguments[4] = "detail refused by Postgres"
            await connection.execute(_QUARANTINE, *arguments)
    return refused


_QUARANTINE = (
    'INSERT INTO quarantine (topic_id, partition, "offset", reason, detail, key, value, '
    "value_bytes, headers) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING"
)


async def _change_owed(
    connection: Connection, operations: Sequence[Operation], now: float, type_ids: dict[str, int]
) -> None:
    puts = [op for op in operations if op.change is not Change.DELETE]
    for start in range(0, len(puts), _STATEMENT_OPERATIONS):
        piece = puts[start : start + _STATEMENT_OPERATIONS]
        bodies = [op for op in piece if op.with_body]
        if bodies:
            await _insert_bodies(connection, bodies, type_ids)
        await _upsert(connection, piece, now)
    deletes = [op for op in operations if op.change is Change.DELETE]
    if deletes:
        await _delete(connection, deletes)


async def _insert_bodies(
    connection: Connection, operations: Sequence[Operation], type_ids: dict[str, int]
) -> None:
    events = {op.delivery.key[:3]: op.delivery.event for op in operations}
    for piece in _pieces(events):
        await _insert_piece(connection, piece, type_ids)


def _pieces(events: dict[_Place, Event]) -> Iterator[dict[_Place, Event]]:
    """By size: what one statement encodes and sends is in memory several times."""
    piece: dict[_Place, Event] = {}
    size = 0
    for place, event in events.items():
        if piece and size + event.size > _STATEMENT_BYTES:
            yield piece
            piece, size = {}, 0
        piece[place] = event
        size += event.size
    if piece:
        yield piece


async def _insert_piece(
    connection: Connection, events: dict[_Place, Event], type_ids: dict[str, int]
) -> None:
    await connection.execute(
        'INSERT INTO bodies (topic_id, partition, "offset", webhook_id, type_id, version, '
        "timestamp, shape, headers, body, tenant) SELECT * FROM unnest($1::int[], $2::int[], "
        "$3::bigint[], $4::text[], $5::int[], $6::text[], $7::text[], $8::smallint[], "
        "$9::bytea[], $10::bytea[], $11::text[]) ON CONFLICT DO NOTHING",
        [k[0] for k in events],
        [k[1] for k in events],
        [k[2] for k in events],
        [e.id for e in events.values()],
        [type_ids[e.type] for e in events.values()],
        [e.version for e in events.values()],
        [e.timestamp for e in events.values()],
        [int(e.shape) for e in events.values()],
        [
            orjson.dumps([[name, value.decode("latin-1")] for name, value in e.headers])
            for e in events.values()
        ],
        [e.body for e in events.values()],
        [e.tenant for e in events.values()],
    )


async def _upsert(connection: Connection, operations: Sequence[Operation], now: float) -> None:
    deliveries = [op.delivery for op in operations]
    # An operator's request stays unless it is the very one that this outcome has taken up.
    await connection.execute(
        'INSERT INTO deliveries AS d (topic_id, partition, "offset", endpoint_id, state, reason, '
        "status, attempts, cycle_start, due, tenant) "
        'SELECT n.topic_id, n.partition, n."offset", n.endpoint_id, n.state, n.reason, n.status, '
        "n.attempts, n.cycle_start, now() + make_interval(secs => n.due_in), n.tenant "
        "FROM unnest($1::int[], $2::int[], $3::bigint[], $4::int[], $5::smallint[], "
        "$6::smallint[], $7::smallint[], $8::smallint[], $9::smallint[], $10::float8[], "
        '$11::text[]) AS n (topic_id, partition, "offset", endpoint_id, state, reason, status, '
        "attempts, cycle_start, due_in, tenant) "
        'ON CONFLICT (topic_id, partition, "offset", endpoint_id) DO UPDATE SET '
        "state = excluded.state, reason = excluded.reason, status = excluded.status, "
        "attempts = excluded.attempts, cycle_start = excluded.cycle_start, due = excluded.due, "
        "version = d.version + 1, changed_at = now()",
        [d.event.claim.topic_id for d in deliveries],
        [d.event.claim.partition for d in deliveries],
        [d.event.offset for d in deliveries],
        [d.endpoint_id for d in deliveries],
        [int(op.change) for op in operations],
        [int(op.reason) for op in operations],
        [op.status for op in operations],
        [min(d.attempts, 32_767) for d in deliveries],
        [min(d.cycle_start, 32_767) for d in deliveries],
        [min(max(op.due - now, -3.15e9), 3.15e9) for op in operations],
        [d.event.tenant for d in deliveries],
    )
    taken_up = [op for op in operations if op.request_no is not None]
    if taken_up:
        await connection.execute(
            "UPDATE deliveries d SET request = NULL, request_no = NULL "
            "FROM unnest($1::int[], $2::int[], $3::bigint[], $4::int[], $5::bigint[]) AS n "
            '(topic_id, partition, "offset", endpoint_id, request_no) '
            'WHERE (d.topic_id, d.partition, d."offset", d.endpoint_id, d.request_no) = '
            '(n.topic_id, n.partition, n."offset", n.endpoint_id, n.request_no)',
            *_key_arrays(taken_up),
            [op.request_no for op in taken_up],
        )


async def _delete(connection: Connection, operations: Sequence[Operation]) -> None:
    keys = _key_arrays(operations)
    await connection.execute(
        "DELETE FROM deliveries d USING unnest($1::int[], $2::int[], $3::bigint[], $4::int[]) "
        'AS k (topic_id, partition, "offset", endpoint_id) WHERE (d.topic_id, d.partition, '
        'd."offset", d.endpoint_id) = (k.topic_id, k.partition, k."offset", k.endpoint_id)',
        *keys,
    )
    await drop_orphan_bodies(connection, *keys[:3])


async def drop_orphan_bodies(
    connection: Connection, topic_ids: list[int], partitions: list[int], offsets: list[int]
) -> None:
    """Drop the bodies at these positions that no delivery needs any more (owner's epoch held)."""
    await connection.execute(
        "DELETE FROM bodies b USING (SELECT DISTINCT * FROM unnest($1::int[], $2::int[], "
        '$3::bigint[]) AS u (topic_id, partition, "offset")) k WHERE (b.topic_id, b.partition, '
        'b."offset") = (k.topic_id, k.partition, k."offset") AND NOT EXISTS (SELECT FROM '
        'deliveries d WHERE (d.topic_id, d.partition, d."offset") = '
        '(b.topic_id, b.partition, b."offset"))',
        topic_ids,
        partitions,
        offsets,
    )


def _key_arrays(operations: Sequence[Operation]) -> list[list[int]]:
    keys = [op.delivery.key for op in operations]
    return [[key[i] for key in keys] for i in range(4)]


async def _copy(
    connection: Connection,
    table: str,
    columns: Sequence[str],
    rows: Sequence[tuple[object, ...]],
    minimal: Any,
) -> int:
    """COPY rows; where Postgres refuses some, halve until they are found. Returns how many."""
    try:
        async with connection.transaction():
            await connection.copy_records_to_table(table, records=rows, columns=columns)
        return 0
    except REFUSED_BY_DATA:
        if len(rows) > 1:
            middle = len(rows) // 2
            left = await _copy(connection, table, columns, rows[:middle], minimal)
            return left + await _copy(connection, table, columns, rows[middle:], minimal)
        replacement = minimal(rows[0])
        if replacement != rows[0]:
            await _copy(connection, table, columns, [replacement], minimal)
        return 1


def _minimal_attempt(row: tuple[object, ...]) -> tuple[object, ...]:
    """The same attempt without the one field that comes from outside."""
    return (*row[:_WEBHOOK_ID], "", *row[_WEBHOOK_ID + 1 :])
