"""What an endpoint may be owed is capped: the excess is held in Kafka, dead-lettered, or stops."""

from __future__ import annotations

from collections.abc import Callable

from tests.acceptance.checks import (
    assert_backlog_counted,
    assert_recorded_once,
)
from tests.acceptance.scene import Scene
from tests.rig.daemon import Daemon
from tests.rig.postgres import Database
from tests.rig.producer import event
from tests.rig.raw_batch import (
    batch_with_a_header_name_that_is_not_utf8,
    compressed_batch,
    produce,
)
from tests.rig.waiting import wait_for

MEGABYTE = 1 << 20
CAP = 300
COUNT = 3_900
"""A multiple of 300: it is published in pieces of that size."""
SLACK = 4 * 400
"""Rows above the cap that may come of what was in memory when it was reached: four windows."""


def _start(here: Scene, action: str, **kafka: str) -> Daemon:
    """With an endpoint that is well and one that is ill, and what to do at the cap."""
    here.receivers.manner("ill", "status", status=503)
    retry = {"schedule_seconds": [0, 0.5], "max_attempts": 1_000, "jitter": 0}
    limits = {
        "owed_per_endpoint": CAP,
        "at_owed_cap": action,
        "lane_deliveries": 200,
        "window_deliveries": 400,
    }
    endpoints = here.endpoint("well"), here.endpoint("ill", retry=retry)
    return here.start(*endpoints, limits=limits, kafka=kafka)


def _owed(database: Database) -> int:
    return int(database.value("SELECT count(*) FROM deliveries WHERE state = 1"))


def test_the_excess_is_held_in_kafka_and_delivered_after_a_restart_and_recovery(
    scene: Callable[..., Scene],
) -> None:
    here = scene(4)
    one = _start(here, "hold")
    for first in range(0, COUNT, 300):
        here.publish(range(first, first + 300))
    here.wait_accepted("well", range(COUNT))
    here.wait_settled()
    assert "owed_cap_reached" in one.log()
    assert CAP <= _owed(here.database) <= CAP + SLACK
    assert here.database.value("SELECT count(*) FROM held_ranges") > 0
    assert one.metric("dispatcherd_at_owed_cap", "ill") == 1
    one.stop()
    one.start()
    here.publish(range(COUNT, COUNT + 200))
    here.wait_accepted("well", range(COUNT + 200))
    here.receivers.manner("ill", "ok")
    here.wait_accepted("ill", range(COUNT + 200))
    here.database.wait_until("SELECT count(*) FROM held_ranges", 0)
    here.database.wait_until("SELECT count(*) FROM deliveries", 0)
    assert max(here.receivers.ledger("ill").accepted.values()) == 1
    assert_recorded_once(here.database)
    assert_backlog_counted(here.database)
    one.stop()


def test_held_offsets_that_kafka_deleted_are_counted_and_named(scene: Callable[..., Scene]) -> None:
    here = scene(1)
    one = _start(here, "hold")
    for first in range(0, 1_500, 300):
        here.publish(range(first, first + 300))
    here.wait_accepted("well", range(1_500))
    here.wait_settled()
    held = here.database.value("SELECT sum(end_offset - start_offset) FROM held_ranges")
    here.kafka.delete_records(here.topic, 0, 1_500)
    here.receivers.manner("ill", "ok")
    here.database.wait_until("SELECT count(*) FROM held_ranges", 0)
    wait_for(lambda: "held_range_lost" in one.log(), 20, "the loss to be named")
    assert one.metric("dispatcherd_held_offsets_lost_total") == held
    one.stop()


def test_a_held_batch_that_cannot_be_read_again_stays_owed_until_the_policy_says_to_go_on(
    scene: Callable[..., Scene],
) -> None:
    """Two batches in a held range: one that never could be read (it lies in the quarantine: the
    range goes on behind it), and one that could be, until its bound was set lower."""
    here = scene(1)
    one = _start(here, "hold", on_unreadable="skip")
    here.publish(range(600))
    wait_for(lambda: one.metric("dispatcherd_at_owed_cap", "ill") == 1, 60, "the cap")
    bootstrap, topic = here.kafka.bootstrap, here.topic
    first = [event(n) for n in range(600, 605)]
    produce(bootstrap, topic, 0, batch_with_a_header_name_that_is_not_utf8(first, 2))
    large = [event(n, size=500_000) for n in range(605, 609)]
    offset = produce(bootstrap, topic, 0, compressed_batch("zstd", large))
    here.publish(range(609, 700))
    here.wait_accepted("well", [*range(602), *range(605, 700)])
    here.wait_settled()
    one.stop()

    one.config["limits"]["batch_inflated_bytes"] = MEGABYTE
    one.config["kafka"]["on_unreadable"] = "stop"
    one.write(one.config)
    one.start()
    here.receivers.manner("ill", "ok")
    here.wait_accepted("ill", range(602))
    wait_for(lambda: "held_range_unreadable" in one.log(), 30, "the batch to be named")
    assert "limits.batch_inflated_bytes" in one.log() and "kafka.on_unreadable" in one.log()
    assert "held_range_lost" not in one.log()
    here.database.wait_until("SELECT min(start_offset) FROM held_ranges", offset)
    assert one.metric("dispatcherd_held_offsets_lost_total") == 0
    one.stop()

    one.config["kafka"]["on_unreadable"] = "skip"
    one.write(one.config)
    one.start()
    here.wait_accepted("ill", [*range(602), *range(609, 700)])
    here.database.wait_until("SELECT count(*) FROM held_ranges", 0)
    assert f"{offset} to {offset + len(large) - 1}" in one.log()
    assert one.metric("dispatcherd_held_offsets_lost_total") == len(large)
    one.stop()


def test_with_dead_letter_oldest_the_newest_are_kept_owed(scene: Callable[..., Scene]) -> None:
    here = scene(4)
    one = _start(here, "dead_letter_oldest")
    here.publish(range(COUNT))
    here.wait_accepted("well", range(COUNT))
    here.wait_settled()
    wait_for(lambda: _owed(here.database) <= CAP + 200, 60, "the oldest to be dead letters")
    buried = here.database.value(
        "SELECT count(*) FROM deliveries WHERE state = 2 AND reason = "
        "(SELECT id FROM reasons WHERE name = 'backlog_full')"
    )
    assert buried + _owed(here.database) == COUNT
    one.stop()
    assert_backlog_counted(here.database)


def test_with_stop_intake_nothing_more_is_taken_in_until_there_is_room(
    scene: Callable[..., Scene],
) -> None:
    here = scene(4)
    one = _start(here, "stop_intake")
    here.publish(range(COUNT))
    wait_for(lambda: "owed_cap_reached" in one.log(), 30, "the cap to be named")
    wait_for(
        lambda: one.metric("dispatcherd_paused_seconds_total", "owed_cap") > 0.5, 30, "the pause"
    )
    assert here.receivers.accepted("well") < COUNT
    assert _owed(here.database) <= CAP + SLACK
    here.receivers.manner("ill", "ok")
    for name in ("well", "ill"):
        here.wait_accepted(name, range(COUNT))
    here.wait_settled()
    here.database.wait_until("SELECT count(*) FROM deliveries", 0)
    one.stop()
    assert_backlog_counted(here.database)
