"""SIGKILL and SIGTERM under load: nothing lost, and no more repeated than was unrecorded."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from tests.acceptance.checks import (
    assert_recorded_once,
)
from tests.acceptance.scene import Scene
from tests.rig.producer import Flow
from tests.rig.waiting import wait_for

KILLS = 10
NAMES = ("quick", "slow", "batched")


def _endpoints(here: Scene) -> list[dict[str, object]]:
    return [
        here.endpoint("quick", concurrency=5),
        here.endpoint("slow", concurrency=40),
        here.endpoint("batched", batch={"max_events": 20, "max_wait_seconds": 0.1}),
    ]


def _unrecorded(here: Scene) -> int:
    """Requests that receivers saw and Postgres did not record."""
    recorded = here.database.value("SELECT count(DISTINCT exchange_id) FROM attempts WHERE sent")
    return sum(counts[0] for counts in here.receivers.summary().values()) - int(recorded)


def test_ten_kills_lose_nothing_and_repeat_only_what_was_unrecorded(
    scene: Callable[..., Scene],
) -> None:
    here = scene(8)
    chance = random.Random(here.topic)
    here.receivers.manner("slow", "slow", seconds=0.05)
    # A killed member stands in its successor's way until its session ends: a short one.
    session = {"session_timeout_seconds": 3, "heartbeat_interval_seconds": 1}
    one = here.start(*_endpoints(here), kafka=session)
    flow = Flow(here.kafka.bootstrap, here.topic, at_once=300, pause_seconds=0.3)
    flow.start()
    for _ in range(KILLS):
        here.wait_more_accepted("quick")
        time.sleep(chance.random())  # a random moment is what the claim is about
        one.kill()
        one.start()
    count = flow.stop()
    for name in NAMES:
        here.wait_accepted(name, range(count))
    here.wait_settled()
    here.database.wait_until("SELECT count(*) FROM deliveries", 0)
    repeats = {}
    for name in NAMES:
        ledger = here.receivers.ledger(name)
        repeats[name] = ledger.received.total() - len(ledger.received)
    assert_recorded_once(here.database)
    unrecorded = _unrecorded(here)
    # A request that went unrecorded is made again: one repeat, or a batch of twenty.
    assert repeats["quick"] + repeats["slow"] <= unrecorded
    assert repeats["batched"] <= 20 * unrecorded
    # What can be unrecorded at a kill: what was in the air, and one flush interval's outcomes.
    assert unrecorded <= KILLS * 1_500, unrecorded


def test_sigterm_under_load_exits_in_time_and_nothing_is_sent_again(
    scene: Callable[..., Scene],
) -> None:
    here = scene(8)
    here.receivers.manner("slow", "slow", seconds=0.2)
    one = here.start(*_endpoints(here))
    here.publish(range(5_000))
    wait_for(lambda: here.receivers.accepted("quick") > 500, 60, "load")
    for _ in range(3):
        one.sigterm()
        assert one.wait_exit(12) == 0, one.log()[-2000:]
        one.start()
    for name in NAMES:
        here.wait_accepted(name, range(5_000))
    here.wait_settled()
    for name in NAMES:
        ledger = here.receivers.ledger(name)
        assert ledger.received.total() == 5_000, f"{name} got an event twice"
    assert _unrecorded(here) == 0


def test_a_second_signal_exits_at_once(scene: Callable[..., Scene]) -> None:
    here = scene(1)
    here.receivers.manner("hung", "hang")
    one = here.start(here.endpoint("hung", timeout_seconds=60), shutdown_timeout_seconds=60.0)
    here.publish(range(5))
    wait_for(lambda: here.receivers.summary().get("hung", [0])[0], 20, "a request in the air")
    one.sigterm()
    wait_for(lambda: "stopping" in one.log(), 10, "the first signal to be heard")
    one.sigterm()
    assert one.wait_exit(5) == 1
