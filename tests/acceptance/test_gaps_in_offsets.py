"""Transactions and compaction: offsets with gaps, control records, records that never were."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.acceptance.checks import wait_committed
from tests.acceptance.scene import Scene
from tests.rig.producer import Record, Transactions, event, events
from tests.rig.waiting import wait_for


def test_aborted_records_are_not_sent_and_the_watermark_passes_their_markers(
    scene: Callable[..., Scene],
) -> None:
    """Two producers, committed and aborted by turns, among events without a transaction; the
    partitions end with markers, behind which there is no record that could prove anything."""
    here = scene(4)
    one = here.start(here.endpoint("all"))
    first, second = (Transactions(here.kafka.bootstrap, f"{here.topic}-{n}") for n in (1, 2))
    committed: list[int] = []
    for turn in range(12):
        numbers = range(turn * 100, turn * 100 + 40)
        commit = turn % 3 != 2
        producer = first if turn % 2 else second
        producer.publish(here.topic, events(numbers, partitions=4), commit)
        committed += numbers if commit else []
        plain = range(turn * 100 + 40, turn * 100 + 60)
        if turn < 11:
            here.publish(plain)
            committed += plain
        if turn == 6:  # the rest is read by another process, from where this one ends
            here.wait_accepted("all", committed)
            one.stop()
            one.start()
    here.wait_accepted("all", committed)
    here.wait_settled()
    wait_committed(here.kafka, here.database, here.topic, f"group-{here.topic}")
    ledger = here.receivers.ledger("all")
    assert set(ledger.received) == {f"e{n}" for n in committed}, "aborted records were sent"
    assert ledger.received.total() == len(committed)
    assert here.database.value("SELECT count(*) FROM quarantine") == 0
    one.stop()


def test_a_compacted_topic_is_delivered_to_its_end(scene: Callable[..., Scene]) -> None:
    compacted = {
        "cleanup.policy": "compact",
        "segment.ms": "200",
        "min.cleanable.dirty.ratio": "0.01",
        "max.compaction.lag.ms": "200",
    }
    here = scene(1, compacted)
    for turn in range(10):
        records = [Record(event(turn * 20 + n), 0, key=b"%d" % n) for n in range(20)]
        here.publish_records(records)

    def is_compacted() -> list[int] | None:
        time.sleep(0.3)  # longer than segment.ms: the next record begins a new segment
        here.publish_records([Record(event(1_000), 0, key=b"last")])
        left = here.kafka.offsets(here.topic, 0)
        return left if sum(offset < 200 for offset in left) <= 40 else None

    wait_for(is_compacted, 60, "compaction")
    one = here.start(here.endpoint("all"))
    here.wait_accepted("all", [*range(180, 200), 1_000])
    here.wait_settled()
    gone = [n for n in range(160) if f"e{n}" in here.receivers.ledger("all").received]
    assert gone == [], "nothing of the topic had been compacted"
    one.stop()
