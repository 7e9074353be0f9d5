"""Transactions and compaction: offsets with gaps, control records, records that never were."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.acceptance.checks import wait_all_accepted, wait_committed, wait_settled
from tests.rig.daemon import Daemon, config_for
from tests.rig.kafka import KafkaBroker
from tests.rig.postgres import Database
from tests.rig.producer import Record, Transactions, event, events, publish
from tests.rig.receivers import Receivers
from tests.rig.waiting import wait_for


def test_aborted_records_are_not_sent_and_the_watermark_passes_their_markers(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    """Two producers, committed and aborted by turns, among events without a transaction; the
    partitions end with markers, behind which there is no record that could prove anything."""
    kafka.create_topic(topic, 4)
    endpoints = [{"id": "all", "url": receivers.url("all")}]
    one = daemon(config_for(kafka.bootstrap, database.dsn, topic, endpoints)).migrate().start()
    first, second = (Transactions(kafka.bootstrap, f"{topic}-{n}") for n in (1, 2))
    committed: list[int] = []
    for turn in range(12):
        numbers = range(turn * 100, turn * 100 + 40)
        commit = turn % 3 != 2
        producer = first if turn % 2 else second
        producer.publish(topic, events(numbers, partitions=4), commit)
        committed += numbers if commit else []
        plain = range(turn * 100 + 40, turn * 100 + 60)
        if turn < 11:
            publish(kafka.bootstrap, topic, events(plain, partitions=4))
            committed += plain
        if turn == 6:  # the rest is read by another process, from where this one ends
            wait_all_accepted(receivers, "all", committed)
            one.stop()
            one.start()
    wait_all_accepted(receivers, "all", committed)
    wait_settled(kafka, database, topic)
    wait_committed(kafka, database, topic, f"group-{topic}")
    ledger = receivers.ledger("all")
    assert set(ledger.received) == {f"e{n}" for n in committed}, "aborted records were sent"
    assert ledger.received.total() == len(committed)
    assert database.value("SELECT count(*) FROM quarantine") == 0
    one.stop()


def test_a_compacted_topic_is_delivered_to_its_end(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    compacted = {
        "cleanup.policy": "compact",
        "segment.ms": "200",
        "min.cleanable.dirty.ratio": "0.01",
        "max.compaction.lag.ms": "200",
    }
    kafka.create_topic(topic, 1, compacted)
    for turn in range(10):
        records = [Record(event(turn * 20 + n), 0, key=b"%d" % n) for n in range(20)]
        publish(kafka.bootstrap, topic, records)

    def is_compacted() -> list[int] | None:
        time.sleep(0.3)  # longer than segment.ms: the next record begins a new segment
        publish(kafka.bootstrap, topic, [Record(event(1_000), 0, key=b"last")])
        left = kafka.offsets(topic, 0)
        return left if sum(offset < 200 for offset in left) <= 40 else None

    wait_for(is_compacted, 60, "compaction")
    endpoints = [{"id": "all", "url": receivers.url("all")}]
    one = daemon(config_for(kafka.bootstrap, database.dsn, topic, endpoints)).migrate().start()
    wait_all_accepted(receivers, "all", [*range(180, 200), 1_000])
    wait_settled(kafka, database, topic)
    gone = [n for n in range(160) if f"e{n}" in receivers.ledger("all").received]
    assert gone == [], "nothing of the topic had been compacted"
    one.stop()
