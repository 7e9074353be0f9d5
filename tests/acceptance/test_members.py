"""Several daemons in one group: joining, leaving, frozen, churning."""

from __future__ import annotations

from collections.abc import Callable

from tests.acceptance.checks import (
    assert_recorded_once,
    wait_all_accepted,
    wait_settled,
    watermarks,
)
from tests.rig.daemon import Daemon, config_for
from tests.rig.kafka import KafkaBroker
from tests.rig.postgres import Database
from tests.rig.producer import events, publish
from tests.rig.receivers import Receivers
from tests.rig.waiting import wait_for

COUNT = 6_000


def _owned(one: Daemon) -> int:
    """Partitions of which a daemon shows an end offset: those that it reads."""
    return sum(1 for name, _ in one.metrics() if name == "dispatcherd_end_offset")


def test_members_join_and_leave_and_one_freezes_past_its_session(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    kafka.create_topic(topic, 8)
    receivers.manner("slow", "slow", seconds=0.3)
    endpoints = [
        {"id": "quick", "url": receivers.url("quick")},
        {"id": "slow", "url": receivers.url("slow"), "concurrency": 100},
    ]
    config = config_for(kafka.bootstrap, database.dsn, topic, endpoints)
    first = daemon(config, "first").migrate().start()
    publish(kafka.bootstrap, topic, events(range(2_000)))
    second = daemon(config, "second").start()
    publish(kafka.bootstrap, topic, events(range(2_000, 3_000)))
    wait_for(lambda: receivers.accepted("quick") > 2_200, 60, "work by both")
    second.freeze()
    publish(kafka.bootstrap, topic, events(range(3_000, 4_500)))
    # The frozen one's session ends, the other claims its partitions and goes on.
    wait_all_accepted(receivers, "quick", range(4_500))
    epochs = database.value("SELECT max(epoch) FROM progress")
    second.thaw()
    publish(kafka.bootstrap, topic, events(range(4_500, COUNT)))
    for name in ("quick", "slow"):
        wait_all_accepted(receivers, name, range(COUNT))
    wait_settled(kafka, database, topic)
    wait_for(lambda: second.ready(), 30, "the stale one to work again")
    assert database.value("SELECT max(epoch) FROM progress") >= epochs
    assert_recorded_once(database)
    for name in ("quick", "slow"):
        ledger = receivers.ledger(name)
        repeats = ledger.received.total() - len(ledger.received)
        # What was in the air, or answered and unrecorded, when a partition moved.
        assert repeats <= 500, f"{name}: {repeats} repeats"
    second.stop()
    first.stop()


def test_members_churning_against_a_slow_receiver_still_settle(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    kafka.create_topic(topic, 8)
    receivers.manner("slow", "slow", seconds=4)
    endpoints = [{"id": "slow", "url": receivers.url("slow"), "concurrency": 200}]
    config = config_for(kafka.bootstrap, database.dsn, topic, endpoints)
    steady = daemon(config, "steady").migrate().start()
    publish(kafka.bootstrap, topic, events(range(1_000)))
    for number in range(3):
        other = daemon(config, f"churning{number}").start()
        wait_for(lambda one=other: _owned(one) > 0, 40, "the newcomer to own something")  # type: ignore[misc]
        other.stop()
    wait_all_accepted(receivers, "slow", range(1_000), timeout_seconds=120)
    wait_settled(kafka, database, topic)
    assert_recorded_once(database)
    steady.stop()


def test_a_member_frozen_while_it_claims_does_not_wedge_the_rightful_owner(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    kafka.create_topic(topic, 8)
    endpoints = [{"id": "quick", "url": receivers.url("quick")}]
    config = config_for(kafka.bootstrap, database.dsn, topic, endpoints)
    first = daemon(config, "first").migrate().start()
    publish(kafka.bootstrap, topic, events(range(500)))
    wait_all_accepted(receivers, "quick", range(500))
    late = daemon(config, "late").start(wait=False)
    wait_for(lambda: "starting" in late.log(), 20, "the late one to start")
    # It freezes somewhere between start and claim, several times, past its session each time.
    for _ in range(2):
        late.freeze()
        before = receivers.accepted("quick")
        publish(kafka.bootstrap, topic, events(range(before, before + 500)))
        wait_all_accepted(receivers, "quick", range(before + 500), timeout_seconds=60)
        late.thaw()
    wait_for(late.ready, 60, "the late one to be ready")
    before = receivers.accepted("quick")
    publish(kafka.bootstrap, topic, events(range(before, before + 1_000)))
    wait_all_accepted(receivers, "quick", range(before + 1_000), timeout_seconds=60)
    wait_settled(kafka, database, topic)
    assert_recorded_once(database)
    assert watermarks(database, topic) == kafka.end_offsets(topic)
    late.stop()
    first.stop()


def test_two_groups_on_one_database_are_refused(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    kafka.create_topic(topic, 1)
    endpoints = [{"id": "quick", "url": receivers.url("quick")}]
    first = daemon(config_for(kafka.bootstrap, database.dsn, topic, endpoints)).migrate().start()
    other = daemon(
        config_for(kafka.bootstrap, database.dsn, topic, endpoints, kafka={"group_id": "other"})
    ).start(wait=False)
    assert other.wait_exit(20) == 1
    assert "two groups or clusters on one database" in other.log()
    first.stop()


def test_an_endpoint_missing_from_one_file_is_held_and_not_removed(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    kafka.create_topic(topic, 4)
    both = [
        {"id": "kept", "url": receivers.url("kept")},
        {"id": "dropped", "url": receivers.url("dropped")},
    ]
    full = config_for(kafka.bootstrap, database.dsn, topic, both)
    one = daemon(full).migrate().start()
    publish(kafka.bootstrap, topic, events(range(100), partitions=4))
    wait_all_accepted(receivers, "dropped", range(100))
    one.write({**one.config, "endpoints": one.config["endpoints"][:1]})
    one.signal(1)
    wait_for(lambda: "endpoint_held" in one.log(), 20, "the hold to be named")
    publish(kafka.bootstrap, topic, events(range(100, 200), partitions=4))
    wait_all_accepted(receivers, "kept", range(200))
    database.wait_until("SELECT count(*) FROM deliveries WHERE state = 1", 100)
    assert receivers.accepted("dropped") == 100
    one.write({**full, "admin": {"port": one.port}})
    one.signal(1)
    wait_all_accepted(receivers, "dropped", range(200))
    one.write({**one.config, "endpoints": one.config["endpoints"][:1]})
    one.signal(1)
    wait_for(lambda: one.metric("dispatcherd_held", "dropped") == 1, 20, "the second hold")
    publish(kafka.bootstrap, topic, events(range(200, 300), partitions=4))
    database.wait_until("SELECT count(*) FROM deliveries WHERE state = 1", 100)
    removed = one.command("endpoints", "remove", "dropped")
    assert removed.returncode == 0, removed.stderr
    database.wait_until(
        "SELECT count(*) FROM deliveries WHERE state = 2 AND reason = "
        "(SELECT id FROM reasons WHERE name = 'endpoint_removed')",
        100,
    )
    one.stop()


def test_a_reload_registers_again_what_was_removed_though_the_file_has_it(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    """The file has not changed: a reload must not take that for a table that has not either."""
    kafka.create_topic(topic, 1)
    mine = [{"id": "kept", "url": receivers.url("kept")}]
    one = daemon(config_for(kafka.bootstrap, database.dsn, topic, mine)).migrate().start()
    removed = one.command("endpoints", "remove", "kept")
    assert removed.returncode == 0, removed.stderr
    wait_for(lambda: "endpoints_removed" in one.log(), 20, "the removal to be named")
    one.signal(1)
    database.wait_until("SELECT count(*) FROM endpoints WHERE removed_at IS NULL", 1)
    wait_for(lambda: '"reloaded"' in one.log(), 20, "the reload")
    publish(kafka.bootstrap, topic, events(range(10), partitions=1))
    wait_all_accepted(receivers, "kept", range(10))
    one.stop()
