"""What an endpoint may be owed is capped: the excess is held in Kafka, dead-lettered, or stops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.acceptance.checks import (
    assert_backlog_counted,
    assert_recorded_once,
    wait_all_accepted,
    wait_settled,
)
from tests.rig.daemon import Daemon, config_for
from tests.rig.kafka import KafkaBroker
from tests.rig.postgres import Database
from tests.rig.producer import event, events, publish
from tests.rig.raw_batch import (
    batch_with_a_header_name_that_is_not_utf8,
    compressed_batch,
    produce,
)
from tests.rig.receivers import Receivers
from tests.rig.waiting import wait_for

MEGABYTE = 1 << 20
CAP = 300
COUNT = 3_900
"""A multiple of 300: it is published in pieces of that size."""
SLACK = 4 * 400
"""Rows above the cap that may come of what was in memory when it was reached: four windows."""


def _config(
    kafka: KafkaBroker, database: Database, receivers: Receivers, topic: str, action: str
) -> dict[str, Any]:
    retry = {"schedule_seconds": [0, 0.5], "max_attempts": 1_000, "jitter": 0}
    endpoints = [
        {"id": "well", "url": receivers.url("well")},
        {"id": "ill", "url": receivers.url("ill"), "retry": retry},
    ]
    limits = {
        "owed_per_endpoint": CAP,
        "at_owed_cap": action,
        "lane_deliveries": 200,
        "window_deliveries": 400,
    }
    return config_for(kafka.bootstrap, database.dsn, topic, endpoints, limits=limits)


def _owed(database: Database) -> int:
    return int(database.value("SELECT count(*) FROM deliveries WHERE state = 1"))


def test_the_excess_is_held_in_kafka_and_delivered_after_a_restart_and_recovery(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    kafka.create_topic(topic, 4)
    receivers.manner("ill", "status", status=503)
    one = daemon(_config(kafka, database, receivers, topic, "hold")).migrate().start()
    for first in range(0, COUNT, 300):
        publish(kafka.bootstrap, topic, events(range(first, first + 300), partitions=4))
    wait_all_accepted(receivers, "well", range(COUNT))
    wait_settled(kafka, database, topic)
    assert "owed_cap_reached" in one.log()
    assert CAP <= _owed(database) <= CAP + SLACK
    assert database.value("SELECT count(*) FROM held_ranges") > 0
    assert one.metric("dispatcherd_at_owed_cap", "ill") == 1
    one.stop()
    one.start()
    publish(kafka.bootstrap, topic, events(range(COUNT, COUNT + 200), partitions=4))
    wait_all_accepted(receivers, "well", range(COUNT + 200))
    receivers.manner("ill", "ok")
    wait_all_accepted(receivers, "ill", range(COUNT + 200))
    database.wait_until("SELECT count(*) FROM held_ranges", 0)
    database.wait_until("SELECT count(*) FROM deliveries", 0)
    assert max(receivers.ledger("ill").accepted.values()) == 1
    assert_recorded_once(database)
    assert_backlog_counted(database)
    one.stop()


def test_held_offsets_that_kafka_deleted_are_counted_and_named(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    kafka.create_topic(topic, 1)
    receivers.manner("ill", "status", status=503)
    one = daemon(_config(kafka, database, receivers, topic, "hold")).migrate().start()
    for first in range(0, 1_500, 300):
        publish(kafka.bootstrap, topic, events(range(first, first + 300), partitions=1))
    wait_all_accepted(receivers, "well", range(1_500))
    wait_settled(kafka, database, topic)
    held = database.value("SELECT sum(end_offset - start_offset) FROM held_ranges")
    kafka.delete_records(topic, 0, 1_500)
    receivers.manner("ill", "ok")
    database.wait_until("SELECT count(*) FROM held_ranges", 0)
    wait_for(lambda: "held_range_lost" in one.log(), 20, "the loss to be named")
    assert one.metric("dispatcherd_held_offsets_lost_total") == held
    one.stop()


def test_a_held_batch_that_cannot_be_read_again_stays_owed_until_the_policy_says_to_go_on(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    """Two batches in a held range: one that never could be read (it lies in the quarantine: the
    range goes on behind it), and one that could be, until its bound was set lower."""
    kafka.create_topic(topic, 1)
    receivers.manner("ill", "status", status=503)
    config = _config(kafka, database, receivers, topic, "hold")
    config["kafka"]["on_unreadable"] = "skip"
    one = daemon(config).migrate().start()
    publish(kafka.bootstrap, topic, events(range(600), partitions=1))
    wait_for(lambda: one.metric("dispatcherd_at_owed_cap", "ill") == 1, 60, "the cap")
    first = [event(n) for n in range(600, 605)]
    produce(kafka.bootstrap, topic, 0, batch_with_a_header_name_that_is_not_utf8(first, 2))
    large = [event(n, size=500_000) for n in range(605, 609)]
    offset = produce(kafka.bootstrap, topic, 0, compressed_batch("zstd", large))
    publish(kafka.bootstrap, topic, events(range(609, 700), partitions=1))
    read = [*range(602), *range(605, 700)]
    wait_all_accepted(receivers, "well", read)
    wait_settled(kafka, database, topic)
    one.stop()

    one.config["limits"]["batch_inflated_bytes"] = MEGABYTE
    one.config["kafka"]["on_unreadable"] = "stop"
    one.write(one.config)
    one.start()
    receivers.manner("ill", "ok")
    wait_all_accepted(receivers, "ill", range(602))
    wait_for(lambda: "held_range_unreadable" in one.log(), 30, "the batch to be named")
    assert "limits.batch_inflated_bytes" in one.log() and "kafka.on_unreadable" in one.log()
    assert "held_range_lost" not in one.log()
    database.wait_until("SELECT min(start_offset) FROM held_ranges", offset)
    assert one.metric("dispatcherd_held_offsets_lost_total") == 0
    one.stop()

    one.config["kafka"]["on_unreadable"] = "skip"
    one.write(one.config)
    one.start()
    wait_all_accepted(receivers, "ill", [*range(602), *range(609, 700)])
    database.wait_until("SELECT count(*) FROM held_ranges", 0)
    assert f"{offset} to {offset + len(large) - 1}" in one.log()
    assert one.metric("dispatcherd_held_offsets_lost_total") == len(large)
    one.stop()


def test_with_dead_letter_oldest_the_newest_are_kept_owed(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    kafka.create_topic(topic, 4)
    receivers.manner("ill", "status", status=503)
    config = _config(kafka, database, receivers, topic, "dead_letter_oldest")
    one = daemon(config).migrate().start()
    publish(kafka.bootstrap, topic, events(range(COUNT), partitions=4))
    wait_all_accepted(receivers, "well", range(COUNT))
    wait_settled(kafka, database, topic)
    wait_for(lambda: _owed(database) <= CAP + 200, 60, "the oldest to be dead letters")
    buried = database.value(
        "SELECT count(*) FROM deliveries WHERE state = 2 AND reason = "
        "(SELECT id FROM reasons WHERE name = 'backlog_full')"
    )
    assert buried + _owed(database) == COUNT
    one.stop()
    assert_backlog_counted(database)


def test_with_stop_intake_nothing_more_is_taken_in_until_there_is_room(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    kafka.create_topic(topic, 4)
    receivers.manner("ill", "status", status=503)
    config = _config(kafka, database, receivers, topic, "stop_intake")
    one = daemon(config).migrate().start()
    publish(kafka.bootstrap, topic, events(range(COUNT), partitions=4))
    wait_for(lambda: "owed_cap_reached" in one.log(), 30, "the cap to be named")
    wait_for(
        lambda: one.metric("dispatcherd_paused_seconds_total", "owed_cap") > 0.5, 30, "the pause"
    )
    assert receivers.accepted("well") < COUNT
    assert _owed(database) <= CAP + SLACK
    receivers.manner("ill", "ok")
    for name in ("well", "ill"):
        wait_all_accepted(receivers, name, range(COUNT))
    wait_settled(kafka, database, topic)
    database.wait_until("SELECT count(*) FROM deliveries", 0)
    one.stop()
    assert_backlog_counted(database)
