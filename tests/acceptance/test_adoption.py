"""Deliveries owed in a topic that nobody subscribes to any more: alarmed, and sent on request."""

from __future__ import annotations

from collections.abc import Callable

from tests.acceptance.checks import assert_backlog_counted, wait_all_accepted, wait_settled
from tests.rig.daemon import Daemon, config_for
from tests.rig.kafka import KafkaBroker
from tests.rig.postgres import Database
from tests.rig.producer import events, publish
from tests.rig.receivers import Receivers
from tests.rig.waiting import wait_for


def test_what_a_topic_no_longer_subscribed_to_owes_is_alarmed_and_sent_once_it_is_adopted(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    other = f"{topic}-other"
    for name in (topic, other):
        kafka.create_topic(name, 2)
    receivers.manner("ill", "status", status=503)
    retry = {"schedule_seconds": [0, 0.5], "max_attempts": 1_000, "jitter": 0}
    endpoints = [{"id": "ill", "url": receivers.url("ill"), "retry": retry}]
    config = config_for(kafka.bootstrap, database.dsn, topic, endpoints)
    one = daemon(config).start()
    publish(kafka.bootstrap, topic, events(range(100), partitions=2))
    wait_settled(kafka, database, topic)
    one.stop()
    # The owner stopped more than a minute ago, as far as the database can tell.
    database.execute("UPDATE instances SET stopped_at = now() - interval '2 minutes'")

    one.write({**one.config, "kafka": {**one.config["kafka"], "topics": [other]}})
    receivers.manner("ill", "ok")
    one.start()
    wait_for(lambda: "deliveries_of_nobody" in one.log(), 30, "the alarm")
    assert one.metric("dispatcherd_orphaned") == 100
    assert receivers.accepted("ill") == 0
    shown = one.command("adopt")
    assert f"{topic}/0: 50 owed" in shown.stdout, shown
    unknown = one.command("adopt", "no-such-topic")
    assert unknown.returncode == 1 and "no-such-topic" in unknown.stderr

    asked = one.command("adopt", topic)
    assert asked.returncode == 0, asked.stderr
    wait_all_accepted(receivers, "ill", range(100))
    database.wait_until("SELECT count(*) FROM deliveries", 0)
    assert_backlog_counted(database)

    # Subscribed to again, it is claimed in full, and nothing is sent twice.
    one.stop()
    one.write({**one.config, "kafka": {**one.config["kafka"], "topics": [topic, other]}})
    one.start()
    publish(kafka.bootstrap, topic, events(range(100, 150), partitions=2))
    wait_all_accepted(receivers, "ill", range(150))
    assert max(receivers.ledger("ill").accepted.values()) == 1
    one.stop()
