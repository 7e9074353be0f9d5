"""Out of descriptors: what cannot be sent is retried and said, and no attempt of it counts."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

from tests.acceptance.checks import assert_recorded_once
from tests.acceptance.scene import Scene
from tests.rig.waiting import wait_for

COUNT = 1_000


def test_out_of_descriptors_it_sends_what_it_can_and_heals(scene: Callable[..., Scene]) -> None:
    """Each event is refused once by its receiver, and an endpoint has two attempts: one more that
    counted would make a dead letter. 400 exchanges may be under way, and there is room for 20."""
    here = scene(8)
    names = [f"e{n}" for n in range(4)]
    retry = {"schedule_seconds": [0], "max_attempts": 2}
    endpoints = [here.endpoint(name, concurrency=100, retry=retry) for name in names]
    for name in names:
        here.receivers.manner(name, "fail_first", times=1, seconds=0.02)
    one = here.start(*endpoints, network={"max_connections_per_host": 400})
    open_now = len(list(Path(f"/proc/{one.pid}/fd").iterdir()))
    limits = resource.prlimit(one.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(one.pid, resource.RLIMIT_NOFILE, (open_now + 20, limits[1]))
    here.publish(range(COUNT))
    wait_for(lambda: "out_of_resources" in one.log(), 60, "the shortage to be named")
    here.wait_more_accepted("e0", 100)
    resource.prlimit(one.pid, resource.RLIMIT_NOFILE, limits)
    for name in names:
        here.wait_accepted(name, range(COUNT))
    here.wait_settled()
    here.database.wait_until("SELECT count(*) FROM deliveries", 0)
    assert_recorded_once(here.database)
    failed = here.database.value(
        "SELECT count(*) FROM attempts a JOIN reasons r ON r.id = a.reason "
        "WHERE r.name = 'resources' AND NOT a.sent"
    )
    assert 0 < failed < COUNT, "what there was no room for was begun again and again"
    assert here.receivers.ledger("e0").accepted.total() == COUNT
    assert one.lacking() == {}
    one.stop()
