"""Under a limit of memory: hanging receivers, a backlog larger than it, and nothing is killed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.acceptance.checks import assert_recorded_once
from tests.acceptance.scene import Scene
from tests.rig.memory import MemoryLimit
from tests.rig.producer import Record, event

MEGABYTE = 1 << 20
LIMIT = 160 * MEGABYTE
HANGING, HEALTHY = 8, 2
EVENTS, SIZE = 8_000, 30_000


def test_a_backlog_larger_than_the_limit_of_memory_is_parked_and_then_delivered_within_it(
    scene: Callable[..., Scene],
) -> None:
    """240 MB of events, four fifths of them for endpoints that hang; 67 MB is what an idle process
    has, and `limits` allow 110 MB of events and outcomes."""
    here = scene(4)
    try:
        limit = MemoryLimit(LIMIT)
    except OSError as error:
        pytest.skip(f"no group with a limit of memory can be made here: {error}")
    names = [f"e{n}" for n in range(HANGING + HEALTHY)]
    for name in names[:HANGING]:
        here.receivers.manner(name, "hang")
    endpoints = [
        here.endpoint(
            name,
            event_types=[f"{name}.*"],
            concurrency=5,  # together below network.max_connections_per_host: they share one
            retry={"schedule_seconds": [0, 0.2], "max_attempts": 1_000},
        )
        for name in names
    ]
    limits = {
        "window_bytes": 16 * MEGABYTE,
        "memory_bytes": 32 * MEGABYTE,
        "lane_bytes": 4 * MEGABYTE,
        "unrecorded_bytes": 16 * MEGABYTE,
        "wheel_bytes": 16 * MEGABYTE,
        "batch_inflated_bytes": 16 * MEGABYTE,
        "park_after_seconds": 1,
    }
    one = here.daemon(*endpoints, limits=limits)
    one.prefix = limit.prefix()
    one.start()
    records = (Record(event(n, f"e{n % len(names)}.event", SIZE), n % 4) for n in range(EVENTS))
    here.publish_records(records)
    of = {name: range(number, EVENTS, len(names)) for number, name in enumerate(names)}
    for name in names[HANGING:]:
        here.wait_accepted(name, of[name])
    here.wait_settled()
    owed = sum(len(of[name]) for name in names[:HANGING])
    assert here.database.value("SELECT count(*) FROM deliveries WHERE state = 1") == owed
    for name in names[:HANGING]:
        here.receivers.manner(name, "ok")
    for name in names[:HANGING]:
        here.wait_accepted(name, of[name])
    here.database.wait_until("SELECT count(*) FROM deliveries", 0)
    assert_recorded_once(here.database)
    assert limit.kills() == 0
    one.stop()
    limit.remove()
