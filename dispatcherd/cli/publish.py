"""`dispatcherd publish`: events from arguments, a file or stdin to a topic.

Invariant: everything is checked before anything is sent, by the rules that the daemon decodes by,
so that a bad line is refused here and not found in quarantine; memory does not grow with the file.
Leaves out: what the daemon makes of the events.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

import click
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from dispatcherd.config.check import check
from dispatcherd.config.model import Config
from dispatcherd.config.secrets import kafka_password
from dispatcherd.consume import connection_options
from dispatcherd.decode import Decoder
from dispatcherd.delivery import Claim, Refused
from dispatcherd.errors import ConfigError, LogError, LogUnavailable

_AT_ONCE = 1_000
_TOPIC_TIMEOUT_SECONDS = 10.0
_STOP_TIMEOUT_SECONDS = 5.0
_OVERHEAD_BYTES = 65_536


def publish_events(
    config: Config,
    bootstrap: str | None,
    topic: str,
    path: str | None,
    key: str | None,
    events: tuple[str, ...],
) -> None:
    """Publish, and wait for the acknowledgements; raises LogUnavailable or LogError in words."""
    if bootstrap is not None:
        kafka = config.kafka.model_copy(update={"bootstrap_servers": [bootstrap]})
        config = config.model_copy(update={"kafka": kafka})
        problems = check(config)
        if problems:
            raise ConfigError(problems)
    most = config.decode.max_event_bytes
    with _source(path) as file:
        total = _check(chain(_arguments(events), _lines(file, path, most)), config)
        if total == 0:
            raise click.UsageError("Nothing to publish: give JSON, or --file.")
        values = (value for _, value in chain(_arguments(events), _lines(file, path, most)))
        password = kafka_password(config, os.environ)
        asyncio.run(_send(config, password, topic, key, values, total))
    click.echo(f"published {total} event{'' if total == 1 else 's'} to {topic}")


@contextlib.contextmanager
def _source(path: str | None) -> Iterator[BinaryIO | None]:
    """The file, or a copy on disk of what can be read only once."""
    if path is None:
        yield None
        return
    stdin = contextlib.nullcontext(sys.stdin.buffer)
    with stdin if path == "-" else Path(path).open("rb") as file:
        if path != "-" and file.seekable():
            yield file
            return
        with tempfile.TemporaryFile() as spool:
            shutil.copyfileobj(file, spool)
            yield spool


def _arguments(events: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    for number, text in enumerate(events, 1):
        yield f"argument {number}", os.fsencode(text)


def _lines(file: BinaryIO | None, path: str | None, most: int) -> Iterator[tuple[str, bytes]]:
    """(where, line) of each line that is not empty, from the beginning; a line is read to one byte
    past the bound, by which it is too large."""
    if file is None:
        return
    file.seek(0)
    number = 0
    while line := file.readline(most + 2):
        number += 1
        if line.strip():
            yield f"line {number} of {'stdin' if path == '-' else path}", line.strip()


def _check(values: Iterator[tuple[str, bytes]], config: Config) -> int:
    """How many there are; the first one that is no event is refused."""
    decoder = Decoder(config.decode)
    nowhere = Claim("", 0, 0, 0, bytes(16))
    now_ms = int(time.time() * 1000)
    total = 0
    for where, value in values:
        decoded = decoder.decode(nowhere, total, value, (), now_ms)
        if isinstance(decoded, Refused):
            raise click.UsageError(
                f"{where} is no event ({decoded.reason.word}): {decoded.detail}. Mend it; nothing "
                "was sent."
            )
        total += 1
    return total


async def _send(
    config: Config,
    password: str | None,
    topic: str,
    key: str | None,
    values: Iterator[bytes],
    total: int,
) -> None:
    sent = 0
    content = None if key is None else os.fsencode(key)
    try:
        async with _producer(config, password, topic) as producer:
            while chunk := list(islice(values, _AT_ONCE)):
                # An idempotent producer repeats for ever: the bound has to be ours.
                async with asyncio.timeout(_bound_seconds(config)):
                    futures = [await producer.send(topic, value, key=content) for value in chunk]
                    await asyncio.gather(*futures)
                sent += len(chunk)
    except (KafkaError, OSError) as error:
        text = " ".join(str(error).split())[:300] or "no answer in time"
        unsure = f". {sent} of {total} were acknowledged; up to {_AT_ONCE} more may have been"
        raise LogUnavailable(
            f"{_named(config)}: {text}{unsure if sent else ''}. Check that it runs, and "
            "kafka.bootstrap_servers"
        ) from error


@contextlib.asynccontextmanager
async def _producer(
    config: Config, password: str | None, topic: str
) -> AsyncIterator[AIOKafkaProducer]:
    """A started producer for a topic that exists; every wait on the broker has a bound."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # the error raised says it once
    producer = AIOKafkaProducer(
        **connection_options(config.kafka, password),
        acks="all",
        enable_idempotence=True,
        max_request_size=config.decode.max_event_bytes + _OVERHEAD_BYTES,
    )
    try:
        try:
            async with asyncio.timeout(_bound_seconds(config)):
                await producer.start()
        except TimeoutError as error:
            raise LogUnavailable(f"{_named(config)} did not answer in time") from error
        try:
            async with asyncio.timeout(_TOPIC_TIMEOUT_SECONDS):
                await producer.partitions_for(topic)
        except (KafkaError, TimeoutError) as error:
            raise LogError(
                f"{_named(config)} shows no topic {topic!r}. Create it, or mend --topic"
            ) from error
        yield producer
    finally:
        stopping = asyncio.ensure_future(producer.stop())
        await asyncio.wait({stopping}, timeout=_STOP_TIMEOUT_SECONDS)
        if not stopping.done():
            stopping.cancel()
        elif not stopping.cancelled():
            stopping.exception()


def _bound_seconds(config: Config) -> float:
    """The client's own bound on a request, and some time for it to say so itself."""
    return config.kafka.request_timeout_seconds + 5


def _named(config: Config) -> str:
    return f"Kafka at {', '.join(config.kafka.bootstrap_servers)[:200]}"
