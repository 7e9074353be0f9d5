"""An open-loop load: events published at a given rate, whatever becomes of them.

    python -m bench.generator '{"bootstrap": …, "topic": …, "events": …, "endpoints": …,
                                "fanout": …, "first": …, "count": …, "rate": …}'

A process of its own, so that nothing of the bench delays it. Each event carries the time at which
it was handed to the Kafka client, so a latency counted from there holds the client, the broker's
append and everything after it. Invariant: it never slows down because something else does; by how
much it fell behind its schedule is in what it prints. Leaves out: what arrives (the sink).
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from functools import partial
from typing import Any

from confluent_kafka import Producer

from bench.load import PARTITIONS, Plan, body
from bench.native import ROOT

_TICK_SECONDS = 0.002
_LINGER_SECONDS = 0.005
"""What Kafka's own producer waits by default (since 4.0). As its default partitioner does, what is
published meanwhile goes to one partition: a request a batch, instead of one an event."""
_WATCH_EVERY = 50


def generate(order: dict[str, Any]) -> dict[str, float]:
    """Publish; what it took."""
    plan = Plan(order["events"], order["endpoints"], order["fanout"])
    topic, first, count, rate = (order[k] for k in ("topic", "first", "count", "rate"))
    producer = Producer(
        {"bootstrap.servers": order["bootstrap"], "linger.ms": _LINGER_SECONDS * 1e3,
         "acks": "all", "log_level": 0, "queue.buffering.max.messages": 1_000_000}
    )  # fmt: skip
    # Connected before the schedule begins: a producer's first messages wait for that for a tenth of
    # a second, and it is nothing that a dispatcher could be quicker at.
    producer.list_topics(topic, timeout=30)
    acknowledged: list[float] = []
    behind = 0.0
    gc.freeze()
    began = time.monotonic()
    sent = 0
    while sent < count:
        elapsed = time.monotonic() - began
        due = min(count, int(elapsed * rate) + 1)
        partition = int(elapsed / _LINGER_SECONDS) % PARTITIONS
        for number in range(first + sent, first + due):
            value = body(plan, number, time.time_ns())
            if number % _WATCH_EVERY == 0:
                at = time.monotonic()
                producer.produce(
                    topic, value, partition=partition,
                    on_delivery=partial(_acknowledge, acknowledged, at),
                )  # fmt: skip
            else:
                producer.produce(topic, value, partition=partition)
        sent = due
        behind = max(behind, (time.monotonic() - began) - sent / rate)
        producer.poll(0)
        time.sleep(_TICK_SECONDS)
    took = time.monotonic() - began
    assert producer.flush(60) == 0
    acknowledged.sort()
    return {
        "count": count,
        "seconds": took,
        "behind_ms": behind * 1e3,
        "ack_p50_ms": acknowledged[len(acknowledged) // 2] * 1e3 if acknowledged else 0.0,
        "ack_p99_ms": acknowledged[int(len(acknowledged) * 0.99)] * 1e3 if acknowledged else 0.0,
    }


def _acknowledge(kept: list[float], at: float, _error: object, _message: object) -> None:
    kept.append(time.monotonic() - at)


class Generator:
    """Its process, as a scenario sees it."""

    def __init__(
        self, bootstrap: str, topic: str, plan: Plan, first: int, count: int, rate: float
    ) -> None:
        order = {
            "bootstrap": bootstrap, "topic": topic, "events": plan.events,
            "endpoints": plan.endpoints, "fanout": plan.fanout, "first": first, "count": count,
            "rate": rate,
        }  # fmt: skip
        self.first, self.count, self.rate = first, count, rate
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.generator", json.dumps(order)],
            stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    def running(self) -> bool:
        """Whether it still publishes."""
        return self._process.poll() is None

    def wait(self) -> dict[str, float]:
        """Its end; what it took."""
        said, _ = self._process.communicate(timeout=self.count / self.rate + 120)
        assert self._process.returncode == 0, "the generator failed (see above)"
        found: dict[str, float] = json.loads(said)
        return found

    def kill(self) -> None:
        """End it when a scenario fails."""
        if self.running():
            self._process.kill()
            self._process.wait(10)


if __name__ == "__main__":
    print(json.dumps(generate(json.loads(sys.argv[1]))))
