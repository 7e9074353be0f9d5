"""Several topics and patterns at once, consumed from a real broker."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.acceptance.checks import (
    assert_exchanges_match,
    assert_recorded_once,
    wait_all_accepted,
    wait_committed,
    wait_settled,
)
from tests.rig.commands import Commands
from tests.rig.daemon import Daemon, config_for
from tests.rig.kafka import KafkaBroker
from tests.rig.postgres import Database
from tests.rig.producer import events, publish
from tests.rig.receivers import Receivers
from tests.rig.waiting import wait_for

pytestmark = pytest.mark.filterwarnings("ignore")


def test_named_topics_and_a_topic_that_matches_a_pattern_and_is_created_later_are_consumed(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    named, second = f"{topic}.orders", f"{topic}.users"
    later = f"{topic}-team-late-events"
    strangers = [f"{topic}-team-late-events-2", f"x{topic}-team-a-events", f"{topic}xorders"]
    for name in (named, second, *strangers):
        kafka.create_topic(name, 2)
    config = config_for(
        kafka.bootstrap,
        database.dsn,
        named,
        [{"id": "all", "url": receivers.url("all")}],
        kafka={
            "topics": [named, second],
            "topic_patterns": [f"{topic}-team-[a-z]+-events", f"{topic}-(?i:AUDIT)"],
            "metadata_max_age_seconds": 1,
        },
    )
    one = daemon(config).start()
    for first, name in ((0, named), (100, second), (900, strangers[0]), (900, strangers[1]),
                        (900, strangers[2])):  # fmt: skip
        publish(kafka.bootstrap, name, events(range(first, first + 100), partitions=2))
    wait_all_accepted(receivers, "all", range(200))

    # While the daemon runs: the topic, its first records, and one more under another pattern.
    kafka.create_topic(later, 3)
    publish(kafka.bootstrap, later, events(range(200, 300), partitions=3))
    kafka.create_topic(f"{topic}-audit", 1)
    publish(kafka.bootstrap, f"{topic}-audit", events(range(300, 400), partitions=1))
    wait_all_accepted(receivers, "all", range(400))

    consumed = [named, second, later, f"{topic}-audit"]
    for name in consumed:
        wait_settled(kafka, database, name)
        wait_committed(kafka, database, name, f"group-{named}")
    assert {row["name"] for row in database.fetch("SELECT name FROM topics")} == set(consumed)
    ledger = receivers.ledger("all")
    assert set(ledger.received) == {f"e{n}" for n in range(400)}
    one.stop()
    assert_exchanges_match(database, receivers)
    assert_recorded_once(database)


def test_one_event_in_two_topics_is_two_deliveries(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    """The commands tell them apart by topic, also where producers gave both the same id."""
    first, second = f"{topic}.a", f"{topic}.b"
    for name in (first, second):
        kafka.create_topic(name, 1)
    receivers.manner("all", "status", status=410)
    config = config_for(
        kafka.bootstrap, database.dsn, first,
        [{"id": "all", "url": receivers.url("all")}],
        kafka={"topics": [first, second]},
    )  # fmt: skip
    one = daemon(config).start()
    for name in (first, second):
        publish(kafka.bootstrap, name, events(range(1), partitions=1))
        wait_settled(kafka, database, name)
    commands = Commands(one.path.parent / "operator", config)
    rows = [json.loads(line) for line in commands.ok("deliveries", "--json").splitlines()]
    assert sorted((row["id"], row["topic"]) for row in rows) == [("e0", first), ("e0", second)]
    receivers.manner("all", "ok")
    assert commands.ok("retry", "--id", "e0") == "2 deliveries due now\n"
    database.wait_until("SELECT count(*) FROM deliveries", 0)
    assert receivers.ledger("all").accepted["e0"] == 2
    one.stop()


def test_a_named_topic_that_does_not_exist_is_waited_for_and_said(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    endpoint = {"id": "all", "url": receivers.url("all")}
    one = daemon(config_for(kafka.bootstrap, database.dsn, topic, [endpoint]))
    one.start(wait=False)
    words = "a topic of kafka.topics does not exist: create it, or mend its name"
    wait_for(lambda: words in one.log(), 60, "the reason in the log")
    assert not one.ready()
    kafka.create_topic(topic, 1)
    one.wait_ready(60)
    publish(kafka.bootstrap, topic, events(range(10), partitions=1))
    wait_all_accepted(receivers, "all", range(10))
    one.stop()
