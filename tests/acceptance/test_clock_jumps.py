"""The wall clock jumps by an hour, forwards and backwards: no timer hears of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.acceptance.checks import assert_recorded_once
from tests.acceptance.scene import Scene
from tests.rig.clock import WallClock
from tests.rig.producer import Flow

HOUR = 3_600


def test_a_clock_that_jumps_an_hour_moves_no_timer(
    scene: Callable[..., Scene], tmp_path: Path
) -> None:
    """Deadlines (an exchange takes 0.3 s), retries (a second later, on the wheel and paged in),
    batches, sessions and flushes go on; only the times in rows and headers follow the clock."""
    here = scene(8)
    here.receivers.manner("slow", "slow", seconds=0.3)
    here.receivers.manner("flaky", "fail_first", times=2)
    retry = {"schedule_seconds": [0, 1], "max_attempts": 5, "jitter": 0}
    endpoints = [
        here.endpoint("slow", concurrency=50, timeout_seconds=20),
        here.endpoint("flaky", retry=retry),
        here.endpoint("batched", batch={"max_events": 50}),
    ]
    names = [str(endpoint["id"]) for endpoint in endpoints]
    one = here.daemon(*endpoints)
    clock = WallClock(tmp_path)
    one.environ = clock.environ
    one.start()
    flow = Flow(here.kafka.bootstrap, here.topic, at_once=10, pause_seconds=0.1)
    flow.start()

    def all_move() -> None:
        for name in names:
            here.wait_more_accepted(name, 20)

    for jump in (0, HOUR, 0, -HOUR, HOUR):
        clock.jump(jump)
        all_move()
    count = flow.stop()
    for name in names:
        here.wait_accepted(name, range(count))
    here.wait_settled()
    assert_recorded_once(here.database)
    for event in ("process_was_frozen", "partition_fenced", "kafka_unavailable"):
        assert event not in one.log()
    ledger = here.receivers.ledger("slow")
    assert ledger.accepted.total() == count, "an exchange was given up by its deadline"
    stamps = [int(headers["webhook-timestamp"]) for headers, _ in ledger.kept]
    assert max(stamps) - min(stamps) > 2 * HOUR - 60, "the clock has not jumped"
    one.stop()
