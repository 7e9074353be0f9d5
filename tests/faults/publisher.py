"""A steady flow of events, one in so many of them bad, and what the broker acknowledged of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaException, Producer

from dispatcherd.delivery import Reason
from tests.faults.ledger import Published
from tests.rig.producer import event
from tests.unit.bad_records import BAD_RECORDS

_TICK_SECONDS = 0.05
_DELIVERY_MILLISECONDS = 120_000
"""Longer than any fault of the broker: what it acknowledges late is published all the same."""
_MOST_BYTES = 100_000
_BAD = [bad for bad in BAD_RECORDS if isinstance(bad.expected, Reason)
        and len(bad.value or b"") < _MOST_BYTES]  # fmt: skip


class Publisher(threading.Thread):
    """Publishes until it is told to stop; idempotent, so that each record is in the log once."""

    def __init__(
        self, bootstrap: str, topic: str, partitions: int, events_per_second: float
    ) -> None:
        super().__init__(daemon=True, name="publisher")
        self._topic = topic
        self.partitions = partitions
        """How many to spread over; raised when the topic grows."""
        self.bad_one_in = 0
        """One record in so many is no event; 0: none."""
        self._rate = events_per_second
        self._enough = threading.Event()
        self._producer = Producer(
            {"bootstrap.servers": bootstrap, "linger.ms": 5, "enable.idempotence": True,
             "delivery.timeout.ms": _DELIVERY_MILLISECONDS, "log_level": 0,
             "topic.metadata.refresh.interval.ms": 1_000, "message.max.bytes": 2_000_000}
        )  # fmt: skip
        self.published: list[Published] = []
        self.unsure: set[str] = set()
        """Ids whose acknowledgement has not come."""
        self._number = 0
        self._burst = 0

    def burst(self, count: int) -> None:
        """So many events more, as fast as the broker takes them; once the last burst is over."""
        self._burst = count

    def run(self) -> None:
        """The thread."""
        begun, sent = time.monotonic(), 0
        while not self._enough.wait(_TICK_SECONDS):
            due = int((time.monotonic() - begun) * self._rate)
            while sent < due:
                sent += 1
                self._publish()
            while self._burst and self._publish():
                self._burst -= 1
            self._producer.poll(0)

    def _publish(self) -> bool:
        """False: the queue to the broker is full, or there is nobody to take it."""
        number = self._number
        self._number += 1
        bad = self.bad_one_in > 0 and number % self.bad_one_in == 0
        id_ = f"bad{number}" if bad else f"e{number}"
        one = _BAD[(number // max(self.bad_one_in, 1)) % len(_BAD)] if bad else None
        self.unsure.add(id_)
        try:
            self._producer.produce(
                self._topic,
                event(number) if one is None else one.value,
                partition=number % self.partitions,
                headers=[] if one is None else list(one.headers),
                on_delivery=self._acknowledged(id_, bad),
            )
        except (BufferError, KafkaException):  # the broker is away, or does not know the partition
            self.unsure.discard(id_)
            return False
        return True

    def _acknowledged(self, id_: str, bad: bool) -> Callable[[Any, Any], None]:
        def acknowledged(error: Any, message: Any) -> None:
            if error is not None:
                return  # it may be in the log all the same: it stays among the unsure
            at = message.timestamp()[1] / 1000
            place = message.partition(), message.offset()
            self.published.append(Published(id_, *place, at, bad))
            self.unsure.discard(id_)

        return acknowledged

    def stop(self) -> None:
        """End it, and wait for the acknowledgements that are still to come."""
        self._enough.set()
        if self.is_alive():
            self.join(30)
        self._producer.flush(_DELIVERY_MILLISECONDS / 1000)
