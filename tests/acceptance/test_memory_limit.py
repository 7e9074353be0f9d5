"""Under a limit of memory: hanging receivers, a backlog larger than it, and nothing is killed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.acceptance.checks import assert_recorded_once, wait_all_accepted, wait_settled
from tests.rig.daemon import Daemon, config_for
from tests.rig.kafka import KafkaBroker
from tests.rig.memory import MemoryLimit
from tests.rig.postgres import Database
from tests.rig.producer import Record, event, publish
from tests.rig.receivers import Receivers

MEGABYTE = 1 << 20
LIMIT = 160 * MEGABYTE
HANGING, HEALTHY = 8, 2
EVENTS, SIZE = 8_000, 30_000


def test_a_backlog_larger_than_the_limit_of_memory_is_parked_and_then_delivered_within_it(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    """240 MB of events, four fifths of them for endpoints that hang; 67 MB is what an idle process
    has, and `limits` allow 110 MB of events and outcomes."""
    try:
        limit = MemoryLimit(LIMIT)
    except OSError as error:
        pytest.skip(f"no group with a limit of memory can be made here: {error}")
    kafka.create_topic(topic, 4)
    names = [f"e{n}" for n in range(HANGING + HEALTHY)]
    for name in names[:HANGING]:
        receivers.manner(name, "hang")
    endpoints = [
        {
            "id": name,
            "url": receivers.url(name),
            "event_types": [f"{name}.*"],
            "concurrency": 5,  # together below network.max_connections_per_host: they share one
            "retry": {"schedule_seconds": [0, 0.2], "max_attempts": 1_000},
        }
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
    one = daemon(config_for(kafka.bootstrap, database.dsn, topic, endpoints, limits=limits))
    one.migrate()
    one.prefix = limit.prefix()
    one.start()
    records = (Record(event(n, f"e{n % len(names)}.event", SIZE), n % 4) for n in range(EVENTS))
    publish(kafka.bootstrap, topic, records)
    of = {name: range(number, EVENTS, len(names)) for number, name in enumerate(names)}
    for name in names[HANGING:]:
        wait_all_accepted(receivers, name, of[name])
    wait_settled(kafka, database, topic)
    owed = sum(len(of[name]) for name in names[:HANGING])
    assert database.value("SELECT count(*) FROM deliveries WHERE state = 1") == owed
    for name in names[:HANGING]:
        receivers.manner(name, "ok")
    for name in names[:HANGING]:
        wait_all_accepted(receivers, name, of[name])
    database.wait_until("SELECT count(*) FROM deliveries", 0)
    assert_recorded_once(database)
    assert limit.kills() == 0
    one.stop()
    limit.remove()
