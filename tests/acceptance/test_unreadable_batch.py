"""A batch that the Kafka client itself cannot read: loud, by the policy, nobody else's matter."""

from __future__ import annotations

from collections.abc import Callable

from tests.acceptance.scene import Scene
from tests.rig.producer import event
from tests.rig.raw_batch import batch_with_a_header_name_that_is_not_utf8, produce
from tests.rig.waiting import wait_for


def _fill(here: Scene) -> None:
    """0-199 over two partitions; in partition 0 a batch of 5, its third one unreadable; 200-299."""
    here.publish(range(200))
    values = [event(n) for n in range(1_000, 1_005)]
    produce(
        here.kafka.bootstrap, here.topic, 0, batch_with_a_header_name_that_is_not_utf8(values, 2)
    )
    here.publish(range(200, 300))


def test_what_cannot_be_read_halts_its_partition_and_no_other(scene: Callable[..., Scene]) -> None:
    here = scene(2)
    one = here.daemon(here.endpoint("all"))
    _fill(here)
    one.start()
    wait_for(lambda: "partition_halted" in one.log(), 30, "the halt to be named")
    readable = [*range(200), *range(201, 300, 2), 1_000, 1_001]
    here.wait_accepted("all", readable)
    assert set(here.receivers.ledger("all").accepted) == {f"e{n}" for n in readable}
    assert "kafka.on_unreadable" in one.log()
    assert one.metric("dispatcherd_halted", f"0,{here.topic}") == 1
    one.stop()


def test_with_the_policy_skip_the_rest_of_the_partition_is_delivered(
    scene: Callable[..., Scene],
) -> None:
    here = scene(2)
    skip = {"on_unreadable": "skip"}
    one = here.daemon(here.endpoint("all"), kafka=skip)
    _fill(here)
    one.start()
    here.wait_accepted("all", [*range(300), 1_000, 1_001])
    here.wait_settled()
    rows = here.database.fetch('SELECT partition, "offset", detail FROM quarantine')
    assert [(row["partition"], row["offset"]) for row in rows] == [(0, 102)]
    assert rows[0]["detail"].startswith("offsets 102 to 104 cannot be read")
    ledger = here.receivers.ledger("all")
    assert ledger.received.total() == 302, "something was read twice"
    one.stop()


def test_what_can_be_read_between_two_batches_that_cannot_is_delivered(
    scene: Callable[..., Scene],
) -> None:
    """Offsets 0 and 1 of a batch of 4, then one event, then a batch of 5 of which nothing can be
    read: a search for what is readable that took longer and longer steps would step over it."""
    here = scene(1)
    bootstrap, topic = here.kafka.bootstrap, here.topic
    skip = {"on_unreadable": "skip"}
    one = here.daemon(here.endpoint("all"), kafka=skip)
    values = [event(n) for n in range(4)]
    produce(bootstrap, topic, 0, batch_with_a_header_name_that_is_not_utf8(values, 2))
    here.publish([4])
    values = [event(n) for n in range(5, 10)]
    produce(bootstrap, topic, 0, batch_with_a_header_name_that_is_not_utf8(values, 0))
    here.publish(range(10, 40))
    one.start()
    here.wait_accepted("all", [0, 1, 4, *range(10, 40)])
    here.wait_settled()
    rows = here.database.fetch('SELECT "offset", detail FROM quarantine ORDER BY 1')
    assert [row["offset"] for row in rows] == [2, 5]
    assert [row["detail"].split(" cannot")[0] for row in rows] == [
        "offsets 2 to 3",
        "offsets 5 to 9",
    ]
    one.stop()
