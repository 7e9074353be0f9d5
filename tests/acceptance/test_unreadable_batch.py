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
