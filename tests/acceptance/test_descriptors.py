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
    """An attempt that counted would make a dead letter at once: one is all that an endpoint has."""
    here = scene(8)
    names = [f"e{n}" for n in range(4)]
    endpoints = [
        here.endpoint(name, retry={"schedule_seconds": [0], "max_attempts": 1}) for name in names
    ]
    for name in names:
        here.receivers.manner(name, "slow", seconds=0.02)
    one = here.start(*endpoints)
    open_now = len(list(Path(f"/proc/{one.pid}/fd").iterdir()))
    limits = resource.prlimit(one.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(one.pid, resource.RLIMIT_NOFILE, (open_now + 20, limits[1]))
    here.publish(range(COUNT))
    wait_for(lambda: "out_of_resources" in one.log(), 60, "the shortage to be named")
    here.wait_more_accepted("e0", 100)
    failed = wait_for(
        lambda: here.database.value(
            "SELECT count(*) FROM attempts a JOIN reasons r ON r.id = a.reason "
            "WHERE r.name = 'resources' AND NOT a.sent"
        ),
        60,
        "failed attempts to be recorded",
    )
    delivered = sum(here.receivers.accepted(name) for name in names)
    assert failed < delivered, "everything was tried again and again without descriptors"
    resource.prlimit(one.pid, resource.RLIMIT_NOFILE, limits)
    for name in names:
        here.wait_accepted(name, range(COUNT))
    here.wait_settled()
    here.database.wait_until("SELECT count(*) FROM deliveries", 0)
    assert_recorded_once(here.database)
    assert here.receivers.ledger("e0").accepted.total() == COUNT
    assert one.lacking() == {}
    one.stop()
