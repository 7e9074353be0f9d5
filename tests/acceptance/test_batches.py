"""Batches: one that failed is tried again as it was, one that was refused in smaller ones, and one
that waits to fill is left to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.acceptance.scene import Scene
from tests.rig.waiting import wait_for


def test_a_batch_that_failed_is_tried_again_with_its_members_and_its_id(
    scene: Callable[..., Scene],
) -> None:
    here = scene(1)
    here.receivers.manner("batched", "fail_first", times=2)
    endpoint = here.endpoint(
        "batched",
        batch={"max_events": 10, "max_wait_seconds": 5},
        retry={"schedule_seconds": [0, 0.5], "max_attempts": 10, "jitter": 0},
    )
    here.publish(range(10))
    one = here.start(endpoint)
    here.wait_accepted("batched", range(10))
    ledger = here.receivers.ledger("batched")
    kept = [(headers["webhook-id"], len(json.loads(body))) for headers, body in ledger.kept]
    assert ledger.requests == 3, kept
    assert len(set(kept)) == 1, kept
    assert kept[0][1] == 10
    here.database.wait_until("SELECT count(*) FROM attempts", 30)
    numbers = here.database.fetch("SELECT number, count(*) FROM attempts GROUP BY 1 ORDER BY 1")
    assert [tuple(row) for row in numbers] == [(1, 10), (2, 10), (3, 10)]
    one.stop()


def refusing(here: Scene, wait_seconds: float) -> dict[str, Any]:
    """An endpoint that answers 400 to whatever event 37 is in."""
    here.receivers.manner("batched", "refuse_member", member="e37")
    return here.endpoint(
        "batched",
        batch={"max_events": 100, "max_wait_seconds": 5},
        retry={"schedule_seconds": [0, wait_seconds], "max_attempts": 4, "jitter": 0},
    )


def sizes(here: Scene) -> Counter[int]:
    """How many batches of each size have come."""
    kept = here.receivers.ledger("batched").kept
    return Counter(len(json.loads(body)) for _, body in kept)


def test_a_member_that_the_receiver_cannot_take_fails_alone(scene: Callable[..., Scene]) -> None:
    here = scene(1)
    here.publish(range(100))
    one = here.start(refusing(here, 0.1))
    here.wait_accepted("batched", (n for n in range(100) if n != 37))
    here.database.wait_until("SELECT count(*) FROM deliveries WHERE state = 2", 1)
    assert here.receivers.ledger("batched").accepted["e37"] == 0
    assert sizes(here) == {100: 1, 25: 4, 6: 4, 1: 1 + 6}
    one.stop()


def test_a_batch_that_was_refused_is_tried_in_parts_after_a_restart_too(
    scene: Callable[..., Scene],
) -> None:
    here = scene(1)
    endpoint = refusing(here, 600)
    here.publish(range(100))
    one = here.start(endpoint)
    here.database.wait_until("SELECT count(*) FROM deliveries", 100)
    one.kill()
    here.database.execute("UPDATE deliveries SET due = now()")
    one = here.start(endpoint)
    here.database.wait_until("SELECT count(*) FROM deliveries", 25)
    assert sizes(here) == {100: 1, 25: 4}
    one.stop()


def test_a_batch_that_waits_to_fill_is_not_taken_for_an_endpoint_that_hangs(
    scene: Callable[..., Scene],
) -> None:
    """More waits than two rounds of exchanges, and longer than a lane may hold intake."""
    here = scene(1)
    endpoint = here.endpoint("batched", batch={"max_events": 1_000, "max_wait_seconds": 4})
    one = here.start(endpoint, limits={"hold_seconds": 0.01})
    for first in (0, 100):
        here.publish(range(first, first + 100))
        wait_for(
            lambda first=first: one.metric("dispatcherd_lane_deliveries", "batched") == first + 100,
            20,
            "the events to wait for their batch",
        )
    here.wait_accepted("batched", range(200))
    assert not [name for name, _ in one.metrics() if name == "dispatcherd_parked_total"]
    assert here.receivers.ledger("batched").requests == 1
    one.stop()
