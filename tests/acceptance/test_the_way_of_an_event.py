"""One daemon, real Kafka, real Postgres, receivers of different manners, nothing going wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from standardwebhooks import Webhook

from tests.acceptance.checks import (
    assert_exchanges_match,
    assert_recorded_once,
    wait_committed,
)
from tests.acceptance.scene import Scene
from tests.rig.daemon import SECRET

pytestmark = pytest.mark.filterwarnings("ignore")

COUNT = 20_000


def test_every_delivery_ends_where_it_must(scene: Callable[..., Scene]) -> None:
    here = scene(8)
    here.receivers.manner("twice", "fail_first", times=2)
    here.receivers.manner("gone", "status", status=410)
    here.receivers.manner("broken", "status", status=500)
    quick = {"schedule_seconds": [0, 0.2, 0.2, 0.2], "max_attempts": 4, "jitter": 0}
    endpoints = [
        here.endpoint("prompt"),
        here.endpoint("batch100", batch={"max_events": 100, "max_wait_seconds": 0.2}),
        here.endpoint("batch7", event_types=["user.*"],
                      batch={"max_events": 7, "max_wait_seconds": 0.1}),
        here.endpoint("twice", event_types=["order.created"], retry=quick,
                      filter={"all": [{"field": "data.number", "less_than": 2000}]}),
        here.endpoint("gone", event_types=["order.deleted"]),
        here.endpoint("broken", event_types=["rare.thing"], retry=quick),
    ]  # fmt: skip
    one = here.start(*endpoints)
    for first, event_type, count in (
        (0, "order.created", COUNT - 2_200),
        (COUNT - 2_200, "user.created", 1_000),
        (COUNT - 1_200, "order.deleted", 1_000),
        (COUNT - 200, "rare.thing", 200),
    ):
        here.publish(range(first, first + count), event_type)

    here.wait_accepted("prompt", range(COUNT))
    here.wait_accepted("batch100", range(COUNT))
    here.wait_accepted("batch7", range(COUNT - 2_200, COUNT - 1_200))
    here.wait_accepted("twice", range(2_000))
    here.wait_settled()
    here.database.wait_until("SELECT count(*) FROM deliveries WHERE state = 1", 0)

    dead = here.database.fetch(
        "SELECT e.name, r.name AS reason, d.attempts, count(*) AS n FROM deliveries d JOIN "
        "endpoints e ON e.id = d.endpoint_id JOIN reasons r ON r.id = d.reason GROUP BY 1, 2, 3"
    )
    assert {tuple(row) for row in dead} == {
        ("gone", "gone", 1, 1_000),
        ("broken", "status_server_error", 4, 200),
    }
    for name in ("prompt", "batch100", "batch7", "twice"):
        ledger = here.receivers.ledger(name)
        assert max(ledger.accepted.values()) == 1, f"{name} accepted an event twice"
    assert here.receivers.ledger("prompt").received.total() == COUNT
    assert here.receivers.ledger("twice").received.total() == 6_000
    assert here.receivers.ledger("batch100").requests < COUNT / 10
    assert_exchanges_match(here.database, here.receivers)
    assert_recorded_once(here.database)
    wait_committed(here.kafka, here.database, here.topic, f"group-{here.topic}")
    one.stop()
    assert here.kafka.end_offsets(here.topic) == here.kafka.committed(
        f"group-{here.topic}", here.topic
    )


def test_a_receiver_verifies_what_arrives_with_the_standardwebhooks_package(
    scene: Callable[..., Scene],
) -> None:
    here = scene(2)
    rotated = "whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="
    endpoints = [
        here.endpoint("single"),
        here.endpoint("batched", batch={"max_events": 10}),
        here.endpoint("rotating", secret=None, secrets=[{"inline": SECRET}, {"inline": rotated}],
                      sign={"hex_header": "X-Webhook-Signature"}, headers={"X-Tenant": "acme"}),
    ]  # fmt: skip
    here.start(*endpoints)
    here.publish(range(30))
    for name in ("single", "batched", "rotating"):
        here.wait_accepted(name, range(30))
    for name, secrets in (
        ("single", [SECRET]),
        ("batched", [SECRET]),
        ("rotating", [SECRET, rotated]),
    ):
        kept = here.receivers.ledger(name).kept
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
    headers, _ = here.receivers.ledger("rotating").kept[0]
    assert len(headers["x-webhook-signature"]) == 64
    assert headers["x-tenant"] == "acme"


def test_of_a_batch_only_the_members_that_the_receiver_names_are_sent_again(
    scene: Callable[..., Scene],
) -> None:
    here = scene(2)
    here.receivers.manner("choosy", "fail_members", every=3)
    retry = {"schedule_seconds": [0, 0.2], "max_attempts": 5, "jitter": 0}
    endpoints = [
        here.endpoint("choosy", retry=retry, batch={"max_events": 20, "max_wait_seconds": 0.2}),
    ]  # fmt: skip
    one = here.start(*endpoints)
    here.publish(range(300))
    here.wait_accepted("choosy", range(300))
    here.wait_settled()
    here.database.wait_until("SELECT count(*) FROM deliveries", 0)
    ledger = here.receivers.ledger("choosy")
    assert {name for name, times in ledger.received.items() if times == 2} == {
        f"e{n}" for n in range(0, 300, 3)
    }
    assert ledger.received.total() == 400
    assert one.metric("dispatcherd_attempts_total", "choosy,partial_failure") == 100
    assert_exchanges_match(here.database, here.receivers)
    one.stop()
