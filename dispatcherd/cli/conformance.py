"""`dispatcherd conformance`: every check of a receiver, shown as it ends.

Exit codes: 0 nothing failed; 1 a check failed; 2 the command line is wrong. Leaves out: the checks
(tools.conformance).
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import click
import orjson

from dispatcherd.cli.events import directory
from dispatcherd.cli.options import plain
from dispatcherd.errors import UnknownEvent
from dispatcherd.events import envelope, load
from dispatcherd.keys import parse_key
from dispatcherd.receiver.signing import new_key_pair, new_secret
from dispatcherd.sign import Signer
from dispatcherd.tools.client import NoUrl, check_url, client
from dispatcherd.tools.compose import new_id, ping, rfc3339
from dispatcherd.tools.conformance import Limits, Result, examine
from dispatcherd.tools.probe import Probe
from dispatcherd.tools.sources import SourceError, read_secrets

_PATIENCE = 3
"""So many times the allowed time is waited for an answer, so that a slow receiver is seen to be
slow, and not to be wrong in everything."""
_WORDS = {True: "ok", False: "FAILED", None: "-"}


def run(
    url: str,
    sources: tuple[str, ...],
    processed_url: str | None,
    event_type: str | None,
    catalogue_path: str | None,
    config_path: str | None,
    settle: float,
    limits: Limits,
    as_json: bool,
) -> bool:
    """Whether no check failed. Raises UsageError."""
    try:
        for each in (url, *filter(None, [processed_url])):
            check_url(each)
        signers = _signers(sources)
        template = ping(time.time())
        if event_type is not None:
            found = load(directory(config_path, catalogue_path)).event(event_type)
            template = envelope(found, new_id(), rfc3339(time.time()))
    except (SourceError, NoUrl, UnknownEvent) as error:
        raise click.UsageError(str(error)) from error

    async def work() -> list[Result]:
        async with client(limits.timeout_seconds * _PATIENCE, connections=5) as asking:
            probe = Probe(asking, url, signers, template, processed_url, settle)
            return await examine(probe, limits, (lambda result: None) if as_json else _show)

    results = asyncio.run(work())
    counts = {
        word: sum(result.verdict.passed is passed for result in results)
        for word, passed in (("passed", True), ("failed", False), ("not_looked", None))
    }
    if as_json:
        click.echo(orjson.dumps(_document(url, counts, results), option=orjson.OPT_INDENT_2))
    else:
        click.echo(
            f"\n{counts['passed']} passed, {counts['failed']} failed, "
            f"{counts['not_looked']} not looked at"
        )
    return counts["failed"] == 0


def _signers(sources: tuple[str, ...]) -> tuple[Signer, Signer]:
    """The receiver's, and a stranger's of the same kind."""
    try:
        keys = [parse_key(secret) for secret in read_secrets(sources, os.environ)]
    except ValueError as error:
        raise SourceError(f"the secret cannot sign: {error}") from error
    other = new_secret() if isinstance(keys[0], bytes) else new_key_pair()[0]
    return Signer(keys), Signer([parse_key(other)])


def _show(result: Result) -> None:
    verdict = result.verdict
    line = f"{_WORDS[verdict.passed]:<7} {result.name:<24} {result.claim}"
    if verdict.passed:
        click.echo(plain(f"{line} ({verdict.detail})"))
    else:
        click.echo(plain(f"{line}\n{'':<8}{verdict.detail}"))


def _document(url: str, counts: dict[str, int], results: list[Result]) -> dict[str, Any]:
    return {
        "url": url,
        **counts,
        "checks": [
            {
                "name": result.name,
                "claim": result.claim,
                "passed": result.verdict.passed,
                "detail": result.verdict.detail,
            }
            for result in results
        ],
    }
