"""What an operator does about dead letters and waiting deliveries, with the real process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.checks import assert_exchanges_match, assert_recorded_once, wait_settled
from tests.rig.commands import Commands
from tests.rig.daemon import Daemon, config_for
from tests.rig.kafka import KafkaBroker
from tests.rig.postgres import Database
from tests.rig.producer import events, publish
from tests.rig.receivers import Receivers
from tests.rig.waiting import wait_for

pytestmark = pytest.mark.filterwarnings("ignore")

QUICK = {"schedule_seconds": [0, 0.1], "max_attempts": 2, "jitter": 0}
FAR = {"schedule_seconds": [0, 3_600], "max_attempts": 5, "jitter": 0}


class Scene:
    """One daemon, two endpoints of the same receivers, and the commands."""

    def __init__(
        self,
        kafka: KafkaBroker,
        database: Database,
        receivers: Receivers,
        topic: str,
        make: Callable[..., Daemon],
        folder: Path,
        retry: dict[str, Any],
    ) -> None:
        kafka.create_topic(topic, 2)
        endpoints = [
            {"id": name, "url": receivers.url(name), "retry": retry, "timeout_seconds": 60}
            for name in ("billing", "crm")
        ]
        limits = {"park_after_seconds": 0.3}
        config = config_for(kafka.bootstrap, database.dsn, topic, endpoints, limits=limits)
        self.kafka, self.database, self.receivers, self.topic = kafka, database, receivers, topic
        self.daemon = make(config)
        self.commands = Commands(folder, config)

    def publish(self, count: int, event_type: str = "order.created", first: int = 0) -> None:
        numbers = range(first, first + count)
        publish(self.kafka.bootstrap, self.topic, events(numbers, event_type, partitions=2))

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        """What `deliveries --json` shows."""
        shown = self.commands.ok("deliveries", "--json", *arguments)
        return [json.loads(line) for line in shown.splitlines()]

    def wait_rows(self, count: int, *arguments: str) -> list[dict[str, Any]]:
        """Until `deliveries` shows so many."""
        rows: list[dict[str, Any]] = []

        def there() -> bool:
            rows[:] = self.rows(*arguments)
            return len(rows) == count

        wait_for(there, 60, f"{count} deliveries {arguments}")
        return rows

    def wait_accepted(self, name: str, count: int) -> None:
        wait_for(lambda: self.receivers.accepted(name) == count, 60, f"{count} at {name}")

    def wait_requests_taken(self) -> None:
        """Until the daemon has seen every request; of those in the air the row keeps it."""
        wait_for(lambda: "requests_granted" in self.daemon.log(), 30, "the request taken up")

    def finish(self) -> None:
        """Nothing is owed, and every exchange is recorded once."""
        wait_settled(self.kafka, self.database, self.topic)
        self.wait_rows(0)
        self.daemon.stop()
        assert_exchanges_match(self.database, self.receivers)
        assert_recorded_once(self.database)


@pytest.fixture
def scene(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
    tmp_path: Path,
) -> Callable[[dict[str, Any]], Scene]:
    return lambda retry: Scene(kafka, database, receivers, topic, daemon, tmp_path / "op", retry)


def test_dead_letters_are_delivered_when_retried_while_the_daemon_runs(
    scene: Callable[[dict[str, Any]], Scene],
) -> None:
    here = scene(QUICK)
    here.daemon.start()
    here.receivers.manner("billing", "status", status=500)
    here.receivers.manner("crm", "status", status=500)
    here.publish(30, "order.created")
    here.publish(20, "user.created", first=30)
    rows = here.wait_rows(100, "--state", "dead")
    assert {(row["reason"], row["status"], row["attempts"]) for row in rows} == {
        ("status_server_error", 500, 2)
    }
    here.receivers.manner("billing", "ok")
    assert here.commands.ok("retry", "--endpoint", "billing") == "50 deliveries due now\n"
    here.wait_accepted("billing", 50)
    assert len(here.wait_rows(50)) == len(here.rows("--endpoint", "crm", "--state", "dead"))
    here.receivers.manner("crm", "ok")
    here.commands.ok("retry", "--type", "user.created")
    here.wait_accepted("crm", 20)
    here.commands.ok("retry", "--id", "e7")
    here.wait_accepted("crm", 21)
    here.commands.ok("retry", "--all")
    here.wait_accepted("crm", 50)
    assert max(here.receivers.ledger("billing").accepted.values()) == 1
    here.finish()


def test_a_retry_asked_for_while_no_daemon_runs_takes_effect_when_one_starts(
    scene: Callable[[dict[str, Any]], Scene],
) -> None:
    here = scene(QUICK)
    here.daemon.start()
    here.receivers.manner("billing", "status", status=500)
    here.publish(20)
    here.wait_rows(20, "--state", "dead")
    here.daemon.stop()
    here.receivers.manner("billing", "ok")
    said = here.commands.ok("retry", "--endpoint", "billing", "--type", "order.created")
    assert said.splitlines() == [
        "20 deliveries due now",
        "no daemon is running: it takes effect when one starts",
    ]
    assert {row["request"] for row in here.rows()} == {"retry"}
    here.daemon.start()
    here.wait_accepted("billing", 20)
    here.finish()


def test_discarded_dead_letters_are_gone_whether_a_daemon_runs_or_not(
    scene: Callable[[dict[str, Any]], Scene],
) -> None:
    here = scene(QUICK)
    here.daemon.start()
    here.receivers.manner("billing", "status", status=500)
    here.publish(10)
    here.publish(10, "user.created", first=10)
    here.wait_rows(20, "--state", "dead")
    said = here.commands.ok("retry", "--type", "user.created", "--discard")
    assert said == "10 deliveries will be discarded\n"
    here.wait_rows(10)
    here.daemon.stop()
    here.commands.ok("retry", "--all", "--discard")
    here.wait_rows(10)
    before = here.receivers.ledger("billing").requests
    here.daemon.start()
    here.wait_rows(0)
    assert here.database.value("SELECT count(*) FROM bodies") == 0
    assert here.receivers.ledger("billing").requests == before
    here.finish()


def test_a_retry_asked_for_while_the_attempt_is_in_the_air_follows_it_at_once(
    scene: Callable[[dict[str, Any]], Scene],
) -> None:
    """Without the request the second attempt would be an hour away."""
    here = scene(FAR)
    here.daemon.start()
    here.receivers.manner("billing", "hang")
    here.publish(3)
    here.wait_rows(3, "--state", "owed")  # parked, because they are slow; the attempt goes on
    assert here.commands.ok("retry", "--id", "e1") == "1 delivery due now\n"
    here.wait_requests_taken()
    here.receivers.manner("billing", "ok")  # whoever hangs is answered 503
    here.wait_accepted("billing", 1)
    assert set(here.receivers.ledger("billing").accepted) == {"e1"}
    assert {row["id"] for row in here.wait_rows(2)} == {"e0", "e2"}
    here.commands.ok("retry", "--all", "--state", "owed")
    here.wait_accepted("billing", 3)
    assert dict(here.receivers.ledger("billing").received) == {"e0": 2, "e1": 2, "e2": 2}
    here.finish()


def test_a_discard_asked_for_while_the_attempt_is_in_the_air_is_the_end_of_it(
    scene: Callable[[dict[str, Any]], Scene],
) -> None:
    here = scene(QUICK)
    here.daemon.start()
    here.receivers.manner("billing", "hang")
    here.publish(3)
    here.wait_rows(3, "--state", "owed")
    here.commands.ok("retry", "--id", "e1", "--discard")
    here.wait_requests_taken()
    here.receivers.manner("billing", "ok")
    here.wait_accepted("billing", 2)
    here.wait_rows(0)
    ledger = here.receivers.ledger("billing")
    assert dict(ledger.received) == {"e0": 2, "e1": 1, "e2": 2}
    here.finish()
    assert "e1" not in here.receivers.ledger("billing").accepted


def test_an_attempt_that_succeeds_while_a_discard_waits_is_recorded_and_not_resurrected(
    scene: Callable[[dict[str, Any]], Scene],
) -> None:
    here = scene(FAR)
    here.daemon.start()
    here.receivers.manner("billing", "slow", seconds=4)
    here.publish(2)
    here.wait_rows(2, "--state", "owed")
    here.commands.ok("retry", "--id", "e0", "--discard")
    here.commands.ok("retry", "--id", "e1")
    here.wait_accepted("billing", 2)
    here.wait_rows(0)
    assert here.receivers.ledger("billing").requests == 2
    here.finish()


def test_what_a_removed_endpoint_was_owed_can_be_discarded_and_not_retried(
    scene: Callable[[dict[str, Any]], Scene],
) -> None:
    here = scene(FAR)
    here.daemon.start()
    here.receivers.manner("billing", "status", status=503)
    here.publish(5)
    here.wait_rows(5, "--state", "owed")
    assert "5" in here.commands.ok("endpoints", "list")
    here.commands.ok("endpoints", "remove", "billing")
    rows = here.wait_rows(5, "--state", "dead", "--endpoint", "billing")
    assert {row["reason"] for row in rows} == {"endpoint_removed"}
    assert "billing" not in here.commands.ok("endpoints", "list")
    assert here.commands.ok("retry", "--all").startswith("0 deliveries due now\n5 more were left")
    here.commands.ok("retry", "--endpoint", "billing", "--discard")
    here.finish()
