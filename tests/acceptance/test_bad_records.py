"""Every kind of bad record through a real broker: quarantined or delivered, never in the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from tests.acceptance.scene import Scene
from tests.rig.producer import Record, event
from tests.unit.bad_records import BAD_RECORDS

PARTITIONS = 4
GOOD_BETWEEN = 10


def _with_neighbours() -> list[Record]:
    """Each bad record stands between good ones of its own partition: one record in eleven."""
    records = []
    number = 0
    for index, bad in enumerate(BAD_RECORDS):
        partition = index % PARTITIONS
        for _ in range(GOOD_BETWEEN):
            records.append(Record(event(number), partition))
            number += 1
        records.append(Record(bad.value, partition, bad.key, bad.headers))
    records += [Record(event(number + i), i) for i in range(PARTITIONS)]
    return records


def test_bad_records_are_quarantined_or_delivered_unharmed_and_hold_nobody_up(
    scene: Callable[..., Scene],
) -> None:
    here = scene(PARTITIONS, {"max.message.bytes": "20000000"})
    good = len(BAD_RECORDS) * GOOD_BETWEEN + PARTITIONS
    endpoints = [
        here.endpoint("all"),
        here.endpoint("batched", batch={"max_events": 20}),
    ]
    one = here.start(*endpoints)
    here.publish_records(_with_neighbours())
    here.wait_settled()

    expected = Counter(bad.expected.word for bad in BAD_RECORDS if bad.expected != "delivered")
    rows = here.database.fetch(
        "SELECT r.name, q.value, q.value_bytes, q.detail FROM quarantine q "
        "JOIN reasons r ON r.id = q.reason"
    )
    assert Counter(row["name"] for row in rows) == expected
    assert all(len(row["value"] or b"") <= 65_536 for row in rows)
    assert all(row["detail"] for row in rows)

    delivered = [bad for bad in BAD_RECORDS if bad.expected == "delivered"]
    count = good + len(delivered)
    here.database.wait_until("SELECT count(*) FROM deliveries", 0)
    attempts = here.database.value(
        "SELECT count(*) FROM attempts a JOIN endpoints e ON e.id = a.endpoint_id "
        "WHERE e.name = 'all'"
    )
    assert attempts == count
    assert here.receivers.ledger("all").received.total() == count
    assert here.receivers.ledger("batched").received.total() == count
    assert not {f"e{n}" for n in range(good)} - set(here.receivers.ledger("all").accepted)
    assert one.metric("dispatcherd_quarantined_total", "empty") == expected["empty"]
    one.stop()


def test_a_delivered_oddity_leaves_as_the_bytes_that_came(scene: Callable[..., Scene]) -> None:
    here = scene(1, {"max.message.bytes": "20000000"})
    here.start(here.endpoint("all"))
    odd = [bad for bad in BAD_RECORDS if bad.expected == "delivered"]
    here.publish_records([Record(b.value, 0, b.key, b.headers) for b in odd])
    here.wait_settled()
    here.database.wait_until("SELECT count(*) FROM deliveries", 0)
    arrived = Counter(body for _, body in here.receivers.ledger("all").kept)
    assert arrived == Counter(bad.value for bad in odd)


def test_ten_thousand_bad_records_in_a_row_delay_their_neighbours_no_longer_than_they_take(
    scene: Callable[..., Scene],
) -> None:
    here = scene(2)
    one = here.start(here.endpoint("all"))
    bad = [Record(b"not json", 0)] * 10_000
    here.publish_records([*bad, *(Record(event(n), n % 2) for n in range(1_000))])
    here.wait_accepted("all", range(1_000))
    here.wait_settled()
    assert here.database.value("SELECT count(*) FROM quarantine") == 10_000
    lines = one.log().count('"record_quarantined"')
    assert lines <= 100, f"{lines} lines of log for 10,000 records of one kind"
    one.stop()
