"""What is looked at while a run goes on: memory, group offsets, the watermarks in one snapshot.

One look a second. While a part does not answer there is no look, and the count says so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

import asyncpg
from confluent_kafka import Consumer, KafkaException, TopicPartition

from tests.faults.ledger import End, GroupOffset, Memory, Unsettled
from tests.faults.members import Member
from tests.rig.postgres import Database

_EVERY_SECONDS = 1.0
_KAFKA_SECONDS = 3.0
AWAY = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)
"""What a question to a server that is being broken raises."""

_PROGRESS = "SELECT partition, watermark FROM progress"

# A snapshot: everything below a watermark, from where the last look ended, is accounted for.
# OFFSET 0: asked by index, offset by offset, not joined to all attempts that there are.
_UNSETTLED = """
SELECT p.partition, o AS "offset", e.id AS endpoint_id, e.name, p.watermark
FROM progress p
JOIN unnest($1::int[], $2::bigint[]) AS looked (partition, up_to) USING (partition)
CROSS JOIN LATERAL generate_series(looked.up_to, p.watermark - 1) AS o
CROSS JOIN endpoints e
WHERE NOT EXISTS (SELECT FROM attempts a WHERE a.partition = p.partition AND a."offset" = o
                  AND a.endpoint_id = e.id AND a.kind = 1 OFFSET 0)
AND NOT EXISTS (SELECT FROM deliveries d WHERE (d.topic_id, d.partition, d."offset", d.endpoint_id)
                = (p.topic_id, p.partition, o, e.id) OFFSET 0)
AND NOT EXISTS (SELECT FROM held_ranges h WHERE (h.topic_id, h.partition, h.endpoint_id)
                = (p.topic_id, p.partition, e.id) AND o >= h.start_offset AND o < h.end_offset
                OFFSET 0)
AND NOT EXISTS (SELECT FROM quarantine q WHERE (q.topic_id, q.partition, q."offset")
                = (p.topic_id, p.partition, o) OFFSET 0)
LIMIT 20
"""


class Sampler(threading.Thread):
    """Looks once a second until stopped."""

    def __init__(
        self,
        database: Database,
        bootstrap: str,
        group: str,
        topic: str,
        members: Iterable[Member],
        memory_bytes: int,
    ) -> None:
        super().__init__(daemon=True, name="sampler")
        self._database = database
        # Never subscribed, so no member: it asks only. (The admin client's question for a group
        # aborts the whole process when the coordinator goes away under it, librdkafka 2.16.)
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": group, "log_level": 0,
             "enable.auto.commit": False}
        )  # fmt: skip
        self._topic = topic
        self._members = list(members)
        self._memory_bytes = memory_bytes
        self._enough = threading.Event()
        self._looked: dict[int, int] = {}
        """Partition → up to which offset the snapshots have looked."""
        self.broken = threading.Event()
        """A promise was seen to be broken."""
        self.memory: list[Memory] = []
        self.group: list[GroupOffset] = []
        self.unsettled: list[Unsettled] = []
        self.snapshots = 0
        self.missed = 0
        """Looks that a part which was away did not answer."""

    def run(self) -> None:
        """The thread."""
        while not self._enough.wait(_EVERY_SECONDS):
            self._look_at_processes()
            try:
                self._look_at_offsets()
                self.snapshot()
            except (*AWAY, KafkaException):
                self.missed += 1

    def stop(self) -> None:
        """End it."""
        self._enough.set()
        if self.is_alive():
            self.join(30)
        self._consumer.close()

    def _look_at_processes(self) -> None:
        now = time.time()
        for member in self._members:
            rss = member.rss_bytes()
            if rss is not None:
                self.memory.append(Memory(now, member.lives[-1].process, rss))
                if rss > self._memory_bytes:
                    self.broken.set()
            elif member.lives and member.lives[-1].end is End.ITSELF:
                self.broken.set()

    def _look_at_offsets(self) -> None:
        now = time.time()
        asked = [TopicPartition(self._topic, partition) for partition in self.watermarks()]
        answered = self._consumer.committed(asked, timeout=_KAFKA_SECONDS)
        committed = {p.partition: p.offset for p in answered if p.error is None and p.offset >= 0}
        marks = self.watermarks()  # after it: a watermark only grows
        for partition, offset in committed.items():
            mark = marks.get(partition)
            self.group.append(GroupOffset(now, partition, offset, mark))
            if mark is None or offset > mark:
                self.broken.set()

    def watermarks(self) -> dict[int, int]:
        """Partition → watermark, as Postgres has it."""
        rows = self._database.fetch(_PROGRESS)
        return {r["partition"]: r["watermark"] for r in rows if r["watermark"] is not None}

    def snapshot(self) -> None:
        """Compare every watermark with what is accounted for below it."""
        marks = self.watermarks()
        partitions = sorted(marks)
        looked = [self._looked.get(p, 0) for p in partitions]
        # The watermarks in the snapshot may be higher than `marks`: the next look begins at these.
        rows = self._database.fetch(_UNSETTLED, partitions, looked)
        now = time.time()
        self._looked.update(marks)
        self.snapshots += 1
        for row in rows:
            self.unsettled.append(
                Unsettled(now, row["partition"], row["offset"], row["name"], row["watermark"])
            )
            self.broken.set()
