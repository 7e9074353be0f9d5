"""Commands on the database: migrate, deliveries, retry, endpoints.

Invariant: works while daemons run and when none does. Leaves out: SQL (record.look).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, TypeVar

import click
import orjson
from rich.console import Console
from rich.table import Table

from dispatcherd.config.model import Config
from dispatcherd.config.secrets import load_secrets
from dispatcherd.delivery import Request
from dispatcherd.errors import ConfigError, ConfigProblem, StoreError
from dispatcherd.record import look, registry
from dispatcherd.record import migrate as migrations
from dispatcherd.record.connection import Connection, Database

T = TypeVar("T")


def with_database(
    config: Config, work: Callable[[Connection], Awaitable[T]], check_schema: bool = True
) -> T:
    """Run `work` with a connection; raises StoreUnavailable or StoreError in words."""
    bare = config.model_copy(update={"endpoints": []})  # their secrets are of no use here
    secrets = load_secrets(bare, os.environ)

    async def main() -> T:
        database = Database(config.postgres, secrets.postgres_password)
        try:
            async with database.session() as connection:
                if check_schema:
                    await migrations.check_schema(connection, config.postgres.schema_name)
                return await work(connection)
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
        found = await look.deliveries(connection, wanted, limit)
        return found, await look.totals(connection, wanted)

    rows, totals = with_database(config, work)
    if as_json:
        for row in rows:
            click.echo(orjson.dumps(row, default=str).decode())
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("id", "endpoint", "type", "state", "reason", "status", "attempts", "due"):
        table.add_column(column, no_wrap=column in ("id", "state"))
    for row in rows:
        due = "-" if row["state"] == "dead" else _moment(row["due"])
        if row["request"]:
            due = f"{row['request']} asked for"
        table.add_row(
            row["id"],
            row["endpoint"],
            row["type"],
            row["state"],
            row["reason"],
            str(row["status"] or "-"),
            str(row["attempts"]),
            due,
        )
    console = Console(width=None if os.isatty(1) else 160)
    if rows:
        console.print(table)
    console.print(f"{totals['owed']} owed, {totals['dead']} dead letters; {len(rows)} shown")


def request_deliveries(
    config: Config, as_json: bool, everything: bool, discard: bool, **filters: Any
) -> None:
    """Mark what matches; the partitions' owners do the rest."""
    wanted = look.Wanted(**filters)
    if not (everything or wanted.endpoint or wanted.event_type or wanted.webhook_id):
        raise ConfigError(
            [
                ConfigProblem(
                    "retry",
                    "(no filter)",
                    "it would match everything",
                    "Give --endpoint, --type or --id, or say --all",
                )
            ]
        )

    async def work(connection: Connection) -> tuple[int, int]:
        asked = await look.ask(connection, wanted, Request.DISCARD if discard else Request.RETRY)
        return asked, await look.running(connection)

    asked, running = with_database(config, work)
    if as_json:
        click.echo(orjson.dumps({"matched": asked, "daemons": running}).decode())
        return
    word = "to be discarded" if discard else "due now"
    click.echo(f"{asked} deliveries {word}")
    if asked and not running:
        click.echo("no daemon is running: it takes effect when one starts")


def show_endpoints(config: Config, as_json: bool) -> None:
    """The registered endpoints."""
    rows = with_database(config, look.endpoints)
    if as_json:
        for row in rows:
            click.echo(orjson.dumps(row, default=str).decode())
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("endpoint", "url", "owed", "dead", "owed since"):
        table.add_column(column)
    for row in rows:
        since = _moment(row["oldest"]) if row["oldest"] else "-"
        table.add_row(row["endpoint"], row["url"], str(row["owed"]), str(row["dead"]), since)
    Console(width=None if os.isatty(1) else 160).print(table)


def remove_endpoint(config: Config, name: str) -> None:
    """Remove it; exit 1 when there is none of that name."""

    async def work(connection: Connection) -> bool:
        return await registry.remove(connection, name)

    if not with_database(config, work):
        raise StoreError(f"no endpoint {name!r} is registered. See: dispatcherd endpoints list")
    click.echo(f"removed {name}; what it was owed becomes dead letters (endpoint_removed)")


def _moment(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%SZ")
