"""The log changes under the daemon: retention runs over it, a topic is created again, one grows."""

from __future__ import annotations

from collections.abc import Callable

from tests.acceptance.checks import wait_all_accepted, wait_settled
from tests.rig.daemon import Daemon, config_for
from tests.rig.kafka import KafkaBroker
from tests.rig.postgres import Database
from tests.rig.producer import events, publish
from tests.rig.receivers import Receivers
from tests.rig.waiting import wait_for


def test_offsets_deleted_by_retention_halt_the_partition_until_the_policy_says_to_go_on(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    kafka.create_topic(topic, 1)
    endpoints = [{"id": "all", "url": receivers.url("all")}]
    one = daemon(config_for(kafka.bootstrap, database.dsn, topic, endpoints)).migrate().start()
    publish(kafka.bootstrap, topic, events(range(100), partitions=1))
    wait_all_accepted(receivers, "all", range(100))
    wait_settled(kafka, database, topic)
    one.stop()
    publish(kafka.bootstrap, topic, events(range(100, 300), partitions=1))
    kafka.delete_records(topic, 0, 200)
    one.start()
    wait_for(lambda: "partition_halted" in one.log(), 30, "the halt to be named")
    assert "offsets 100 to 199 are gone" in one.log()
    assert one.metric("dispatcherd_halted", f"0,{topic}") == 1
    assert receivers.accepted("all") == 100
    one.stop()
    one.write({**one.config, "kafka": {**one.config["kafka"], "on_out_of_range": "earliest"}})
    one.start()
    wait_all_accepted(receivers, "all", [*range(100), *range(200, 300)])
    wait_settled(kafka, database, topic)
    one.stop()


def test_a_topic_created_again_halts_and_is_read_as_new_by_policy(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    kafka.create_topic(topic, 1)
    endpoints = [{"id": "all", "url": receivers.url("all")}]
    one = daemon(config_for(kafka.bootstrap, database.dsn, topic, endpoints)).migrate().start()
    publish(kafka.bootstrap, topic, events(range(100), partitions=1))
    wait_all_accepted(receivers, "all", range(100))
    wait_settled(kafka, database, topic)
    one.stop()
    kafka.delete_topic(topic)
    kafka.create_topic(topic, 1)
    publish(kafka.bootstrap, topic, events(range(100, 140), partitions=1))
    one.start()
    wait_for(lambda: "topic_recreated" in one.log(), 30, "the alarm")
    assert receivers.accepted("all") == 100
    one.stop()
    one.write({**one.config, "kafka": {**one.config["kafka"], "on_topic_recreated": "continue"}})
    one.start()
    wait_all_accepted(receivers, "all", range(140))
    assert database.value("SELECT count(*) FROM topics WHERE name = $1", topic) == 2
    one.stop()


def test_partitions_added_to_a_topic_are_read_from_their_first_record(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    kafka.create_topic(topic, 1)
    endpoints = [{"id": "all", "url": receivers.url("all")}]
    latest = {"start": "latest", "metadata_max_age_seconds": 2}
    config = config_for(kafka.bootstrap, database.dsn, topic, endpoints, kafka=latest)
    one = daemon(config).migrate().start()
    kafka.add_partitions(topic, 4)
    publish(kafka.bootstrap, topic, events(range(200), partitions=4))
    wait_all_accepted(receivers, "all", range(200))
    wait_settled(kafka, database, topic)
    one.stop()
