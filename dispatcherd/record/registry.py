"""Endpoints: the file's registrations reconciled into the table, and read back for everybody.

Invariant: absence from one process's file removes nothing, because a rolling restart would lose
events: such an endpoint is held (routed to and parked) until it is back in the file or removed by
command. A file with a lower `revision` yields to the table. No secret, no static header and nothing
of an endpoint's TLS is stored: they are each process's own. Whoever changes the table holds one
lock, and numbers the change, in the same transaction: what a process has not seen yet is what has a
higher number than it saw last. Leaves out: compiling filters (the caller turns a `Registration`
into an `Endpoint`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import orjson

from dispatcherd.config.model import EndpointConfig
from dispatcherd.record.connection import Connection, Database

_LOCK = 0x64697370_61746370
CHANNEL = "dispatcherd"
"""NOTIFY channel; the payload is `endpoints` or `requests`."""

_NOT_STORED = {"secret", "secrets", "headers", "tls"}
_AT_ONCE = 10_000
"""Endpoints of the file in one statement: it ends within its timeout."""

_VERSION = "SELECT coalesce(max(registry_version), 0) FROM deployment"

_RECONCILE = """
WITH file AS MATERIALIZED (
    SELECT name, tenant, revision, spec::jsonb AS spec, place
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[])
        WITH ORDINALITY AS f (name, tenant, revision, spec, place)
), changed AS (
    UPDATE endpoints e
    SET tenant = f.tenant, revision = f.revision, spec = f.spec, changed_at = now(), version = $5
    FROM file f
    WHERE e.name = f.name AND e.removed_at IS NULL
        AND e.revision <= f.revision AND e.spec <> f.spec
    RETURNING e.name
), added AS (
    INSERT INTO endpoints (name, tenant, revision, spec, version)
    SELECT f.name, f.tenant, f.revision, f.spec, $5
    FROM file f
    WHERE NOT EXISTS (SELECT FROM endpoints e WHERE e.name = f.name AND e.removed_at IS NULL)
    ORDER BY f.place
    RETURNING name
)
SELECT name FROM changed UNION ALL SELECT name FROM added
"""


@dataclass(slots=True, frozen=True)
class Registration:
    """An endpoint as this process is to treat it."""

    id: int
    config: EndpointConfig
    held: bool
    """Not in this process's file: routed to and parked, not sent."""
    stale: bool = False
    """The file's revision is lower than the table's: the table's text is in `config`."""


@dataclass(slots=True, frozen=True)
class Registered:
    """What the table holds, as of a version of it."""

    version: int
    live: list[Registration]
    """In the order of their registration."""
    removed: list[int] = field(default_factory=list)
    """Of a look at what has changed: those that are gone."""


async def reconcile(
    database: Database, endpoints: Sequence[EndpointConfig]
) -> tuple[Registered, list[str]]:
    """Bring the file's endpoints into the table; all live registrations, and the names changed.

    Raises StoreUnavailable. Other processes learn of a change by NOTIFY.
    """
    changed: list[str] = []
    async with database.session() as connection, connection.transaction():
        version = await _lock(connection)
        remaining = iter(endpoints)
        while part := list(islice(remaining, _AT_ONCE)):
            rows = await connection.fetch(
                _RECONCILE,
                [config.id for config in part],
                [config.tenant for config in part],
                [config.revision for config in part],
                [config.model_dump_json(exclude=_NOT_STORED) for config in part],
                version + 1,
            )
            changed += [row["name"] for row in rows]
        if changed:
            version = await _advance(connection)
        live = await _live(connection, endpoints)
    return Registered(version, live), changed


async def version(database: Database) -> int:
    """Higher once any registration has been made, changed or removed."""
    async with database.session() as connection:
        return int(await connection.fetchval(_VERSION))


async def read(
    database: Database, endpoints: Sequence[EndpointConfig], since: int = 0
) -> Registered:
    """The registrations that have changed since a version, as seen by a process whose file holds
    these endpoints."""
    async with database.session() as connection:
        # Asked first: what changes meanwhile is read now, and once more at the next look.
        now = int(await connection.fetchval(_VERSION))
        live = await _live(connection, endpoints, since)
        removed = await connection.fetch(
            "SELECT id FROM endpoints WHERE version > $1 AND removed_at IS NOT NULL", since
        )
    return Registered(now, live, [row["id"] for row in removed])


async def remove(connection: Connection, name: str) -> bool:
    """Remove an endpoint for good; the owners settle what is owed to it as `endpoint_removed`.

    False: there is no live endpoint of that name.
    """
    async with connection.transaction():
        version = await _lock(connection)
        tag = await connection.execute(
            "UPDATE endpoints SET removed_at = now(), version = $2 "
            "WHERE name = $1 AND removed_at IS NULL",
            name,
            version + 1,
        )
        await _advance(connection)
    return bool(tag == "UPDATE 1")


async def _lock(connection: Connection) -> int:
    """Wait until nobody else changes registrations, until the transaction's end; the version."""
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
    return int(await connection.fetchval(_VERSION))


async def _advance(connection: Connection) -> int:
    """One version more, and the others told once it is committed."""
    await connection.execute("SELECT pg_notify($1, 'endpoints')", CHANNEL)
    advanced = await connection.fetchval(
        "UPDATE deployment SET registry_version = registry_version + 1 RETURNING registry_version"
    )
    return int(advanced or 0)  # no daemon has ever run here: nobody has seen a version


async def _live(
    connection: Connection, endpoints: Sequence[EndpointConfig], since: int = -1
) -> list[Registration]:
    rows = await connection.fetch(
        "SELECT id, name, revision FROM endpoints WHERE removed_at IS NULL AND version > $1 "
        "ORDER BY id",
        since,
    )
    mine = {config.id: config for config in endpoints}
    # The texts of those alone that the file does not have, or not as new.
    strange = [
        row["id"]
        for row in rows
        if (config := mine.get(row["name"])) is None or config.revision < row["revision"]
    ]
    texts = await connection.fetch(
        "SELECT id, spec::text AS spec FROM endpoints WHERE id = ANY($1::int[])", strange
    )
    specs = {row["id"]: row["spec"] for row in texts}
    return [_registration(row, mine.get(row["name"]), specs.get(row["id"])) for row in rows]


def _registration(row: Any, config: EndpointConfig | None, spec: str | None) -> Registration:
    if spec is None:
        assert config is not None
        return Registration(row["id"], config, held=False)
    stored = EndpointConfig.model_validate(orjson.loads(spec))
    if config is None:
        return Registration(row["id"], stored, held=True)
    newer = stored.model_copy(update={key: getattr(config, key) for key in _NOT_STORED})
    return Registration(row["id"], newer, held=False, stale=True)
