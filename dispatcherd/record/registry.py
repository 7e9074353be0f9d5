"""Endpoints: the file's registrations reconciled into the table, and read back for everybody.

Invariant: absence from one process's file removes nothing, because a rolling restart would lose
events: such an endpoint is held (routed to and parked) until it is back in the file or removed by
command. A file with a lower `revision` yields to the table. No secret, no static header and nothing
of an endpoint's TLS is stored: they are each process's own. Leaves out: compiling filters (the
caller turns a `Registration` into an `Endpoint`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from dispatcherd.config.model import EndpointConfig
from dispatcherd.record.connection import Connection, Database

_LOCK = 0x64697370_61746370
CHANNEL = "dispatcherd"
"""NOTIFY channel; the payload is `endpoints` or `requests`."""

_NOT_STORED = {"secret", "secrets", "headers", "tls"}


@dataclass(slots=True, frozen=True)
class Registration:
    """An endpoint as this process is to treat it."""

    id: int
    config: EndpointConfig
    held: bool
    """Not in this process's file: routed to and parked, not sent."""
    stale: bool = False
    """The file's revision is lower than the table's: the table's text is in `config`."""


def _spec(config: EndpointConfig) -> str:
    dumped = config.model_dump(mode="json", exclude=_NOT_STORED)
    return orjson.dumps(dumped, option=orjson.OPT_SORT_KEYS).decode()


async def reconcile(
    database: Database, endpoints: Sequence[EndpointConfig]
) -> tuple[list[Registration], list[str]]:
    """Bring the file's endpoints into the table; all live registrations, and the names changed.

    Raises StoreUnavailable. Other processes learn of a change by NOTIFY.
    """
    changed = []
    async with database.session() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        rows = await _live(connection)
        for config in endpoints:
            row = rows.get(config.id)
            spec = _spec(config)
            if row is None:
                await connection.execute(
                    "INSERT INTO endpoints (name, tenant, revision, spec) VALUES ($1, $2, $3, $4)",
                    config.id,
                    config.tenant,
                    config.revision,
                    spec,
                )
            elif config.revision >= int(str(row["revision"])) and not _same(row["spec"], spec):
                await connection.execute(
                    "UPDATE endpoints SET tenant = $2, revision = $3, spec = $4, "
                    "changed_at = now() WHERE id = $1",
                    row["id"],
                    config.tenant,
                    config.revision,
                    spec,
                )
            else:
                continue
            changed.append(config.id)
        if changed:
            await connection.execute("SELECT pg_notify($1, 'endpoints')", CHANNEL)
            rows = await _live(connection)
    return _registrations(rows, endpoints), changed


async def version(database: Database) -> tuple[object, ...]:
    """Differs once any registration has been made, changed or removed."""
    async with database.session() as connection:
        row = await connection.fetchrow(
            "SELECT max(id), max(changed_at), count(removed_at) FROM endpoints"
        )
    return tuple(row)


async def read(database: Database, endpoints: Sequence[EndpointConfig]) -> list[Registration]:
    """All live registrations, as seen by a process whose file holds these endpoints."""
    async with database.session() as connection:
        rows = await _live(connection)
    return _registrations(rows, endpoints)


async def remove(connection: Connection, name: str) -> bool:
    """Remove an endpoint for good; the owners settle what is owed to it as `endpoint_removed`.

    False: there is no live endpoint of that name.
    """
    tag = await connection.execute(
        "UPDATE endpoints SET removed_at = now() WHERE name = $1 AND removed_at IS NULL", name
    )
    await connection.execute("SELECT pg_notify($1, 'endpoints')", CHANNEL)
    return bool(tag == "UPDATE 1")


async def _live(connection: Connection) -> dict[str, dict[str, object]]:
    rows = await connection.fetch(
        "SELECT id, name, revision, spec::text AS spec FROM endpoints "
        "WHERE removed_at IS NULL ORDER BY id"
    )
    return {row["name"]: dict(row) for row in rows}


def _same(stored: object, spec: str) -> bool:
    assert isinstance(stored, str)
    return bool(orjson.loads(stored) == orjson.loads(spec))


def _registrations(
    rows: dict[str, dict[str, object]], endpoints: Sequence[EndpointConfig]
) -> list[Registration]:
    mine = {config.id: config for config in endpoints}
    found = []
    for name, row in rows.items():
        number, revision = row["id"], row["revision"]
        assert isinstance(number, int) and isinstance(revision, int)
        config = mine.get(name)
        if config is None:
            found.append(Registration(number, _from_spec(row["spec"]), held=True))
        elif config.revision < revision:
            newer = _from_spec(row["spec"]).model_copy(
                update={key: getattr(config, key) for key in _NOT_STORED}
            )
            found.append(Registration(number, newer, held=False, stale=True))
        else:
            found.append(Registration(number, config, held=False))
    return found


def _from_spec(spec: object) -> EndpointConfig:
    assert isinstance(spec, str)
    return EndpointConfig.model_validate(orjson.loads(spec))
