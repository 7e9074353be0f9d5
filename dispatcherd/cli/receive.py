"""`dispatcherd receive`: the local endpoint in the foreground, until Ctrl-C.

Invariant: what it prints and saves is whole lines; the file is for its owner only, because bodies
may be private. Leaves out: the endpoint itself (tools.server).
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import click
import orjson

from dispatcherd.cli.options import plain
from dispatcherd.errors import DispatcherdError
from dispatcherd.receiver.signing import new_secret
from dispatcherd.tools.diagnose import Scheme
from dispatcherd.tools.inbox import Received
from dispatcherd.tools.manner import Manner
from dispatcherd.tools.server import Endpoint, serving
from dispatcherd.tools.sources import DEFAULT, SourceError, read_secrets

_VARIABLE = DEFAULT.removeprefix("env:")


class CannotSave(DispatcherdError):
    """The file for requests cannot be written."""


def run(
    port: int,
    sources: tuple[str, ...],
    status: int,
    retry_after: str,
    delay: float,
    drop: bool,
    first: int,
    fail_members: int,
    accept_all: bool,
    tolerance: float,
    prefix: str,
    hex_header: str | None,
    save: str | None,
    as_json: bool,
) -> None:
    """Receive until SIGINT or SIGTERM. Raises UsageError, CannotListen, CannotSave."""
    fresh = None if sources or os.environ.get(_VARIABLE) else new_secret()
    try:
        secrets = [fresh] if fresh is not None else read_secrets(sources, os.environ)
    except SourceError as error:
        raise click.UsageError(str(error)) from error
    manner = Manner(
        status=status,
        retry_after=retry_after,
        delay_seconds=delay,
        drop=drop,
        first=first,
        fail_members=fail_members,
        check="accept" if accept_all else "refuse",
    )
    scheme = Scheme(tolerance, prefix.lower().removesuffix("-"), hex_header)
    with _saving(save) as keep:

        def told(received: Received) -> None:
            keep(received)
            _print(received, as_json)

        endpoint = Endpoint(secrets, scheme, manner, told)
        asyncio.run(_serve(endpoint, port, fresh))


async def _serve(endpoint: Endpoint, port: int, fresh: str | None) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serving(endpoint, port) as url:
        click.echo(f"webhooks to {url} (any path), the page at the same address", err=True)
        if fresh is not None:
            click.echo(
                f"no secret was given, so this one was made for now:\n  export {_VARIABLE}={fresh}",
                err=True,
            )
        click.echo(f"try it: dispatcherd send-test {url}   (Ctrl-C ends)", err=True)
        await stop.wait()


@contextmanager
def _saving(path: str | None) -> Iterator[Callable[[Received], None]]:
    if path is None:
        yield lambda received: None
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    except OSError as error:
        raise CannotSave(f"{path} cannot be written: {error.strerror}") from error
    with os.fdopen(descriptor, "ab", buffering=0) as file:
        yield lambda received: _append(file, received)


def _append(file: Any, received: Received) -> None:
    try:
        file.write(orjson.dumps(received.document(), option=orjson.OPT_APPEND_NEWLINE))
    except OSError as error:  # a full disk is no reason to stop receiving
        click.echo(f"{file.name} could not be written: {error.strerror}", err=True)


def _print(received: Received, as_json: bool) -> None:
    if as_json:
        click.echo(orjson.dumps(received.document()))
        return
    found = received.found
    when = datetime.fromtimestamp(received.at).strftime("%H:%M:%S")
    what = received.types[0] if received.types and received.types[0] else received.path
    if received.members:
        what = f"batch of {len(received.members)}"
    again = f"  ({received.seen}× this id)" if received.seen > 1 else ""
    click.echo(
        plain(
            f"{when}  {'verified    ' if found.ok else 'NOT VERIFIED'}  {received.answer:>7}  "
            f"{what}  {found.id or '(no id)'}{again}"
        )
    )
    for finding in found.findings:
        click.echo(plain(f"          {finding.code}: {finding.says}"))
