"""A batch that failed is tried again as the same batch: same members, same id."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.acceptance.checks import wait_all_accepted
from tests.rig.daemon import Daemon, config_for
from tests.rig.kafka import KafkaBroker
from tests.rig.postgres import Database
from tests.rig.producer import events, publish
from tests.rig.receivers import Receivers


def test_a_batch_that_failed_is_tried_again_with_its_members_and_its_id(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    kafka.create_topic(topic, 1)
    receivers.manner("batched", "fail_first", times=2)
    endpoint = {
        "id": "batched",
        "url": receivers.url("batched"),
        "batch": {"max_events": 10, "max_wait_seconds": 5},
        "retry": {"schedule_seconds": [0, 0.5], "max_attempts": 10, "jitter": 0},
    }
    publish(kafka.bootstrap, topic, events(range(10), partitions=1))
    one = daemon(config_for(kafka.bootstrap, database.dsn, topic, [endpoint])).migrate().start()
    wait_all_accepted(receivers, "batched", range(10))
    ledger = receivers.ledger("batched")
    kept = [(headers["webhook-id"], len(json.loads(body))) for headers, body in ledger.kept]
    assert ledger.requests == 3, kept
    assert len(set(kept)) == 1, kept
    assert kept[0][1] == 10
    database.wait_until("SELECT count(*) FROM attempts", 30)
    numbers = database.fetch("SELECT number, count(*) FROM attempts GROUP BY 1 ORDER BY 1")
    assert [tuple(row) for row in numbers] == [(1, 10), (2, 10), (3, 10)]
    one.stop()
