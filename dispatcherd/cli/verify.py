"""`dispatcherd verify`: is a request genuine, and if not, what is wrong with it.

Exit codes: 0 it verifies; 1 it does not; 2 what was given cannot be read. Leaves out: the reasons
(tools.diagnose).
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dispatcherd.cli.options import JSON_OPTION, explained, plain

if TYPE_CHECKING:
    from dispatcherd.tools.diagnose import Diagnosis
    from dispatcherd.tools.message import Message

_MOST_BYTES = 64 * 1_048_576

SECRET_OPTION = click.option(
    "--secret",
    "sources",
    multiple=True,
    metavar="SOURCE",
    help="env:NAME or file:PATH, or a public key (whpk_…); several while one is rotated. "
    "Default: env:WEBHOOK_SECRET.",
)


@click.command()
@click.option("-H", "--header", "lines", multiple=True, help="One header: 'Name: value'.")
@click.option(
    "--headers",
    "headers_path",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="A file of headers: lines as pasted from anywhere, or JSON.",
)
@click.option(
    "--body",
    "body_path",
    type=click.Path(dir_okay=False, allow_dash=True),
    default="-",
    help="The file of the body, byte for byte; default: stdin.",
)
@click.option(
    "--request",
    "request_path",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="A file of a whole request: HTTP as text, or a line of `receive --save`.",
)
@SECRET_OPTION
@click.option("--at", default="now", help="now, request (ignore the age), or Unix seconds.")
@click.option("--tolerance", default=300.0, type=click.FloatRange(min=1), help="Seconds.")
@click.option("--prefix", default="webhook", help="Of the three headers, such as svix.")
@click.option("--hex-header", help="Check the older hex form, in this header, instead.")
@click.option("--computed", metavar="VALUE", help="Explain a signature that your code computed.")
@JSON_OPTION
@explained
def verify(
    lines: tuple[str, ...],
    headers_path: str | None,
    body_path: str,
    request_path: str | None,
    sources: tuple[str, ...],
    at: str,
    tolerance: float,
    prefix: str,
    hex_header: str | None,
    computed: str | None,
    as_json: bool,
) -> None:
    """Verify a request, or say exactly what is wrong with it."""
    from dispatcherd.tools.diagnose import Scheme, diagnose, explain_value
    from dispatcherd.tools.message import MessageError
    from dispatcherd.tools.sources import SourceError, read_secrets

    try:
        secrets = read_secrets(sources, os.environ)
        message = _message(lines, headers_path, body_path, request_path)
    except (SourceError, MessageError) as error:
        raise click.UsageError(str(error)) from error
    scheme = Scheme(tolerance, prefix.lower().removesuffix("-"), hex_header)
    if computed is not None:
        found = explain_value(computed, message, secrets, scheme)
    else:
        found = diagnose(message, secrets, _moment(at, message, scheme.prefix), scheme)
    _show(found, as_json, "the computed value" if computed is not None else "the request")
    sys.exit(0 if found.ok else 1)


def _moment(at: str, message: Message, prefix: str) -> float:
    if at == "now":
        return time.time()
    if at == "request":
        stamps = [v for n, v in message.headers if n.lower() == f"{prefix}-timestamp"]
        return float(stamps[0]) if stamps and stamps[0].strip().isdigit() else time.time()
    try:
        return float(at)
    except ValueError:
        raise click.UsageError(f"--at is now, request or Unix seconds, not {at!r}.") from None


def _message(
    lines: tuple[str, ...], headers_path: str | None, body_path: str, request_path: str | None
) -> Message:
    from dispatcherd.tools.message import Message, read_headers, read_request

    if request_path is not None:
        if lines or headers_path is not None or body_path != "-":
            raise click.UsageError("--request holds headers and body: give nothing beside it.")
        return read_request(read_bytes(request_path))
    headers = read_headers("\n".join(lines)) if lines else ()
    if headers_path is not None:
        if headers_path == body_path == "-":
            raise click.UsageError("Headers and body cannot both come from stdin.")
        headers += read_headers(read_bytes(headers_path).decode("utf-8", "replace"))
    if not headers:
        raise click.UsageError("Give the headers: -H 'Name: value', --headers or --request.")
    if body_path == "-" and sys.stdin.isatty():
        raise click.UsageError("Give the body: --body FILE, or on stdin.")
    return Message(headers, read_bytes(body_path))


def read_bytes(path: str) -> bytes:
    """A file's bytes, or stdin's for -, to a bound. Raises UsageError."""
    try:
        if path == "-":
            content = sys.stdin.buffer.read(_MOST_BYTES + 1)
        else:
            with Path(path).open("rb") as file:
                content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise click.UsageError(f"{path} cannot be read: {error.strerror}.") from error
    if len(content) > _MOST_BYTES:
        raise click.UsageError(f"{path} is larger than 64 MiB.")
    return content


def _show(found: Diagnosis, as_json: bool, what: str) -> None:
    if as_json:
        from dataclasses import asdict

        import orjson

        click.echo(orjson.dumps(asdict(found)))
        return
    if found.ok:
        age = "" if found.age_seconds is None else f", signed {_ago(found.age_seconds)}"
        click.echo(plain(f"ok: {what} verifies ({found.id}{age})"))
    else:
        click.echo(f"not ok: {what} does not verify")
    for finding in found.findings:
        click.echo(plain(f"\n  {finding.code}: {finding.says}.\n      {finding.remedy}."))
    if found.notes:
        click.echo()
    for note in found.notes:
        click.echo(f"  note: {note}")


def _ago(age_seconds: float) -> str:
    return f"{age_seconds:.0f} s ago" if age_seconds >= 0 else f"{-age_seconds:.0f} s ahead"
