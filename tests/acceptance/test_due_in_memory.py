"""What is owed and due at the same moment: paged in within one budget for all endpoints."""

from __future__ import annotations

from collections.abc import Callable

from tests.acceptance.checks import assert_recorded_once, wait_all_accepted, wait_settled
from tests.rig.daemon import Daemon, config_for
from tests.rig.kafka import KafkaBroker
from tests.rig.postgres import Database
from tests.rig.producer import Record, event, publish
from tests.rig.receivers import Receivers
from tests.rig.waiting import wait_for

MEGABYTE = 1 << 20
ENDPOINTS, EVENTS, LARGE = 40, 100, 60


def test_a_backlog_of_every_endpoint_is_paged_in_within_one_budget_and_shared(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    """40 hanging endpoints are owed 100 events of 40 KB each, 160 MB, and one 60 of 900 KB."""
    kafka.create_topic(topic, 4, {"max.message.bytes": "2000000"})
    names = [f"e{n}" for n in range(ENDPOINTS)]
    one_each = {"concurrency": 1, "retry": {"schedule_seconds": [0, 0.2], "max_attempts": 100}}
    endpoints: list[dict[str, object]] = [
        {"id": name, "url": receivers.url(name), "event_types": ["small.*"], **one_each}
        for name in names
    ]
    endpoints.append(
        {"id": "large", "url": receivers.url("large"), "event_types": ["large.*"], **one_each}
    )
    for name in [*names, "large"]:
        receivers.manner(name, "hang")
    limits = {
        "park_after_seconds": 0.5,
        "hold_seconds": 0.5,
        "wheel_deliveries": 200,
        "wheel_bytes": 8 * MEGABYTE,
        "lane_bytes": 8 * MEGABYTE,
        "memory_bytes": 16 * MEGABYTE,
        "window_bytes": 16 * MEGABYTE,
    }
    one = daemon(config_for(kafka.bootstrap, database.dsn, topic, endpoints, limits=limits))
    one.migrate().start()
    publish(
        kafka.bootstrap,
        topic,
        [Record(event(n, "small.event", 40_000), n % 4) for n in range(EVENTS)]
        + [Record(event(1_000 + n, "large.event", 900_000), n % 4) for n in range(LARGE)],
    )
    wait_settled(kafka, database, topic)
    owed = EVENTS * ENDPOINTS + LARGE
    database.wait_until("SELECT count(*) FROM deliveries WHERE state = 1", owed)

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
        receivers.manner(name, "ok")
    for name in names:
        wait_all_accepted(receivers, name, range(EVENTS))
    wait_all_accepted(receivers, "large", range(1_000, 1_000 + LARGE))
    database.wait_until("SELECT count(*) FROM deliveries", 0)
    assert_recorded_once(database)
    assert one.peak_rss_bytes() < 190 * MEGABYTE
    one.stop()
