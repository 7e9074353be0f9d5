"""The events: 1 KiB of JSON that looks like an order, published to Kafka and known to be there.

Invariant: event number n has the same id, type, partition and bytes in every run but for the time
of its publication. Leaves out: an open-loop load at a given rate (generator).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from confluent_kafka import Producer

PARTITIONS = 8
EVENT_BYTES = 1024
_SPREAD = 0x9E3779B97F4A7C15  # 2**64 / golden ratio: spreads consecutive numbers
_MASK = (1 << 64) - 1

_HEAD = (
    '{"id":"evt_%016x%010d","type":"%s","timestamp":"2026-01-02T03:04:05.678Z","version":"1",'
    '"data":{"n":"%09d","at":"%019d","order":{"customer":"cus_8Zq2mR4t","currency":"EUR",'
    '"total":12950,"paid":true,"discount":null},"items":['
)
_ITEM = '{"sku":"A-%03d","quantity":%d,"price":%d.5,"tags":["new","blue"]}'
_ITEMS = ",".join(_ITEM % (n, n + 1, 10 * n) for n in range(6))
_NOTE = "Leave the parcel with the neighbour if nobody answers the door. "


@dataclass(frozen=True, slots=True)
class Plan:
    """Which events there are, and where each has to arrive."""

    events: int
    endpoints: int = 1
    fanout: int = 1
    """1: event n goes to endpoint n mod `endpoints`, by its type. More: to endpoints 0 and up."""

    @property
    def deliveries(self) -> int:
        return self.events * self.fanout

    def type_of(self, number: int) -> str:
        """The type of event `number`."""
        if self.fanout > 1 or self.endpoints == 1:
            return "order.created"
        return f"order.created.k{number % self.endpoints}"

    def types_of(self, endpoint: int) -> list[str]:
        """What an endpoint subscribes to."""
        if self.fanout > 1 or self.endpoints == 1:
            return ["order.created"]
        return [f"order.created.k{endpoint}"]


def event_id(number: int) -> str:
    """30 characters, unlike its neighbour's from the fifth on, as random ids are."""
    return f"evt_{number * _SPREAD & _MASK:016x}{number:010d}"


def body(plan: Plan, number: int, at_ns: int) -> bytes:
    """The event: EVENT_BYTES of JSON."""
    kind = plan.type_of(number)
    head = _HEAD % (number * _SPREAD & _MASK, number, kind, number, at_ns) + _ITEMS
    tail = '],"note":"'
    room = EVENT_BYTES - len(head) - len(tail) - 3
    return (head + tail + (_NOTE * (room // len(_NOTE) + 1))[:room] + '"}}').encode()


def partition(number: int, partitions: int = PARTITIONS) -> int:
    """Spread so that neither neighbours nor one endpoint's events share a partition."""
    return ((number * _SPREAD & _MASK) >> 40) % partitions


def prefill(bootstrap: str, topic: str, plan: Plan, numbers: Iterable[int] | None = None) -> None:
    """Publish the plan's events and wait until the broker has acknowledged each."""
    producer = Producer(
        {"bootstrap.servers": bootstrap, "linger.ms": 20, "batch.num.messages": 10_000,
         "queue.buffering.max.messages": 200_000, "acks": "all", "log_level": 0}
    )  # fmt: skip
    refused: list[object] = []

    def acknowledged(error: object, _message: object) -> None:
        if error is not None:
            refused.append(error)

    for number in range(plan.events) if numbers is None else numbers:
        value = body(plan, number, time.time_ns())
        while True:
            try:
                producer.produce(
                    topic, value, partition=partition(number), on_delivery=acknowledged
                )
                break
            except BufferError:
                producer.poll(0.05)
        if number & 0xFF == 0:
            producer.poll(0)
    left = producer.flush(120)
    assert left == 0 and not refused, (left, refused[:3])
