"""`dispatcherd send-test`: one signed example to any URL, and what came of it.

Exit codes: 0 the receiver did what it should (took a genuine request, refused a broken one); 1 it
did not; 2 the command line is wrong. Leaves out: making the request (tools.compose).
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from dataclasses import dataclass
from typing import Any

import click
import orjson

from dispatcherd.batch import failed_members
from dispatcherd.cli.events import directory
from dispatcherd.cli.options import plain, read_config
from dispatcherd.cli.verify import read_bytes
from dispatcherd.config.model import EndpointConfig, RetryConfig
from dispatcherd.config.secrets import Access, load_secrets
from dispatcherd.delivery import Event, Outcome, OutcomeKind, Reason, RetryPolicy
from dispatcherd.errors import UnknownEvent
from dispatcherd.events import envelope as example_of
from dispatcherd.events import load
from dispatcherd.keys import parse_key
from dispatcherd.outcome import decide, failed
from dispatcherd.sign import Signer
from dispatcherd.tools import compose
from dispatcherd.tools.client import Client, Exchanged, NoUrl, check_url, client
from dispatcherd.tools.sources import SourceError, read_secrets

_REFUSALS = range(400, 500)


STANDARD = RetryPolicy(tuple(RetryConfig().schedule_seconds), RetryConfig().max_attempts)


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sends: what an endpoint of the configuration, or the command line, says."""

    url: str
    signer: Signer
    headers: tuple[tuple[str, str], ...] = ()
    retry: RetryPolicy = STANDARD
    timeout_seconds: float = 15.0
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class Breakage:
    """What is done to a request that was made right."""

    tamper: bool = False
    late_seconds: float = 0.0
    """How long ago it was signed, or seems to be; negative: in the future."""
    unsigned: bool = False

    def __bool__(self) -> bool:
        return self.tamper or self.late_seconds != 0 or self.unsigned

    def words(self) -> str:
        """What is wrong with the request, for a sentence."""
        found = ["tampered"] * self.tamper + ["unsigned"] * self.unsigned
        if self.late_seconds:
            found.append("stale" if self.late_seconds > 0 else "future")
        return " and ".join(found)


def run(
    config_path: str | None,
    url: str | None,
    endpoint: str | None,
    sources: tuple[str, ...],
    batch: int | None,
    repeat: int,
    broken: Breakage,
    hex_header: str | None,
    timeout: float | None,
    as_json: bool,
    **what: Any,
) -> bool:
    """Send, and show; whether the receiver did what it should. Raises UsageError."""
    try:
        sender = _sender(config_path, url, endpoint, sources, hex_header, timeout)
        bodies = compose.multiplied(_event(config_path, time.time(), **what), batch or 1)
        events = compose.decode(bodies, time.time())
    except (SourceError, NoUrl, compose.NoEvent, UnknownEvent) as error:
        raise click.UsageError(str(error)) from error
    return asyncio.run(_send(sender, events, batch is not None, repeat, broken, as_json))


def _sender(
    config_path: str | None,
    url: str | None,
    endpoint: str | None,
    sources: tuple[str, ...],
    hex_header: str | None,
    timeout: float | None,
) -> Sender:
    if endpoint is None:
        if url is None:
            raise click.UsageError("Say where to: a URL, or --endpoint of the configuration.")
        try:
            keys = [parse_key(secret) for secret in read_secrets(sources, os.environ)]
        except ValueError as error:
            raise SourceError(f"the secret cannot sign: {error}") from error
        return Sender(check_url(url), Signer(keys, True, hex_header), timeout_seconds=timeout or 15)
    if sources:
        raise click.UsageError("--endpoint has its own secrets: give no --secret beside it.")
    config = read_config(config_path)
    named: list[EndpointConfig] = [e for e in config.endpoints if e.id == endpoint]
    if not named:
        known = ", ".join(e.id for e in config.endpoints[:20]) or "none"
        raise click.UsageError(f"The configuration has no endpoint {endpoint!r}. It has: {known}.")
    [mine] = named
    alone = config.model_copy(update={"endpoints": named})
    secrets = load_secrets(alone, os.environ)
    access = secrets.access.get(mine.id, Access())
    signer = Signer(
        list(secrets.endpoint_keys[mine.id]), mine.sign.standard, hex_header or mine.sign.hex_header
    )
    retry = mine.retry
    policy = RetryPolicy(
        tuple(retry.schedule_seconds), retry.max_attempts, 0.0, retry.max_retry_after_seconds
    )
    seconds = timeout or mine.timeout_seconds
    target = check_url(url or mine.url)
    return Sender(target, signer, access.headers, policy, seconds, access.tls)


def _event(
    config_path: str | None,
    now: float,
    event_type: str | None,
    version: str | None,
    catalogue_path: str | None,
    data: str | None,
    path: str | None,
) -> bytes:
    if path is not None:
        if event_type is not None or data is not None:
            raise click.UsageError("--file is a whole event: give no --type or --data beside it.")
        return read_bytes(path)
    given = _data(data)
    if event_type is None:
        event = compose.ping(now) if data is None else compose.envelope("webhook.test", given, now)
        return orjson.dumps(event)
    if data is not None:
        return orjson.dumps(compose.envelope(event_type, given, now, version or "1"))
    found = load(directory(config_path, catalogue_path)).event(event_type, version)
    return orjson.dumps(example_of(found, compose.new_id(), compose.rfc3339(now)))


def _data(text: str | None) -> Any:
    if text is None:
        return None
    content = read_bytes(text[1:]) if text.startswith("@") else text.encode()
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise click.UsageError(f"--data is not JSON: {error}.") from error


async def _send(
    sender: Sender,
    events: list[Event],
    as_batch: bool,
    repeat: int,
    broken: Breakage,
    as_json: bool,
) -> bool:
    good = True
    async with client(sender.timeout_seconds, tls=sender.tls) as asking:
        for attempt in range(1, repeat + 1):
            good &= await _attempt(asking, sender, events, as_batch, attempt, broken, as_json)
    return good


async def _attempt(
    asking: Client,
    sender: Sender,
    events: list[Event],
    as_batch: bool,
    attempt: int,
    broken: Breakage,
    as_json: bool,
) -> bool:
    request = compose.compose(
        events, sender.signer, time.time() - broken.late_seconds,
        as_batch=as_batch, attempt=attempt, more_headers=sender.headers,
    )  # fmt: skip
    if broken.tamper:
        request = request.tampered()
    if broken.unsigned:
        request = request.without("webhook-signature")
    exchanged = await asking.post(sender.url, request.headers, request.body)
    good, meaning = _meaning(exchanged, sender.retry, attempt, len(events), as_batch, broken)
    hidden = {name.lower() for name, _ in sender.headers}
    headers = [
        (name, "***" if name.lower() in hidden else value)
        for name, value in exchanged.sent_headers or request.headers
    ]
    if as_json:
        click.echo(orjson.dumps(_document(sender.url, headers, request, exchanged, good, meaning)))
    else:
        _show(sender.url, headers, request, exchanged, meaning)
    return good


def _meaning(
    exchanged: Exchanged,
    policy: RetryPolicy,
    attempt: int,
    count: int,
    as_batch: bool,
    broken: Breakage,
) -> tuple[bool, str]:
    """Whether the receiver did what it should, and what its answer leads to."""
    response = exchanged.response
    refused = frozenset[str]()
    if as_batch and response.failure is None and 200 <= response.status < 300:
        found = failed_members(response.body)
        if found is None:
            outcome = failed(response, Reason.PARTIAL_FAILURE, attempt, policy, time.time(), 0)
            return False, f"batchItemFailures cannot be read: all again; {_words(outcome, policy)}"
        refused = found
    outcome = decide(response, attempt, policy, time.time(), 0.0)
    if broken:
        if response.failure is None and response.status in _REFUSALS:
            return True, f"refused, as it must be: the request was {broken.words()}"
        if outcome.kind is OutcomeKind.DELIVERED:
            return False, "the receiver ACCEPTED a request that was " + broken.words()
        return False, f"not taken, but not refused with 4xx either; {_words(outcome, policy)}"
    if refused:
        return False, f"{len(refused)} of {count} events failed: only those are sent again"
    return outcome.kind is OutcomeKind.DELIVERED, _words(outcome, policy)


def _words(outcome: Outcome, policy: RetryPolicy) -> str:
    if outcome.kind is OutcomeKind.DELIVERED:
        return "delivered"
    if outcome.kind is OutcomeKind.REJECTED:
        return "410: a dead letter at once, nothing more is sent"
    if outcome.kind is OutcomeKind.EXHAUSTED:
        return f"{outcome.reason.word}: a dead letter after {policy.max_attempts} attempts"
    return f"{outcome.reason.word}: the next attempt would come in {outcome.delay_seconds:g} s"


def _show(
    url: str,
    headers: list[tuple[str, str]],
    request: compose.Outgoing,
    exchanged: Exchanged,
    meaning: str,
) -> None:
    said = [f"POST {url}", *(f"{name}: {value}" for name, value in headers), ""]
    said += [request.body.decode("utf-8", "replace"), ""]
    response = exchanged.response
    took = f"{exchanged.seconds * 1000:.0f} ms"
    if response.failure is not None:
        said += [f"no answer after {took}: {response.failure.word}: {response.detail}"]
    else:
        said += [f"{response.status} {exchanged.reason} after {took}".replace("  ", " ")]
        said += [f"{name}: {value}" for name, value in exchanged.headers]
        if response.body:
            said += ["", response.body.decode("utf-8", "replace").rstrip()]
    click.echo(plain("\n".join([*said, "", f"=> {meaning}", ""])))


def _document(
    url: str,
    headers: list[tuple[str, str]],
    request: compose.Outgoing,
    exchanged: Exchanged,
    good: bool,
    meaning: str,
) -> dict[str, Any]:
    response = exchanged.response
    return {
        "ok": good,
        "meaning": meaning,
        "request": {
            "url": url,
            "headers": headers,
            "body": request.body.decode("utf-8", "replace"),
        },
        "response": {
            "status": response.status,
            "failure": response.failure and response.failure.word,
            "detail": response.detail,
            "headers": exchanged.headers,
            "body": response.body.decode("utf-8", "replace"),
            "seconds": round(exchanged.seconds, 6),
        },
    }
