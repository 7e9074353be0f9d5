"""Deliveries owed in a topic that nobody subscribes to any more: alarmed, and sent on request."""

from __future__ import annotations

from collections.abc import Callable

from tests.acceptance.checks import assert_backlog_counted
from tests.acceptance.scene import Scene
from tests.rig.waiting import wait_for


def test_what_a_topic_no_longer_subscribed_to_owes_is_alarmed_and_sent_once_it_is_adopted(
    scene: Callable[..., Scene],
) -> None:
    here = scene(2)
    topic, other = here.topic, f"{here.topic}-other"
    here.kafka.create_topic(other, 2)
    here.receivers.manner("ill", "status", status=503)
    retry = {"schedule_seconds": [0, 0.5], "max_attempts": 1_000, "jitter": 0}
    one = here.start(here.endpoint("ill", retry=retry))
    here.publish(range(100))
    here.wait_settled()
    one.stop()
    # The owner stopped more than a minute ago, as far as the database can tell.
    here.database.execute("UPDATE instances SET stopped_at = now() - interval '2 minutes'")

    one.write({**one.config, "kafka": {**one.config["kafka"], "topics": [other]}})
    here.receivers.manner("ill", "ok")
    one.start()
    wait_for(lambda: "deliveries_of_nobody" in one.log(), 30, "the alarm")
    assert one.metric("dispatcherd_orphaned") == 100
    assert here.receivers.accepted("ill") == 0
    shown = one.command("adopt")
    assert f"{topic}/0: 50 owed" in shown.stdout, shown
    unknown = one.command("adopt", "no-such-topic")
    assert unknown.returncode == 1 and "no-such-topic" in unknown.stderr

    asked = one.command("adopt", topic)
    assert asked.returncode == 0, asked.stderr
    here.wait_accepted("ill", range(100))
    here.database.wait_until("SELECT count(*) FROM deliveries", 0)
    assert_backlog_counted(here.database)

    # Subscribed to again, it is claimed in full, and nothing is sent twice.
    one.stop()
    one.write({**one.config, "kafka": {**one.config["kafka"], "topics": [topic, other]}})
    one.start()
    here.publish(range(100, 150))
    here.wait_accepted("ill", range(150))
    assert max(here.receivers.ledger("ill").accepted.values()) == 1
    one.stop()
