"""The recording side on a real database: migrated, registered, with claims and things to write.

Everything here goes through dispatcherd's own modules; what tests look at is read by SQL.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from dispatcherd.config.model import PostgresConfig
from dispatcherd.delivery import Claim, Delivery, Event, Reason, Shape
from dispatcherd.offsets import Window
from dispatcherd.record import claims, deployment, flush, migrate
from dispatcherd.record.catalogue import Catalogue
from dispatcherd.record.connection import Connection, Database
from dispatcherd.record.flush import ATTEMPT_COLUMNS
from dispatcherd.record.gathering import (
    AttemptRow,
    Change,
    Gathering,
    Operation,
    postgres_moment,
)

TYPE = "order.created"
OWED = (
    'SELECT "offset", endpoint_id, state, reason, status, attempts, cycle_start '
    'FROM deliveries ORDER BY "offset", endpoint_id'
)


class Store:
    """One process's view of the database."""

    def __init__(self, database: Database, incarnation: int, catalogue: Catalogue) -> None:
        self.database = database
        self.incarnation = incarnation
        self.catalogue = catalogue

    async def claim(self, topic: str = "orders", partition: int = 0, start: int = 0) -> Claim:
        """Claim a partition, and store its start where it has none."""
        found = await claims.claim(self.database, topic, partition, 8, self.incarnation)
        held = found[-1].claim
        if found[-1].watermark is None:
            assert await claims.store_start(self.database, held, start)
        return held

    async def fetch(self, sql: str, *arguments: object) -> list[tuple[Any, ...]]:
        """Rows as tuples, on a connection that no code under test uses."""
        async with self.database.session() as connection:
            return [tuple(row) for row in await connection.fetch(sql, *arguments)]

    async def value(self, sql: str, *arguments: object) -> Any:
        """The first column of the first row."""
        return (await self.fetch(sql, *arguments))[0][0]

    async def execute(self, sql: str, *arguments: object) -> None:
        """Run a statement."""
        async with self.database.session() as connection:
            await connection.execute(sql, *arguments)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection of its own, as the recorder has one."""
        made = await self.database.dedicated()
        await flush.prepare(made)
        try:
            yield made
        finally:
            made.terminate()


@asynccontextmanager
async def store(dsn: str, **settings: Any) -> AsyncIterator[Store]:
    """Migrate (if need be), register, learn the type; a second one on a DSN is a second process."""
    database = Database(PostgresConfig.model_validate({"dsn": dsn, "pool_size": 5, **settings}))
    await database.open()
    try:
        async with database.session() as connection:
            await migrate.migrate(connection, "dispatcherd")
            incarnation = await deployment.register(connection, "group", "cluster")
            catalogue = Catalogue(database, 100)
            await catalogue.load(connection)
        await catalogue.learn([TYPE])
        yield Store(database, incarnation, catalogue)
    finally:
        await database.close()


async def until(store: Store, sql: str, *arguments: object) -> None:
    """Until a query's first value is true."""
    async with asyncio.timeout(30):
        while not await store.value(sql, *arguments):  # noqa: ASYNC110 (Postgres calls nobody)
            await asyncio.sleep(0.01)


async def until_blocked(store: Store) -> None:
    """Until some backend waits for a lock."""
    await until(
        store,
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
        "AND datname = current_database())",
    )


def event(claim: Claim, offset: int, body: bytes = b'{"a":1}') -> Event:
    """An event of the type that `store` has learned."""
    headers = (("trace", b"\x00\xff"),)
    id_ = f"evt_{claim.topic_id}_{claim.partition}_{offset}"
    return Event(claim, offset, id_, TYPE, "1", "2026-01-01", body, headers, Shape.WHOLE)


def attempt_row(store: Store, claim: Claim, offset: int, **changed: Any) -> AttemptRow:
    """A row of `attempts`: the first one of a delivery to endpoint 1, successful."""
    values = {
        "exchange_id": offset + 1,
        "offset": offset,
        "topic_id": claim.topic_id,
        "partition": claim.partition,
        "endpoint_id": 1,
        "type_id": store.catalogue.ids[TYPE],
        "duration_us": 1_500,
        "number": 1,
        "status": 200,
        "kind": 1,
        "reason": 1,
        "sent": True,
        "webhook_id": f"evt_{offset}",
        **changed,
    }
    values.setdefault("at", postgres_moment(datetime(2026, 1, 1, tzinfo=UTC).timestamp()))
    return tuple(values[name] for name in ATTEMPT_COLUMNS)


def operation(
    delivery: Delivery, change: Change, due_in: float = 60.0, status: int = 503
) -> Operation:
    """A change of what is owed; the body goes with it when the delivery has no row yet."""
    first = not delivery.owed
    delivery.owed = True
    due = time.monotonic() + due_in
    return Operation(delivery, change, due, Reason.UNAVAILABLE, status, with_body=first)


def gathering(
    number: int,
    attempts: Iterable[AttemptRow] = (),
    operations: Sequence[Operation] = (),
    windows: Sequence[Window] = (),
) -> Gathering:
    """The frozen contents of flush `number`."""
    contents = Gathering(number=number)
    contents.attempts.extend(attempts)
    for one in operations:
        contents.put(one)
    contents.progress.extend(window.snapshot() for window in windows)
    return contents


async def write(store: Store, contents: Gathering) -> int:
    """Write a flush, on a connection of its own; the rows refused."""
    async with store.connection() as connection:
        return await flush.write(
            connection, store.incarnation, contents, time.monotonic(), store.catalogue.ids
        )


def delivery(claim: Claim, offset: int, endpoint_id: int = 1, **state: Any) -> Delivery:
    """A delivery that has no row yet, in any state."""
    made = Delivery(event(claim, offset), endpoint_id, 0.0)
    for name, value in state.items():
        setattr(made, name, value)
    return made
