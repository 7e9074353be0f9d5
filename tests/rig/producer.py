"""Publishing many records and knowing that the broker has them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from confluent_kafka import Producer


class Record(NamedTuple):
    """One record to publish."""

    value: bytes | None
    partition: int = -1
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()


def publish(bootstrap: str, topic: str, records: Iterable[Record]) -> int:
    """Publish all, wait for the acknowledgements; how many there were."""
    refused: list[Any] = []

    def acknowledged(error: Any, _message: Any) -> None:
        if error is not None:
            refused.append(error)

    producer = Producer(
        {"bootstrap.servers": bootstrap, "linger.ms": 5, "message.max.bytes": 20_000_000,
         "enable.idempotence": True, "log_level": 0}
    )  # fmt: skip
    count = 0
    for record in records:
        while True:
            try:
                producer.produce(
                    topic, record.value, key=record.key, partition=record.partition,
                    headers=list(record.headers), on_delivery=acknowledged,
                )  # fmt: skip
                break
            except BufferError:
                producer.poll(0.1)
        count += 1
        producer.poll(0)
    assert producer.flush(60) == 0 and not refused, refused[:3]
    return count


class Transactions:
    """A transactional producer: each call is one transaction, ended as told."""

    def __init__(self, bootstrap: str, name: str) -> None:
        self._producer = Producer(
            {"bootstrap.servers": bootstrap, "transactional.id": name, "log_level": 0}
        )
        self._producer.init_transactions(30)

    def publish(self, topic: str, records: Iterable[Record], commit: bool) -> None:
        """Publish all, have the broker write them, then commit or abort."""
        self._producer.begin_transaction()
        for record in records:
            self._producer.produce(topic, record.value, key=record.key, partition=record.partition)
        assert self._producer.flush(30) == 0
        if commit:
            self._producer.commit_transaction(30)
        else:
            self._producer.abort_transaction(30)


def event(number: int, event_type: str = "order.created", size: int = 200) -> bytes:
    """A plausible event with the id `e<number>`."""
    return json.dumps(
        {
            "id": f"e{number}",
            "type": event_type,
            "timestamp": "2026-01-02T03:04:05Z",
            "data": {"number": number, "note": "x" * size},
        }
    ).encode()


def events(
    numbers: Iterable[int], event_type: str = "order.created", partitions: int = 8
) -> Iterable[Record]:
    """Events spread evenly over the partitions."""
    for number in numbers:
        yield Record(event(number, event_type), partition=number % partitions)


class Flow(threading.Thread):
    """Publishes so many events every so often, numbered from 0, until told to stop."""

    def __init__(
        self, bootstrap: str, topic: str, at_once: int = 100, pause_seconds: float = 0.2
    ) -> None:
        super().__init__(daemon=True)
        self._broker, self._topic = bootstrap, topic
        self._at_once, self._pause = at_once, pause_seconds
        self._enough = threading.Event()
        self.count = 0

    def run(self) -> None:
        """The thread."""
        while not self._enough.wait(self._pause):
            numbers = range(self.count, self.count + self._at_once)
            self.count += publish(self._broker, self._topic, events(numbers))

    def stop(self) -> int:
        """End it; how many events it has published."""
        self._enough.set()
        self.join(30)
        return self.count
