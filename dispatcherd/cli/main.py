"""The commands, and what their exit codes mean.

0: done. 1: it failed, for a reason outside the configuration. 2: the command line or the
configuration is wrong. Leaves out: what each command does (the modules beside this one).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from importlib.util import find_spec
from typing import Any

import click

from dispatcherd import __version__
from dispatcherd.config.model import Config
from dispatcherd.errors import ConfigError, DispatcherdError

CONFIG_OPTION = click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False),
    envvar="DISPATCHERD_CONFIG",
    help="Path of config.yaml (or $DISPATCHERD_CONFIG).",
)
_MOST_PROBLEMS = 50
JSON_OPTION = click.option(
    "--json", "as_json", is_flag=True, help="One JSON document or line each."
)


def explained(command: Callable[..., Any]) -> Callable[..., Any]:
    """Errors that are meant for a person are printed, and become exit codes."""

    @wraps(command)
    def run(*args: Any, **options: Any) -> Any:
        try:
            return command(*args, **options)
        except ConfigError as error:
            for problem in error.problems[:_MOST_PROBLEMS]:
                _complain(f"config: {problem}")
            if len(error.problems) > _MOST_PROBLEMS:
                _complain(f"config: {len(error.problems)} problems in all")
            sys.exit(2)
        except DispatcherdError as error:
            _complain(f"dispatcherd: {error}")
            sys.exit(1)
        except KeyboardInterrupt:
            sys.exit(130)

    return run


def _complain(text: str) -> None:
    from dispatcherd.log import under_journald

    click.echo(("<3>" if under_journald(sys.stderr, os.environ) else "") + text, err=True)


def read_config(path: str | None) -> Config:
    """The configuration of a command; without a path, defaults and environment."""
    from dispatcherd.config.load import load_config

    return load_config(path, os.environ)


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
    from dispatcherd.config.check import check_runnable
    from dispatcherd.config.secrets import load_secrets
    from dispatcherd.config.show import effective

    config = read_config(config_path)
    problems = check_runnable(config)
    if problems:
        raise ConfigError(problems)
    if not no_secrets:
        load_secrets(config, os.environ, credentials=not no_credentials)
    if quiet:
        return
    click.echo(effective(config), nl=False)
    plural = "" if len(config.endpoints) == 1 else "s"
    click.echo(f"ok: {len(config.endpoints)} endpoint{plural}", err=True)
    if not config.endpoints:
        click.echo("note: endpoints is empty: every event is settled unsent", err=True)


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


@cli.command()
@click.option("--keep", is_flag=True, help="Leave everything running until Ctrl-C.")
@click.option("--events", default=3_000, show_default=True, type=click.IntRange(100, 200_000))
@explained
def demo(keep: bool, events: int) -> None:
    """See it work: embedded Kafka and Postgres, local receivers, a few thousand events."""
    from dispatcherd.demo.main import run_demo

    sys.exit(run_demo(events=events, keep=keep))


@cli.command()
def version() -> None:
    """Print the version, and whether the hot modules are compiled."""
    hot = find_spec("dispatcherd.send")
    plain = hot is None or (hot.origin or "").endswith(".py")
    click.echo(f"dispatcherd {__version__}{'' if plain else ' (compiled)'}")


def main() -> None:
    """Entry point of the console command."""
    cli(prog_name="dispatcherd")
