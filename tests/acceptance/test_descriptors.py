"""Out of descriptors: what cannot be sent is retried and said, and no attempt of it counts."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

from tests.acceptance.checks import assert_recorded_once, wait_all_accepted, wait_settled
from tests.rig.daemon import Daemon, config_for
from tests.rig.kafka import KafkaBroker
from tests.rig.postgres import Database
from tests.rig.producer import events, publish
from tests.rig.receivers import Receivers
from tests.rig.waiting import wait_for

COUNT = 1_000


def test_out_of_descriptors_it_sends_what_it_can_and_heals(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    """Each event is refused once by its receiver, and an endpoint has two attempts: one more that
    counted would make a dead letter. 400 exchanges may be under way, and there is room for 20."""
    kafka.create_topic(topic, 8)
    names = [f"e{n}" for n in range(4)]
    endpoints = [
        {
            "id": name,
            "url": receivers.url(name),
            "concurrency": 100,
            "retry": {"schedule_seconds": [0], "max_attempts": 2},
        }
        for name in names
    ]
    for name in names:
        receivers.manner(name, "fail_first", times=1, seconds=0.02)
    network = {"max_connections_per_host": 400}
    config = config_for(kafka.bootstrap, database.dsn, topic, endpoints, network=network)
    one = daemon(config).migrate().start()
    open_now = len(list(Path(f"/proc/{one.pid}/fd").iterdir()))
    limits = resource.prlimit(one.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(one.pid, resource.RLIMIT_NOFILE, (open_now + 20, limits[1]))
    publish(kafka.bootstrap, topic, events(range(COUNT)))
    wait_for(lambda: "out_of_resources" in one.log(), 60, "the shortage to be named")
    seen = receivers.accepted("e0")
    wait_for(lambda: receivers.accepted("e0") > seen + 100, 60, "what can be sent to be sent")
    resource.prlimit(one.pid, resource.RLIMIT_NOFILE, limits)
    for name in names:
        wait_all_accepted(receivers, name, range(COUNT))
    wait_settled(kafka, database, topic)
    database.wait_until("SELECT count(*) FROM deliveries", 0)
    assert_recorded_once(database)
    failed = database.value(
        "SELECT count(*) FROM attempts a JOIN reasons r ON r.id = a.reason "
        "WHERE r.name = 'resources' AND NOT a.sent"
    )
    assert 0 < failed < COUNT, "what there was no room for was begun again and again"
    assert receivers.ledger("e0").accepted.total() == COUNT
    assert one.lacking() == {}
    one.stop()
