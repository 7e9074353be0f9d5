"""Commands on the database: migrate, deliveries, retry, endpoints.

Invariant: works while daemons run and when none does. Leaves out: SQL (record.look).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, TypeVar

import asyncpg
import click
import orjson

from dispatcherd.cli.table import show
from dispatcherd.config.model import Config
from dispatcherd.config.secrets import postgres_password
from dispatcherd.config.show import mask_dsn
from dispatcherd.delivery import Request
from dispatcherd.errors import StoreError, StoreUnavailable
from dispatcherd.record import claims, look, registry
from dispatcherd.record import migrate as migrations
from dispatcherd.record.connection import Connection, Database, describe

T = TypeVar("T")


def with_database(
    config: Config, work: Callable[[Connection], Awaitable[T]], check_schema: bool = True
) -> T:
    """Run `work` with a connection; raises StoreUnavailable or StoreError in words."""
    password = postgres_password(config, os.environ)

    async def main() -> T:
        database = Database(config.postgres, password)
        try:
            async with database.session() as connection:
                if check_schema:
                    await migrations.check_schema(connection, config.postgres.schema_name)
                return await work(connection)
        except StoreUnavailable as error:
            where = mask_dsn(config.postgres.dsn)
            raise StoreUnavailable(
                f"{error}. Check that it runs, and postgres.dsn: {where}"
            ) from error
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise StoreError(f"Postgres refuses: {describe(error)}") from error
        finally:
            await database.close()

    return asyncio.run(main())


def migrate_schema(config: Config) -> None:
    """Apply what is missing and make the day partitions."""

    async def work(connection: Connection) -> None:
        applied = await migrations.migrate(connection, config.postgres.schema_name)
        for migration in applied:
            click.echo(f"applied {migration.number:04} {migration.name}")
        made = await migrations.make_day_partitions(
            connection, config.postgres.partitions_ahead_days
        )
        number = await migrations.schema_number(connection, config.postgres.schema_name)
        click.echo(f"schema {config.postgres.schema_name} is at version {number}; {made} new days")

    with_database(config, work, check_schema=False)


def show_deliveries(config: Config, as_json: bool, limit: int, **filters: Any) -> None:
    """A table for people, JSON lines for machines."""
    wanted = look.Wanted(**filters)

    async def work(connection: Connection) -> tuple[list[dict[str, Any]], dict[str, int]]:
        await _check_endpoint(connection, wanted)
        found = await look.deliveries(connection, wanted, limit)
        return found, await look.totals(connection, wanted)

    rows, totals = with_database(config, work)
    if as_json:
        for row in rows:
            click.echo(orjson.dumps(row, default=str).decode())
        return
    show(
        ("id", "endpoint", "type", "state", "reason", "status", "attempts", "due"),
        [
            (
                row["id"],
                row["endpoint"],
                row["type"],
                row["state"],
                row["reason"],
                str(row["status"] or "-"),
                str(row["attempts"]),
                _due(row),
            )
            for row in rows
        ],
    )
    hidden = totals["owed"] + totals["dead"] - len(rows)
    more = f"; {len(rows)} shown, --limit {len(rows) + hidden} shows all" if hidden > 0 else ""
    click.echo(f"{totals['owed']} owed, {_count(totals['dead'], 'dead letter')}{more}")


def request_deliveries(
    config: Config, as_json: bool, everything: bool, discard: bool, **filters: Any
) -> None:
    """Mark what matches; the partitions' owners do the rest."""
    wanted = look.Wanted(**filters)
    named = wanted.endpoint or wanted.event_type or wanted.webhook_id
    if everything == bool(named):
        raise click.UsageError(
            "Say which: --endpoint, --type or --id (each that is given must match); or --all."
        )

    async def work(connection: Connection) -> tuple[look.Asked, int]:
        await _check_endpoint(connection, wanted)
        asked = await look.ask(connection, wanted, Request.DISCARD if discard else Request.RETRY)
        return asked, await look.running(connection)

    asked, running = with_database(config, work)
    if as_json:
        told = {"matched": asked.count, "endpoint_removed": asked.removed, "daemons": running}
        click.echo(orjson.dumps(told).decode())
        return
    word = "will be discarded" if discard else "due now"
    click.echo(f"{_count(asked.count, 'delivery', 'deliveries')} {word}")
    if asked.removed:
        click.echo(
            f"{asked.removed} more were left alone: their endpoint is removed, and they can only "
            "be discarded"
        )
    if asked.count and not running:
        click.echo("no daemon is running: it takes effect when one starts")


async def _check_endpoint(connection: Connection, wanted: look.Wanted) -> None:
    if wanted.endpoint is not None and not await look.known_endpoint(connection, wanted.endpoint):
        raise StoreError(_no_endpoint(wanted.endpoint))


def _no_endpoint(name: str) -> str:
    return f"no endpoint {name!r} is registered. See: dispatcherd endpoints list"


def show_endpoints(config: Config, as_json: bool) -> None:
    """The registered endpoints."""
    rows = with_database(config, look.endpoints)
    if as_json:
        for row in rows:
            click.echo(orjson.dumps(row, default=str).decode())
        return
    show(
        ("endpoint", "url", "owed", "dead", "owed since"),
        [
            (
                row["endpoint"],
                row["url"],
                str(row["owed"]),
                str(row["dead"]),
                _moment(row["oldest"]) if row["oldest"] else "-",
            )
            for row in rows
        ],
    )
    click.echo(_count(len(rows), "endpoint"))


def remove_endpoint(config: Config, name: str) -> None:
    """Remove it; exit 1 when there is none of that name."""

    async def work(connection: Connection) -> bool:
        return await registry.remove(connection, name)

    if not with_database(config, work):
        raise StoreError(_no_endpoint(name))
    click.echo(f"removed {name}; what it was owed becomes dead letters (endpoint_removed)")


def adopt_topic(config: Config, topic: str | None, as_json: bool) -> None:
    """Show what owes deliveries and is nobody's; with a topic, have it sent all the same."""

    async def work(connection: Connection) -> tuple[list[claims.Orphan], int, int]:
        put_up = await claims.put_up(connection, topic) if topic is not None else 0
        return await claims.orphans(connection), put_up, await look.running(connection)

    orphans, put_up, running = with_database(config, work)
    if as_json:
        for orphan in orphans:
            click.echo(orjson.dumps(orphan).decode())
        return
    if topic is not None and not put_up:
        raise StoreError(f"no partition of a topic {topic!r} owes anything. See: dispatcherd adopt")
    for orphan in orphans:
        mark = ", up for adoption" if orphan.adopted else ""
        click.echo(f"{orphan.topic}/{orphan.partition}: {orphan.owed:,} owed{mark}")
    if topic is not None:
        click.echo(f"{_count(put_up, 'partition')} of {topic} put up for adoption")
        if not running:
            click.echo("no daemon is running: it takes effect when one starts")
    elif not orphans:
        click.echo("every partition that owes something is being worked on")


def _due(row: dict[str, Any]) -> str:
    if row["request"]:
        return f"({row['request']} asked for)"
    return "-" if row["state"] == "dead" else _moment(row["due"])


def _moment(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%SZ")


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
