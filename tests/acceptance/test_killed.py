"""SIGKILL and SIGTERM under load: nothing lost, and no more repeated than was unrecorded."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from tests.acceptance.checks import (
    assert_recorded_once,
    wait_all_accepted,
    wait_settled,
)
from tests.rig.daemon import Daemon, config_for
from tests.rig.kafka import KafkaBroker
from tests.rig.postgres import Database
from tests.rig.producer import Flow, events, publish
from tests.rig.receivers import Receivers
from tests.rig.waiting import wait_for

KILLS = 10
NAMES = ("quick", "slow", "batched")


def _endpoints(receivers: Receivers) -> list[dict[str, object]]:
    return [
        {"id": "quick", "url": receivers.url("quick"), "concurrency": 5},
        {"id": "slow", "url": receivers.url("slow"), "concurrency": 40},
        {"id": "batched", "url": receivers.url("batched"),
         "batch": {"max_events": 20, "max_wait_seconds": 0.1}},
    ]  # fmt: skip


def _unrecorded(database: Database, receivers: Receivers) -> int:
    """Requests that receivers saw and Postgres did not record."""
    recorded = database.value("SELECT count(DISTINCT exchange_id) FROM attempts WHERE sent")
    return sum(counts[0] for counts in receivers.summary().values()) - int(recorded)


def test_ten_kills_lose_nothing_and_repeat_only_what_was_unrecorded(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    chance = random.Random(topic)
    kafka.create_topic(topic, 8)
    receivers.manner("slow", "slow", seconds=0.05)
    # A killed member stands in its successor's way until its session ends: a short one.
    session = {"session_timeout_seconds": 3, "heartbeat_interval_seconds": 1}
    config = config_for(kafka.bootstrap, database.dsn, topic, _endpoints(receivers), kafka=session)
    one = daemon(config).migrate().start()
    flow = Flow(kafka.bootstrap, topic, at_once=300, pause_seconds=0.3)
    flow.start()
    for _ in range(KILLS):
        before = receivers.accepted("quick")
        wait_for(lambda seen=before: receivers.accepted("quick") > seen, 60, "work after a kill")  # type: ignore[misc]
        time.sleep(chance.random())  # a random moment is what the claim is about
        one.kill()
        one.start()
    count = flow.stop()
    for name in NAMES:
        wait_all_accepted(receivers, name, range(count))
    wait_settled(kafka, database, topic)
    database.wait_until("SELECT count(*) FROM deliveries", 0)
    repeats = {}
    for name in NAMES:
        ledger = receivers.ledger(name)
        repeats[name] = ledger.received.total() - len(ledger.received)
    assert_recorded_once(database)
    unrecorded = _unrecorded(database, receivers)
    # A request that went unrecorded is made again: one repeat, or a batch of twenty.
    assert repeats["quick"] + repeats["slow"] <= unrecorded
    assert repeats["batched"] <= 20 * unrecorded
    # What can be unrecorded at a kill: what was in the air, and one flush interval's outcomes.
    assert unrecorded <= KILLS * 1_500, unrecorded


def test_sigterm_under_load_exits_in_time_and_nothing_is_sent_again(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    kafka.create_topic(topic, 8)
    receivers.manner("slow", "slow", seconds=0.2)
    config = config_for(kafka.bootstrap, database.dsn, topic, _endpoints(receivers))
    one = daemon(config).migrate().start()
    publish(kafka.bootstrap, topic, events(range(5_000)))
    wait_for(lambda: receivers.accepted("quick") > 500, 60, "load")
    for _ in range(3):
        one.sigterm()
        assert one.wait_exit(12) == 0, one.log()[-2000:]
        one.start()
    for name in NAMES:
        wait_all_accepted(receivers, name, range(5_000))
    wait_settled(kafka, database, topic)
    for name in NAMES:
        ledger = receivers.ledger(name)
        assert ledger.received.total() == 5_000, f"{name} got an event twice"
    assert _unrecorded(database, receivers) == 0


def test_a_second_signal_exits_at_once(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    kafka.create_topic(topic, 1)
    receivers.manner("hung", "hang")
    endpoints = [{"id": "hung", "url": receivers.url("hung"), "timeout_seconds": 60}]
    config = config_for(
        kafka.bootstrap, database.dsn, topic, endpoints, shutdown_timeout_seconds=60.0
    )
    one = daemon(config).migrate().start()
    publish(kafka.bootstrap, topic, events(range(5), partitions=1))
    wait_for(lambda: receivers.summary().get("hung", [0])[0] >= 5, 20, "requests in the air")
    one.sigterm()
    wait_for(lambda: "stopping" in one.log(), 10, "the first signal to be heard")
    one.sigterm()
    assert one.wait_exit(5) == 1
