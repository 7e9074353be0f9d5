"""Every kind of bad record through a real broker: quarantined or delivered, never in the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from tests.acceptance.checks import wait_all_accepted, wait_settled
from tests.rig.daemon import Daemon, config_for
from tests.rig.kafka import KafkaBroker
from tests.rig.postgres import Database
from tests.rig.producer import Record, event, publish
from tests.rig.receivers import Receivers
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
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    kafka.create_topic(topic, PARTITIONS, {"max.message.bytes": "20000000"})
    good = len(BAD_RECORDS) * GOOD_BETWEEN + PARTITIONS
    endpoints = [
        {"id": "all", "url": receivers.url("all")},
        {"id": "batched", "url": receivers.url("batched"), "batch": {"max_events": 20}},
    ]
    one = daemon(config_for(kafka.bootstrap, database.dsn, topic, endpoints)).migrate().start()
    publish(kafka.bootstrap, topic, _with_neighbours())
    wait_settled(kafka, database, topic)

    expected = Counter(bad.expected.word for bad in BAD_RECORDS if bad.expected != "delivered")
    rows = database.fetch(
        "SELECT r.name, q.value, q.value_bytes, q.detail FROM quarantine q "
        "JOIN reasons r ON r.id = q.reason"
    )
    assert Counter(row["name"] for row in rows) == expected
    assert all(len(row["value"] or b"") <= 65_536 for row in rows)
    assert all(row["detail"] for row in rows)

    delivered = [bad for bad in BAD_RECORDS if bad.expected == "delivered"]
    count = good + len(delivered)
    database.wait_until("SELECT count(*) FROM deliveries", 0)
    attempts = database.value(
        "SELECT count(*) FROM attempts a JOIN endpoints e ON e.id = a.endpoint_id "
        "WHERE e.name = 'all'"
    )
    assert attempts == count
    assert receivers.ledger("all").received.total() == count
    assert receivers.ledger("batched").received.total() == count
    assert not {f"e{n}" for n in range(good)} - set(receivers.ledger("all").accepted)
    assert one.metric("dispatcherd_quarantined_total", "empty") == expected["empty"]
    one.stop()


def test_a_delivered_oddity_leaves_as_the_bytes_that_came(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    kafka.create_topic(topic, 1, {"max.message.bytes": "20000000"})
    endpoints = [{"id": "all", "url": receivers.url("all")}]
    daemon(config_for(kafka.bootstrap, database.dsn, topic, endpoints)).migrate().start()
    odd = [bad for bad in BAD_RECORDS if bad.expected == "delivered"]
    publish(kafka.bootstrap, topic, [Record(b.value, 0, b.key, b.headers) for b in odd])
    wait_settled(kafka, database, topic)
    database.wait_until("SELECT count(*) FROM deliveries", 0)
    arrived = Counter(body for _, body in receivers.ledger("all").kept)
    assert arrived == Counter(bad.value for bad in odd)


def test_ten_thousand_bad_records_in_a_row_delay_their_neighbours_no_longer_than_they_take(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    kafka.create_topic(topic, 2)
    endpoints = [{"id": "all", "url": receivers.url("all")}]
    one = daemon(config_for(kafka.bootstrap, database.dsn, topic, endpoints)).migrate().start()
    bad = [Record(b"not json", 0)] * 10_000
    publish(kafka.bootstrap, topic, [*bad, *(Record(event(n), n % 2) for n in range(1_000))])
    wait_all_accepted(receivers, "all", range(1_000))
    wait_settled(kafka, database, topic)
    assert database.value("SELECT count(*) FROM quarantine") == 10_000
    lines = one.log().count('"record_quarantined"')
    assert lines <= 100, f"{lines} lines of log for 10,000 records of one kind"
    one.stop()
