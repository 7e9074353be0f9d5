"""What is owed and due at the same moment: paged in within one budget for all endpoints."""

from __future__ import annotations

from collections.abc import Callable

from tests.acceptance.checks import assert_recorded_once
from tests.acceptance.scene import Scene
from tests.rig.producer import Record, event
from tests.rig.waiting import wait_for

MEGABYTE = 1 << 20
ENDPOINTS, EVENTS, LARGE = 40, 100, 60


def test_a_backlog_of_every_endpoint_is_paged_in_within_one_budget_and_shared(
    scene: Callable[..., Scene],
) -> None:
    """40 hanging endpoints are owed 100 events of 40 KB each, 160 MB, and one 60 of 900 KB."""
    here = scene(4, {"max.message.bytes": "2000000"})
    names = [f"e{n}" for n in range(ENDPOINTS)]
    one_each = {"concurrency": 1, "retry": {"schedule_seconds": [0, 0.2], "max_attempts": 100}}
    endpoints: list[dict[str, object]] = [
        here.endpoint(name, event_types=["small.*"], **one_each) for name in names
    ]
    endpoints.append(here.endpoint("large", event_types=["large.*"], **one_each))
    for name in [*names, "large"]:
        here.receivers.manner(name, "hang")
    limits = {
        "park_after_seconds": 0.5,
        "hold_seconds": 0.5,
        "wheel_deliveries": 200,
        "wheel_bytes": 8 * MEGABYTE,
        "lane_bytes": 8 * MEGABYTE,
        "memory_bytes": 16 * MEGABYTE,
        "window_bytes": 16 * MEGABYTE,
    }
    one = here.daemon(*endpoints, limits=limits)
    one.start()
    here.publish_records(
        [Record(event(n, "small.event", 40_000), n % 4) for n in range(EVENTS)]
        + [Record(event(1_000 + n, "large.event", 900_000), n % 4) for n in range(LARGE)]
    )
    here.wait_settled()
    owed = EVENTS * ENDPOINTS + LARGE
    here.database.wait_until("SELECT count(*) FROM deliveries WHERE state = 1", owed)

    def everybody_has_some() -> bool:
        metrics = one.metrics()
        held = {n: metrics[("dispatcherd_owed_in_memory", n)] for n in [*names, "large"]}
        in_air = sum(metrics[("dispatcherd_in_air", name)] for name in held)
        assert sum(held.values()) <= limits["wheel_deliveries"] + in_air, held
        return min(held.values()) >= 1

    wait_for(everybody_has_some, 60, "each endpoint to have something of its own in memory")
    for _ in range(20):
        everybody_has_some()
    for name in [*names, "large"]:
        here.receivers.manner(name, "ok")
    for name in names:
        here.wait_accepted(name, range(EVENTS))
    here.wait_accepted("large", range(1_000, 1_000 + LARGE))
    here.database.wait_until("SELECT count(*) FROM deliveries", 0)
    assert_recorded_once(here.database)
    assert one.peak_rss_bytes() < 190 * MEGABYTE
    one.stop()
