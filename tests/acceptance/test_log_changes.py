"""The log changes under the daemon: retention runs over it, a topic is created again, one grows."""

from __future__ import annotations

from collections.abc import Callable

from tests.acceptance.scene import Scene
from tests.rig.producer import events
from tests.rig.waiting import wait_for


def test_offsets_deleted_by_retention_halt_the_partition_until_the_policy_says_to_go_on(
    scene: Callable[..., Scene],
) -> None:
    here = scene(1)
    one = here.start(here.endpoint("all"))
    here.publish(range(100))
    here.wait_accepted("all", range(100))
    here.wait_settled()
    one.stop()
    here.publish(range(100, 300))
    here.kafka.delete_records(here.topic, 0, 200)
    one.start()
    wait_for(lambda: "partition_halted" in one.log(), 30, "the halt to be named")
    assert "offsets 100 to 199 are gone" in one.log()
    assert one.metric("dispatcherd_halted", f"0,{here.topic}") == 1
    assert here.receivers.accepted("all") == 100
    one.stop()
    one.write({**one.config, "kafka": {**one.config["kafka"], "on_out_of_range": "earliest"}})
    one.start()
    here.wait_accepted("all", [*range(100), *range(200, 300)])
    here.wait_settled()
    one.stop()


def test_a_topic_created_again_halts_and_is_read_as_new_by_policy(
    scene: Callable[..., Scene],
) -> None:
    here = scene(1)
    one = here.start(here.endpoint("all"))
    here.publish(range(100))
    here.wait_accepted("all", range(100))
    here.wait_settled()
    one.stop()
    here.kafka.delete_topic(here.topic)
    here.kafka.create_topic(here.topic, 1)
    here.publish(range(100, 140))
    one.start()
    wait_for(lambda: "topic_recreated" in one.log(), 30, "the alarm")
    assert here.receivers.accepted("all") == 100
    one.stop()
    one.write({**one.config, "kafka": {**one.config["kafka"], "on_topic_recreated": "continue"}})
    one.start()
    here.wait_accepted("all", range(140))
    assert here.database.value("SELECT count(*) FROM topics WHERE name = $1", here.topic) == 2
    one.stop()


def test_partitions_added_to_a_topic_are_read_from_their_first_record(
    scene: Callable[..., Scene],
) -> None:
    here = scene(1)
    latest = {"start": "latest", "metadata_max_age_seconds": 2}
    one = here.start(here.endpoint("all"), kafka=latest)
    here.kafka.add_partitions(here.topic, 4)
    here.publish_records(events(range(200), partitions=4))
    here.wait_accepted("all", range(200))
    here.wait_settled()
    one.stop()
