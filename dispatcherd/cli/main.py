"""The commands, and what their exit codes mean.

0: done. 1: it failed, for a reason outside the configuration. 2: the command line or the
configuration is wrong. Leaves out: what each command does (the modules beside this one).
"""

from __future__ import annotations

import os
import sys
import time
from importlib.util import find_spec
from typing import Any

import click

from dispatcherd import __version__
from dispatcherd.cli.keys import facts, keys
from dispatcherd.cli.options import (
    CATALOGUE_OPTION,
    CONFIG_OPTION,
    JSON_OPTION,
    explained,
    read_config,
)
from dispatcherd.cli.receiving import conformance, receive, send_test
from dispatcherd.cli.verify import verify
from dispatcherd.errors import ConfigError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def cli() -> None:
    """Webhooks out of Kafka: signed, retried, recorded in Postgres."""


@cli.command()
@CONFIG_OPTION
@explained
def run(config_path: str | None) -> None:
    """Run the daemon."""
    from dispatcherd.cli.run import run_daemon

    sys.exit(run_daemon(config_path))


@cli.command("check-config")
@CONFIG_OPTION
@click.option("--no-secrets", is_flag=True, help="Do not try to read the secrets.")
@click.option("--no-credentials", is_flag=True, help="Of the secrets, leave out systemd's.")
@click.option("--quiet", is_flag=True, help="Say only what is wrong.")
@explained
def check_config(
    config_path: str | None, no_secrets: bool, no_credentials: bool, quiet: bool
) -> None:
    """Check a configuration and print it as it is in force, secrets masked."""
    from dispatcherd.admin.facts import unpublished
    from dispatcherd.config.check import check_runnable
    from dispatcherd.config.secrets import load_secrets
    from dispatcherd.config.show import effective
    from dispatcherd.conformity import Rules

    config = read_config(config_path)
    problems = check_runnable(config)
    if problems:
        raise ConfigError(problems)
    notes = []
    if not no_secrets:
        secrets = load_secrets(config, os.environ, credentials=not no_credentials)
        notes = [
            f"endpoint {name} signs with an Ed25519 key that facts.keys does not list as in force "
            "now: receivers that trust the published keys refuse it"
            for name in unpublished(config, secrets.endpoint_keys, time.time())
        ]
    rules = Rules.of(config.catalogue)
    if quiet:
        return
    click.echo(effective(config), nl=False)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    plural = "" if len(config.endpoints) == 1 else "s"
    click.echo(f"ok: {len(config.endpoints)} endpoint{plural}", err=True)
    if not config.endpoints:
        click.echo("note: endpoints is empty: every event is settled unsent", err=True)
    if rules is not None:
        click.echo(f"ok: {rules.types} event types in {config.catalogue.path}", err=True)


@cli.command()
@CONFIG_OPTION
@explained
def migrate(config_path: str | None) -> None:
    """Bring the database schema up to date. Safe to run twice, and from two hosts at once."""
    from dispatcherd.cli.operate import migrate_schema

    migrate_schema(read_config(config_path))


@cli.command()
@CONFIG_OPTION
@click.option("--endpoint", help="Only this endpoint.")
@click.option(
    "--state", type=click.Choice(["owed", "dead", "all"]), default="all", show_default=True
)
@click.option("--type", "event_type", help="Only this event type.")
@click.option("--id", "webhook_id", help="Only this webhook id.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 100_000))
@JSON_OPTION
@explained
def deliveries(config_path: str | None, as_json: bool, **filters: Any) -> None:
    """Show what is owed and what is a dead letter."""
    from dispatcherd.cli.operate import show_deliveries

    show_deliveries(read_config(config_path), as_json=as_json, **filters)


@cli.command()
@CONFIG_OPTION
@click.option("--endpoint", help="All of this endpoint.")
@click.option(
    "--state",
    type=click.Choice(["owed", "dead", "all"]),
    help="Default: dead; with --id: all.",
)
@click.option("--type", "event_type", help="All of this event type.")
@click.option("--id", "webhook_id", help="The one with this webhook id (at every endpoint).")
@click.option("--all", "everything", is_flag=True, help="All in that state.")
@click.option("--discard", is_flag=True, help="Give them up instead of retrying.")
@JSON_OPTION
@explained
def retry(config_path: str | None, as_json: bool, **filters: Any) -> None:
    """Make deliveries due now: one, or all that match. Takes effect at once while a daemon runs,
    and otherwise when one starts."""
    from dispatcherd.cli.operate import request_deliveries

    if filters["state"] is None:
        filters["state"] = "dead" if filters["webhook_id"] is None else "all"
    request_deliveries(read_config(config_path), as_json=as_json, **filters)


@cli.group()
def endpoints() -> None:
    """Registered endpoints."""


@endpoints.command("list")
@CONFIG_OPTION
@JSON_OPTION
@explained
def endpoints_list(config_path: str | None, as_json: bool) -> None:
    """Show the registered endpoints and what is owed to each."""
    from dispatcherd.cli.operate import show_endpoints

    show_endpoints(read_config(config_path), as_json=as_json)


@endpoints.command("remove")
@CONFIG_OPTION
@click.argument("name")
@explained
def endpoints_remove(config_path: str | None, name: str) -> None:
    """Remove an endpoint for good; what it is owed becomes dead letters (endpoint_removed)."""
    from dispatcherd.cli.operate import remove_endpoint

    remove_endpoint(read_config(config_path), name)


@cli.command()
@CONFIG_OPTION
@click.argument("topic", required=False)
@JSON_OPTION
@explained
def adopt(config_path: str | None, topic: str | None, as_json: bool) -> None:
    """Show partitions that owe deliveries and that no daemon works on, because their topic is not
    subscribed to any more; with a TOPIC, have a running daemon send what it owes."""
    from dispatcherd.cli.operate import adopt_topic

    adopt_topic(read_config(config_path), topic, as_json)


@cli.command()
@CONFIG_OPTION
@click.option("--bootstrap", help="host:port of a broker; default: the configuration's.")
@click.option("--topic", required=True)
@click.option(
    "--file",
    "path",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    help="JSON lines; - for stdin.",
)
@click.option("--key", help="Kafka key of every event; default: none.")
@click.argument("events", nargs=-1)
@explained
def publish(
    config_path: str | None,
    bootstrap: str | None,
    topic: str,
    path: str | None,
    key: str | None,
    events: tuple[str, ...],
) -> None:
    """Publish events (JSON) from arguments, a file or stdin to a topic."""
    from dispatcherd.cli.publish import publish_events

    publish_events(read_config(config_path), bootstrap, topic, path, key, events)


@cli.group()
def events() -> None:
    """The event catalogue: which event types there are, and what their data looks like."""


@events.command("list")
@CONFIG_OPTION
@CATALOGUE_OPTION
@JSON_OPTION
@explained
def events_list(config_path: str | None, path: str | None, as_json: bool) -> None:
    """Show the event types."""
    from dispatcherd.cli.events import directory, list_types

    list_types(directory(config_path, path), as_json)


@events.command("show")
@CONFIG_OPTION
@CATALOGUE_OPTION
@click.argument("event_type", metavar="TYPE")
@click.option("--version", help="Default: the newest that is not deprecated.")
@JSON_OPTION
@explained
def events_show(
    config_path: str | None, path: str | None, event_type: str, version: str | None, as_json: bool
) -> None:
    """Show an event type: its fields, and an example of its data."""
    from dispatcherd.cli.events import directory, show_type

    show_type(directory(config_path, path), event_type, version, as_json)


@events.command("check")
@CONFIG_OPTION
@CATALOGUE_OPTION
@click.option("--against", metavar="REF", help="An earlier state: a directory, or a git commit.")
@JSON_OPTION
@explained
def events_check(
    config_path: str | None, path: str | None, against: str | None, as_json: bool
) -> None:
    """Check the catalogue: schemas and examples valid, every field described; with --against, that
    no version was changed in a way that hurts receivers or producers."""
    from dispatcherd.cli.events import check, directory

    sys.exit(check(directory(config_path, path, sample=False), against, as_json))


@events.command("render")
@CONFIG_OPTION
@CATALOGUE_OPTION
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=click.Choice(["html", "markdown", "asyncapi", "openapi"]),
    help="May be given several times; default: all.",
)
@click.option("--out", required=True, type=click.Path(file_okay=False), help="A directory.")
@click.option("--title", default="Webhook events", show_default=True)
@click.option("--document-version", default="1.0.0", show_default=True)
@click.option("--bare", is_flag=True, help="Bodies are the bare data, without an envelope.")
@explained
def events_render(
    config_path: str | None,
    path: str | None,
    formats: tuple[Any, ...],
    out: str,
    title: str,
    document_version: str,
    bare: bool,
) -> None:
    """Write the catalogue as documents for those who receive the events: a page of HTML, Markdown,
    AsyncAPI 3.0, OpenAPI 3.1."""
    from dispatcherd.cli.events import directory, render
    from dispatcherd.events.render import About

    render(directory(config_path, path), formats, out, About(title, document_version, bare))


@cli.command()
@click.option("--keep", is_flag=True, help="Leave everything running until Ctrl-C.")
@click.option("--events", default=3_000, show_default=True, type=click.IntRange(100, 200_000))
@explained
def demo(keep: bool, events: int) -> None:
    """See it work: embedded Kafka and Postgres, local receivers, a few thousand events."""
    from dispatcherd.demo.main import run_demo

    sys.exit(run_demo(events=events, keep=keep))


for other in (keys, facts, verify, send_test, receive, conformance):
    cli.add_command(other)


@cli.command()
def version() -> None:
    """Print the version, and whether the hot modules are compiled."""
    hot = find_spec("dispatcherd.send")
    plain = hot is None or (hot.origin or "").endswith(".py")
    click.echo(f"dispatcherd {__version__}{'' if plain else ' (compiled)'}")


def main() -> None:
    """Entry point of the console command."""
    cli(prog_name="dispatcherd")
