"""The wall clock jumps by an hour, forwards and backwards: no timer hears of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.acceptance.checks import assert_recorded_once, wait_all_accepted, wait_settled
from tests.rig.clock import WallClock
from tests.rig.daemon import Daemon, config_for
from tests.rig.kafka import KafkaBroker
from tests.rig.postgres import Database
from tests.rig.producer import Flow
from tests.rig.receivers import Receivers
from tests.rig.waiting import wait_for

HOUR = 3_600


def test_a_clock_that_jumps_an_hour_moves_no_timer(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
    tmp_path: Path,
) -> None:
    """Deadlines (an exchange takes 0.3 s), retries (a second later, on the wheel and paged in),
    batches, sessions and flushes go on; only the times in rows and headers follow the clock."""
    kafka.create_topic(topic, 8)
    receivers.manner("slow", "slow", seconds=0.3)
    receivers.manner("flaky", "fail_first", times=2)
    retry = {"schedule_seconds": [0, 1], "max_attempts": 5, "jitter": 0}
    endpoints = [
        {"id": "slow", "url": receivers.url("slow"), "concurrency": 50, "timeout_seconds": 20},
        {"id": "flaky", "url": receivers.url("flaky"), "retry": retry},
        {"id": "batched", "url": receivers.url("batched"), "batch": {"max_events": 50}},
    ]
    names = [str(endpoint["id"]) for endpoint in endpoints]
    one = daemon(config_for(kafka.bootstrap, database.dsn, topic, endpoints)).migrate()
    clock = WallClock(tmp_path)
    one.environ = clock.environ
    one.start()
    flow = Flow(kafka.bootstrap, topic, at_once=10, pause_seconds=0.1)
    flow.start()

    def all_move() -> None:
        seen = {name: receivers.accepted(name) for name in names}
        for name in names:
            wait_for(lambda n=name: receivers.accepted(n) > seen[n] + 20, 60, f"{name} to go on")  # type: ignore[misc]

    for jump in (0, HOUR, 0, -HOUR, HOUR):
        clock.jump(jump)
        all_move()
    count = flow.stop()
    for name in names:
        wait_all_accepted(receivers, name, range(count))
    wait_settled(kafka, database, topic)
    assert_recorded_once(database)
    for event in ("process_was_frozen", "partition_fenced", "kafka_unavailable"):
        assert event not in one.log()
    ledger = receivers.ledger("slow")
    assert ledger.accepted.total() == count, "an exchange was given up by its deadline"
    stamps = [int(headers["webhook-timestamp"]) for headers, _ in ledger.kept]
    assert max(stamps) - min(stamps) > 2 * HOUR - 60, "the clock has not jumped"
    one.stop()
