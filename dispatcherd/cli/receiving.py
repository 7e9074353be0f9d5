"""The commands for whoever receives: their options. `verify` has a module of its own.

Leaves out: what they do (send_test, receive, conformance).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from dispatcherd.cli.options import CONFIG_OPTION, JSON_OPTION, explained
from dispatcherd.cli.verify import SECRET_OPTION

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
_CATALOGUE_OPTION = click.option(
    "--catalogue",
    "catalogue_path",
    type=click.Path(file_okay=False),
    help="The directory of the catalogue; default: the configuration's, or the demo's.",
)


def _whole(name: str, default: int, bounds: tuple[int, int], words: str) -> _Decorator:
    """A whole number within bounds; its default is shown."""
    kind = click.IntRange(*bounds)
    return click.option(name, default=default, type=kind, show_default=True, help=words)


def _seconds(name: str, default: float, least: float, words: str) -> _Decorator:
    """Seconds, five minutes at the most; their default is shown."""
    kind = click.FloatRange(least, 300)
    return click.option(name, default=default, type=kind, show_default=True, help=words)


def _shifted(name: str, words: str) -> _Decorator:
    """Seconds by which the clock of the signature is wrong; without a number an hour."""
    return click.option(
        name,
        type=click.FloatRange(min=1),
        is_flag=False,
        flag_value=3_600.0,
        metavar="[SECONDS]",
        help=words,
    )


@click.command("send-test")
@CONFIG_OPTION
@click.argument("url", required=False)
@click.option("--endpoint", help="Secrets, headers and URL of this endpoint of the configuration.")
@SECRET_OPTION
@click.option("--type", "event_type", help="An event type of the catalogue, with its example.")
@click.option("--version", help="Of the type; default: the newest that is not deprecated.")
@_CATALOGUE_OPTION
@click.option("--data", help="The event's data instead of the example: JSON, or @FILE.")
@click.option(
    "--file",
    "path",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="A whole event, byte for byte; - for stdin.",
)
@click.option("--batch", type=click.IntRange(1, 1_000), help="A batch of so many events.")
@_whole("--repeat", 1, (1, 1_000), "Send it so often, as repeated attempts with the same id.")
@click.option("--tamper", is_flag=True, help="Change the body after signing.")
@_shifted("--stale", "Sign it as so long ago (3600).")
@_shifted("--future", "Sign it as so far ahead (3600).")
@click.option("--unsigned", is_flag=True, help="Leave the signature out.")
@click.option("--hex-header", help="Also send the older hex form in this header.")
@click.option("--timeout", default=None, type=click.FloatRange(0.01, 300), help="Seconds [15].")
@JSON_OPTION
@explained
def send_test(
    tamper: bool, stale: float | None, future: float | None, unsigned: bool, **options: Any
) -> None:
    """Send a signed example event to a URL; show what was sent and what came back.

    The URL may be any, also on this host: the checks of addresses are the daemon's. With --tamper,
    --stale, --future or --unsigned the receiver is expected to refuse (4xx).
    """
    from dispatcherd.cli.send_test import Breakage, run

    if stale is not None and future is not None:
        raise click.UsageError("A request is stale or in the future, not both.")
    broken = Breakage(tamper, (stale or 0) - (future or 0), unsigned)
    sys.exit(0 if run(broken=broken, **options) else 1)


@click.command()
@_whole("--port", 8_000, (0, 65_535), "0: any free port.")
@click.option(
    "--secret",
    "sources",
    multiple=True,
    metavar="SOURCE",
    help="env:NAME or file:PATH, or a public key (whpk_…); several while one is rotated. "
    "Default: env:WEBHOOK_SECRET, and where that is not set a new one, which is printed.",
)
@_whole("--status", 200, (200, 599), "Answer so.")
@click.option("--retry-after", default="", help="With this header: seconds, or a date.")
@_seconds("--delay", 0.0, 0, "So many seconds later.")
@click.option("--drop", is_flag=True, help="Close the connection instead of answering.")
@_whole("--first", 0, (0, 1_000), "All this only for so many attempts of each id (0: always).")
@_whole("--fail-members", 0, (0, 1_000), "Name every n-th member of a batch as failed (0: none).")
@click.option("--accept-all", is_flag=True, help="Do not refuse what does not verify.")
@click.option("--tolerance", default=300.0, type=click.FloatRange(min=1), help="Seconds.")
@click.option("--prefix", default="webhook", help="Of the three headers, such as svix.")
@click.option("--hex-header", help="Check the older hex form, in this header, instead.")
@click.option("--save", type=click.Path(dir_okay=False), help="Append each request as JSON.")
@JSON_OPTION
@explained
def receive(**options: Any) -> None:
    """A local endpoint that verifies, shows and keeps what arrives, with a page in the browser.

    It listens on 127.0.0.1 only. How it answers can also be changed on the page.
    """
    from dispatcherd.cli.receive import run

    run(**options)


@click.command()
@CONFIG_OPTION
@click.argument("url")
@SECRET_OPTION
@click.option(
    "--processed-url",
    help="Where the receiver lists what it processed: "
    '{"processed": [ids]}, each id as often as it was processed.',
)
@click.option("--type", "event_type", help="An event type of the catalogue; default: a ping.")
@_CATALOGUE_OPTION
@_seconds("--timeout", 15.0, 0.01, "Seconds for an answer.")
@_whole("--requests", 50, (1, 1_000), "Genuine requests in a row, for the time of answers.")
@_whole("--large-bytes", 1_000_000, (1_000, 1_048_576), "Size of the large body.")
@click.option("--no-batches", is_flag=True, help="The endpoint gets no batches.")
@_seconds("--settle", 5.0, 0, "Seconds that work in the background may take.")
@JSON_OPTION
@explained
def conformance(
    timeout: float, requests: int, large_bytes: int, no_batches: bool, **options: Any
) -> None:
    """Check a receiver: does it verify, deduplicate, answer in time, survive what it does not know.

    It gets some hundred requests with events that never happened: check a test instance. Without
    --processed-url nobody can see whether an event was processed once.
    """
    from dispatcherd.cli.conformance import run
    from dispatcherd.tools.conformance import Limits

    limits = Limits(timeout, requests, large_bytes, not no_batches)
    sys.exit(0 if run(limits=limits, **options) else 1)
