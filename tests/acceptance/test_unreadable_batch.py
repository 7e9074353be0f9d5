"""A batch that the Kafka client itself cannot read: loud, by the policy, nobody else's matter."""

from __future__ import annotations

from collections.abc import Callable

from tests.acceptance.checks import wait_all_accepted, wait_settled
from tests.rig.daemon import Daemon, config_for
from tests.rig.kafka import KafkaBroker
from tests.rig.postgres import Database
from tests.rig.producer import event, events, publish
from tests.rig.raw_batch import batch_with_a_header_name_that_is_not_utf8, produce
from tests.rig.receivers import Receivers
from tests.rig.waiting import wait_for


def _fill(kafka: KafkaBroker, topic: str) -> None:
    """0-199 over two partitions; in partition 0 a batch of 5, its third one unreadable; 200-299."""
    publish(kafka.bootstrap, topic, events(range(200), partitions=2))
    values = [event(n) for n in range(1_000, 1_005)]
    produce(kafka.bootstrap, topic, 0, batch_with_a_header_name_that_is_not_utf8(values, 2))
    publish(kafka.bootstrap, topic, events(range(200, 300), partitions=2))


def test_what_cannot_be_read_halts_its_partition_and_no_other(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    kafka.create_topic(topic, 2)
    endpoints = [{"id": "all", "url": receivers.url("all")}]
    one = daemon(config_for(kafka.bootstrap, database.dsn, topic, endpoints)).migrate()
    _fill(kafka, topic)
    one.start()
    wait_for(lambda: "partition_halted" in one.log(), 30, "the halt to be named")
    readable = {f"e{n}" for n in (*range(200), *range(201, 300, 2), 1_000, 1_001)}
    wait_for(lambda: set(receivers.ledger("all").accepted) == readable, 30, "all that is readable")
    assert "kafka.on_unreadable" in one.log()
    assert one.metric("dispatcherd_halted", f"0,{topic}") == 1
    one.stop()


def test_with_the_policy_skip_the_rest_of_the_partition_is_delivered(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    kafka.create_topic(topic, 2)
    endpoints = [{"id": "all", "url": receivers.url("all")}]
    skip = {"on_unreadable": "skip"}
    config = config_for(kafka.bootstrap, database.dsn, topic, endpoints, kafka=skip)
    one = daemon(config).migrate()
    _fill(kafka, topic)
    one.start()
    wait_all_accepted(receivers, "all", [*range(300), 1_000, 1_001])
    wait_settled(kafka, database, topic)
    rows = database.fetch('SELECT partition, "offset", detail FROM quarantine')
    assert [(row["partition"], row["offset"]) for row in rows] == [(0, 102)]
    assert rows[0]["detail"].startswith("offsets 102 to 104 cannot be read")
    ledger = receivers.ledger("all")
    assert ledger.received.total() == 302, "something was read twice"
    one.stop()


def test_what_can_be_read_between_two_batches_that_cannot_is_delivered(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    """Offsets 0 and 1 of a batch of 4, then one event, then a batch of 5 of which nothing can be
    read: a search for what is readable that took longer and longer steps would step over it."""
    kafka.create_topic(topic, 1)
    endpoints = [{"id": "all", "url": receivers.url("all")}]
    skip = {"on_unreadable": "skip"}
    config = config_for(kafka.bootstrap, database.dsn, topic, endpoints, kafka=skip)
    one = daemon(config).migrate()
    values = [event(n) for n in range(4)]
    produce(kafka.bootstrap, topic, 0, batch_with_a_header_name_that_is_not_utf8(values, 2))
    publish(kafka.bootstrap, topic, events([4], partitions=1))
    values = [event(n) for n in range(5, 10)]
    produce(kafka.bootstrap, topic, 0, batch_with_a_header_name_that_is_not_utf8(values, 0))
    publish(kafka.bootstrap, topic, events(range(10, 40), partitions=1))
    one.start()
    wait_all_accepted(receivers, "all", [0, 1, 4, *range(10, 40)])
    wait_settled(kafka, database, topic)
    rows = database.fetch('SELECT "offset", detail FROM quarantine ORDER BY 1')
    assert [row["offset"] for row in rows] == [2, 5]
    assert [row["detail"].split(" cannot")[0] for row in rows] == [
        "offsets 2 to 3",
        "offsets 5 to 9",
    ]
    one.stop()
