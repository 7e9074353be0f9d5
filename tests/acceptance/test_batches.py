"""Batches: one that failed is tried again as it was, and one that waits to fill is left to."""

from __future__ import annotations

import json
from collections.abc import Callable

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
