"""Several daemons in one group: joining, leaving, frozen, churning."""

from __future__ import annotations

from collections.abc import Callable

from tests.acceptance.checks import (
    assert_recorded_once,
    watermarks,
)
from tests.acceptance.scene import Scene
from tests.rig.daemon import Daemon
from tests.rig.waiting import wait_for

COUNT = 6_000


def _owned(one: Daemon) -> int:
    """Partitions of which a daemon shows an end offset: those that it reads."""
    return sum(1 for name, _ in one.metrics() if name == "dispatcherd_end_offset")


def test_members_join_and_leave_and_one_freezes_past_its_session(
    scene: Callable[..., Scene],
) -> None:
    here = scene(8)
    here.receivers.manner("slow", "slow", seconds=0.3)
    endpoints = [
        here.endpoint("quick"),
        here.endpoint("slow", concurrency=100),
    ]
    config = here.config(*endpoints)
    first = here.make(config, "first").start()
    here.publish(range(2_000))
    second = here.make(config, "second").start()
    here.publish(range(2_000, 3_000))
    wait_for(lambda: here.receivers.accepted("quick") > 2_200, 60, "work by both")
    second.freeze()
    here.publish(range(3_000, 4_500))
    # The frozen one's session ends, the other claims its partitions and goes on.
    here.wait_accepted("quick", range(4_500))
    epochs = here.database.value("SELECT max(epoch) FROM progress")
    second.thaw()
    here.publish(range(4_500, COUNT))
    for name in ("quick", "slow"):
        here.wait_accepted(name, range(COUNT))
    here.wait_settled()
    wait_for(lambda: second.ready(), 30, "the stale one to work again")
    assert here.database.value("SELECT max(epoch) FROM progress") >= epochs
    assert_recorded_once(here.database)
    for name in ("quick", "slow"):
        ledger = here.receivers.ledger(name)
        repeats = ledger.received.total() - len(ledger.received)
        # What was in the air, or answered and unrecorded, when a partition moved.
        assert repeats <= 500, f"{name}: {repeats} repeats"
    second.stop()
    first.stop()


def test_members_churning_against_a_slow_receiver_still_settle(scene: Callable[..., Scene]) -> None:
    here = scene(8)
    here.receivers.manner("slow", "slow", seconds=4)
    config = here.config(here.endpoint("slow", concurrency=200))
    steady = here.make(config, "steady").start()
    here.publish(range(1_000))
    for number in range(3):
        other = here.make(config, f"churning{number}").start()
        wait_for(lambda one=other: _owned(one) > 0, 40, "the newcomer to own something")  # type: ignore[misc]
        other.stop()
    here.wait_accepted("slow", range(1_000), timeout_seconds=120)
    here.wait_settled()
    assert_recorded_once(here.database)
    steady.stop()


def test_a_member_frozen_while_it_claims_does_not_wedge_the_rightful_owner(
    scene: Callable[..., Scene],
) -> None:
    here = scene(8)
    config = here.config(here.endpoint("quick"))
    first = here.make(config, "first").start()
    here.publish(range(500))
    here.wait_accepted("quick", range(500))
    late = here.make(config, "late").start(wait=False)
    wait_for(lambda: "starting" in late.log(), 20, "the late one to start")
    # It freezes somewhere between start and claim, several times, past its session each time.
    for _ in range(2):
        late.freeze()
        before = here.receivers.accepted("quick")
        here.publish(range(before, before + 500))
        here.wait_accepted("quick", range(before + 500), timeout_seconds=60)
        late.thaw()
    wait_for(late.ready, 60, "the late one to be ready")
    before = here.receivers.accepted("quick")
    here.publish(range(before, before + 1_000))
    here.wait_accepted("quick", range(before + 1_000), timeout_seconds=60)
    here.wait_settled()
    assert_recorded_once(here.database)
    assert watermarks(here.database, here.topic) == here.kafka.end_offsets(here.topic)
    late.stop()
    first.stop()


def test_two_groups_on_one_database_are_refused(scene: Callable[..., Scene]) -> None:
    here = scene(1)
    endpoints = [here.endpoint("quick")]
    first = here.start(*endpoints)
    other = here.daemon(*endpoints, kafka={"group_id": "other"}).start(wait=False)
    assert other.wait_exit(20) == 1
    assert "two groups or clusters on one database" in other.log()
    first.stop()


def test_an_endpoint_missing_from_one_file_is_held_and_not_removed(
    scene: Callable[..., Scene],
) -> None:
    here = scene(4)
    full = here.config(here.endpoint("kept"), here.endpoint("dropped"))
    one = here.make(full).start()
    here.publish(range(100))
    here.wait_accepted("dropped", range(100))
    one.write({**one.config, "endpoints": one.config["endpoints"][:1]})
    one.signal(1)
    wait_for(lambda: "endpoint_held" in one.log(), 20, "the hold to be named")
    here.publish(range(100, 200))
    here.wait_accepted("kept", range(200))
    here.database.wait_until("SELECT count(*) FROM deliveries WHERE state = 1", 100)
    assert here.receivers.accepted("dropped") == 100
    one.write({**full, "admin": {"port": one.port}})
    one.signal(1)
    here.wait_accepted("dropped", range(200))
    one.write({**one.config, "endpoints": one.config["endpoints"][:1]})
    one.signal(1)
    wait_for(lambda: one.metric("dispatcherd_held", "dropped") == 1, 20, "the second hold")
    here.publish(range(200, 300))
    here.database.wait_until("SELECT count(*) FROM deliveries WHERE state = 1", 100)
    removed = one.command("endpoints", "remove", "dropped")
    assert removed.returncode == 0, removed.stderr
    here.database.wait_until(
        "SELECT count(*) FROM deliveries WHERE state = 2 AND reason = "
        "(SELECT id FROM reasons WHERE name = 'endpoint_removed')",
        100,
    )
    one.stop()


def test_a_reload_registers_again_what_was_removed_though_the_file_has_it(
    scene: Callable[..., Scene],
) -> None:
    """The file has not changed: a reload must not take that for a table that has not either."""
    here = scene(1)
    one = here.start(here.endpoint("kept"))
    removed = one.command("endpoints", "remove", "kept")
    assert removed.returncode == 0, removed.stderr
    wait_for(lambda: "endpoints_removed" in one.log(), 20, "the removal to be named")
    one.signal(1)
    here.database.wait_until("SELECT count(*) FROM endpoints WHERE removed_at IS NULL", 1)
    wait_for(lambda: '"reloaded"' in one.log(), 20, "the reload")
    here.publish(range(10))
    here.wait_accepted("kept", range(10))
    one.stop()
