"""`dispatcherd publish`: events from arguments, a file or stdin to a topic.

Invariant: says how many the broker acknowledged, and which line was refused before any was sent.
Leaves out: what the daemon makes of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Iterator

import click
import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from dispatcherd.config.model import Config
from dispatcherd.config.secrets import load_secrets
from dispatcherd.consume import connection_options
from dispatcherd.errors import ConfigError, ConfigProblem, LogUnavailable


def publish_events(
    config: Config,
    bootstrap: str | None,
    topic: str,
    path: str | None,
    key: str | None,
    events: tuple[str, ...],
) -> None:
    """Publish and wait for the acknowledgements."""
    values = list(_values(path, events))
    if not values:
        raise ConfigError(
            [ConfigProblem("events", "(none)", "nothing to publish", "Give JSON, or --file")]
        )
    kafka = config.kafka
    if bootstrap is not None:
        kafka = kafka.model_copy(update={"bootstrap_servers": [bootstrap]})
    secrets = load_secrets(config.model_copy(update={"endpoints": []}), os.environ)

    async def main() -> None:
        options = connection_options(kafka, secrets.sasl_password)
        producer = AIOKafkaProducer(**options, acks="all", enable_idempotence=True)
        try:
            await producer.start()
            content = None if key is None else key.encode()
            sent = [await producer.send(topic, value, key=content) for value in values]
            await asyncio.gather(*sent)
        except (KafkaError, OSError) as error:
            raise LogUnavailable(f"Kafka: {type(error).__name__}: {error}") from error
        finally:
            with contextlib.suppress(KafkaError):
                await producer.stop()

    asyncio.run(main())
    click.echo(f"published {len(values)} events to {topic}")


def _values(path: str | None, events: tuple[str, ...]) -> Iterator[bytes]:
    for number, text in enumerate(events, 1):
        yield _checked(text.encode(), f"argument {number}")
    if path is None:
        return
    with contextlib.ExitStack() as stack:
        file = sys.stdin.buffer if path == "-" else stack.enter_context(open(path, "rb"))
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _checked(line.strip(), f"line {number} of {path}")


def _checked(value: bytes, where: str) -> bytes:
    try:
        orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise ConfigError(
            [ConfigProblem(where, repr(value[:60]), f"not JSON: {error}", "Mend it; none was sent")]
        ) from error
    return value
