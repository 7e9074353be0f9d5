"""An embedded Kafka: librdkafka's mock cluster, held by a producer of the wheel `confluent-kafka`.

It speaks Kafka's protocol over TCP (produce, fetch, groups, commits), in memory and in this
process, and is gone with it. Its limits: four partitions a topic, and past 5 MiB or 100,000 records
in a partition it drops the oldest, so whoever publishes must not run far ahead of whoever reads.
Every new group waits 3 s for further members. Invariant: a record counts as published when the
broker has acknowledged it, and is known by its position. Leaves out: what is published.
"""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from dispatcherd.demo.process import DemoFailed

PARTITIONS = 4


class Position(NamedTuple):
    """Where a record stands, and when it was handed over (Unix seconds)."""

    topic: str
    partition: int
    offset: int
    at: float


def installed() -> bool:
    """Whether the wheel is there."""
    return importlib.util.find_spec("confluent_kafka") is not None


class EmbeddedKafka:
    """One broker, from construction to `stop`."""

    def __init__(self) -> None:
        from confluent_kafka import KafkaException, Producer

        self._producer: Any = Producer(
            {
                "bootstrap.servers": "replaced-by-the-mock-cluster",
                "test.mock.num.brokers": 1,
                "enable.idempotence": True,
                "linger.ms": 2,
                "log_level": 0,
            }
        )
        try:
            brokers = self._producer.list_topics(timeout=10).brokers.values()
        except KafkaException as error:
            raise DemoFailed(f"the embedded Kafka does not answer: {error}") from error
        self.bootstrap = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
        self.published: list[Position] = []
        self.ends: dict[tuple[str, int], int] = {}
        """(topic, partition) → the offset after its last record; only where there are records."""
        self._refused: list[str] = []

    def create_topics(self, names: Sequence[str]) -> None:
        """Ask for each, which creates it. Raises DemoFailed."""
        for name in names:
            found = len(self._producer.list_topics(name, timeout=10).topics[name].partitions)
            if found != PARTITIONS:
                raise DemoFailed(f"the embedded Kafka gave {name} {found} partitions")

    def publish(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Hand one record over; it is in `published` once the broker has it."""
        # The mock cluster's acknowledgement does not bring the record's time back.
        acknowledged = partial(self._acknowledged, time.time())
        self._producer.produce(
            topic, value, key=key, headers=list(headers), on_delivery=acknowledged
        )
        self._producer.poll(0)

    def _acknowledged(self, at: float, error: Any, message: Any) -> None:
        if error is not None:
            self._refused.append(str(error))
            return
        position = Position(message.topic(), message.partition(), message.offset(), at)
        self.published.append(position)
        place = position.topic, position.partition
        self.ends[place] = max(self.ends.get(place, 0), position.offset + 1)

    def poll(self) -> None:
        """Take in acknowledgements. Raises DemoFailed for a record that was refused."""
        self._producer.poll(0)
        if self._refused:
            raise DemoFailed(f"the embedded Kafka refused a record: {self._refused[0]}")

    async def flush(self, timeout_seconds: float) -> None:
        """Until everything handed over is acknowledged. Raises DemoFailed."""
        left = await asyncio.to_thread(self._producer.flush, timeout_seconds)
        self.poll()
        if left:
            raise DemoFailed(f"the embedded Kafka did not take {left} records in time")

    def committed(self, group: str) -> dict[tuple[str, int], int]:
        """What a group has committed of the partitions that hold records."""
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer(
            {"bootstrap.servers": self.bootstrap, "group.id": group, "log_level": 0}
        )
        try:
            asked = [TopicPartition(topic, partition) for topic, partition in self.ends]
            answer = consumer.committed(asked, timeout=10)
        finally:
            consumer.close()
        return {(found.topic, found.partition): found.offset for found in answer}

    def stop(self) -> None:
        """End it: the cluster lives as long as the producer that holds it."""
        self._producer = None
