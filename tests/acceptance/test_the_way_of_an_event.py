"""One daemon, real Kafka, real Postgres, receivers of different manners, nothing going wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from standardwebhooks import Webhook

from tests.acceptance.checks import (
    assert_exchanges_match,
    assert_recorded_once,
    wait_all_accepted,
    wait_committed,
    wait_settled,
)
from tests.rig.daemon import SECRET, Daemon, config_for
from tests.rig.kafka import KafkaBroker
from tests.rig.postgres import Database
from tests.rig.producer import events, publish
from tests.rig.receivers import Receivers

pytestmark = pytest.mark.filterwarnings("ignore")

COUNT = 20_000


def test_every_delivery_ends_where_it_must(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    kafka.create_topic(topic, 8)
    receivers.manner("twice", "fail_first", times=2)
    receivers.manner("gone", "status", status=410)
    receivers.manner("broken", "status", status=500)
    quick = {"schedule_seconds": [0, 0.2, 0.2, 0.2], "max_attempts": 4, "jitter": 0}
    endpoints = [
        {"id": "prompt", "url": receivers.url("prompt")},
        {"id": "batch100", "url": receivers.url("batch100"),
         "batch": {"max_events": 100, "max_wait_seconds": 0.2}},
        {"id": "batch7", "url": receivers.url("batch7"), "event_types": ["user.*"],
         "batch": {"max_events": 7, "max_wait_seconds": 0.1}},
        {"id": "twice", "url": receivers.url("twice"), "event_types": ["order.created"],
         "filter": {"all": [{"field": "data.number", "less_than": 2000}]}, "retry": quick},
        {"id": "gone", "url": receivers.url("gone"), "event_types": ["order.deleted"]},
        {"id": "broken", "url": receivers.url("broken"), "event_types": ["rare.thing"],
         "retry": quick},
    ]  # fmt: skip
    one = daemon(config_for(kafka.bootstrap, database.dsn, topic, endpoints)).migrate().start()
    for first, event_type, count in (
        (0, "order.created", COUNT - 2_200),
        (COUNT - 2_200, "user.created", 1_000),
        (COUNT - 1_200, "order.deleted", 1_000),
        (COUNT - 200, "rare.thing", 200),
    ):
        publish(kafka.bootstrap, topic, events(range(first, first + count), event_type))

    wait_all_accepted(receivers, "prompt", range(COUNT))
    wait_all_accepted(receivers, "batch100", range(COUNT))
    wait_all_accepted(receivers, "batch7", range(COUNT - 2_200, COUNT - 1_200))
    wait_all_accepted(receivers, "twice", range(2_000))
    wait_settled(kafka, database, topic)
    database.wait_until("SELECT count(*) FROM deliveries WHERE state = 1", 0)

    dead = database.fetch(
        "SELECT e.name, r.name AS reason, d.attempts, count(*) AS n FROM deliveries d JOIN "
        "endpoints e ON e.id = d.endpoint_id JOIN reasons r ON r.id = d.reason GROUP BY 1, 2, 3"
    )
    assert {tuple(row) for row in dead} == {
        ("gone", "gone", 1, 1_000),
        ("broken", "status_server_error", 4, 200),
    }
    for name in ("prompt", "batch100", "batch7", "twice"):
        ledger = receivers.ledger(name)
        assert max(ledger.accepted.values()) == 1, f"{name} accepted an event twice"
    assert receivers.ledger("prompt").received.total() == COUNT
    assert receivers.ledger("twice").received.total() == 6_000
    assert receivers.ledger("batch100").requests < COUNT / 10
    assert_exchanges_match(database, receivers)
    assert_recorded_once(database)
    wait_committed(kafka, database, topic, f"group-{topic}")
    one.stop()
    assert kafka.end_offsets(topic) == kafka.committed(f"group-{topic}", topic)


def test_a_receiver_verifies_what_arrives_with_the_standardwebhooks_package(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    kafka.create_topic(topic, 2)
    rotated = "whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="
    endpoints = [
        {"id": "single", "url": receivers.url("single")},
        {"id": "batched", "url": receivers.url("batched"), "batch": {"max_events": 10}},
        {"id": "rotating", "url": receivers.url("rotating"), "secret": None,
         "secrets": [{"inline": SECRET}, {"inline": rotated}],
         "sign": {"hex_header": "X-Webhook-Signature"}, "headers": {"X-Tenant": "acme"}},
    ]  # fmt: skip
    daemon(config_for(kafka.bootstrap, database.dsn, topic, endpoints)).migrate().start()
    publish(kafka.bootstrap, topic, events(range(30), partitions=2))
    for name in ("single", "batched", "rotating"):
        wait_all_accepted(receivers, name, range(30))
    for name, secrets in (
        ("single", [SECRET]),
        ("batched", [SECRET]),
        ("rotating", [SECRET, rotated]),
    ):
        kept = receivers.ledger(name).kept
        assert kept
        for headers, body in kept:
            for secret in secrets:
                Webhook(secret).verify(body, headers)
            assert headers["content-type"] == "application/json"
            assert headers["user-agent"].startswith("dispatcherd/")
            assert headers["x-webhook-version"] == "1"
            if name != "batched":
                assert headers["x-webhook-type"] == "order.created"
            assert headers["webhook-attempt"] == "1"
    headers, _ = receivers.ledger("rotating").kept[0]
    assert len(headers["x-webhook-signature"]) == 64
    assert headers["x-tenant"] == "acme"


def test_of_a_batch_only_the_members_that_the_receiver_names_are_sent_again(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    kafka.create_topic(topic, 2)
    receivers.manner("choosy", "fail_members", every=3)
    retry = {"schedule_seconds": [0, 0.2], "max_attempts": 5, "jitter": 0}
    endpoints = [
        {"id": "choosy", "url": receivers.url("choosy"), "retry": retry,
         "batch": {"max_events": 20, "max_wait_seconds": 0.2}},
    ]  # fmt: skip
    one = daemon(config_for(kafka.bootstrap, database.dsn, topic, endpoints)).migrate().start()
    publish(kafka.bootstrap, topic, events(range(300), partitions=2))
    wait_all_accepted(receivers, "choosy", range(300))
    wait_settled(kafka, database, topic)
    database.wait_until("SELECT count(*) FROM deliveries", 0)
    ledger = receivers.ledger("choosy")
    assert {name for name, times in ledger.received.items() if times == 2} == {
        f"e{n}" for n in range(0, 300, 3)
    }
    assert ledger.received.total() == 400
    assert one.metric("dispatcherd_attempts_total", "choosy,partial_failure") == 100
    assert_exchanges_match(database, receivers)
    one.stop()
