"""What an operator does about dead letters and waiting deliveries, with the real process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.checks import assert_exchanges_match, assert_recorded_once
from tests.acceptance.scene import Scene
from tests.rig.commands import Commands
from tests.rig.waiting import wait_for

pytestmark = pytest.mark.filterwarnings("ignore")

QUICK = {"schedule_seconds": [0, 0.1], "max_attempts": 2, "jitter": 0}
FAR = {"schedule_seconds": [0, 3_600], "max_attempts": 5, "jitter": 0}


STATES = {"owed": "WHERE state = 1", "dead": "WHERE state = 2", "all": ""}


class Desk:
    """A daemon with two endpoints of the same receivers, and the operator's commands."""

    def __init__(self, scene: Scene, folder: Path, retry: dict[str, Any]) -> None:
        self.database, self.receivers, self._scene = scene.database, scene.receivers, scene
        config = scene.config(
            *(scene.endpoint(name, retry=retry, timeout_seconds=60) for name in ("billing", "crm")),
            limits={"park_after_seconds": 0.3},
        )
        self.daemon = scene.make(config)
        self.commands = Commands(folder, config)

    def publish(self, count: int, event_type: str = "order.created", first: int = 0) -> None:
        self._scene.publish(range(first, first + count), event_type)

    def hang_after_one(self, manner: str = "hang") -> None:
        """The first event, e9, is answered: from then on more than one may be in the air."""
        self.publish(1, first=9)
        self.wait_accepted("billing", 1)
        self.receivers.manner("billing", manner)

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        """What `deliveries --json` shows."""
        shown = self.commands.ok("deliveries", "--json", *arguments)
        return [json.loads(line) for line in shown.splitlines()]

    def wait_rows(self, count: int, state: str = "all") -> list[dict[str, Any]]:
        """Until there are so many; what `deliveries` shows then."""
        self.database.wait_until(f"SELECT count(*) FROM deliveries {STATES[state]}", count)
        rows = self.rows("--state", state)
        assert len(rows) == count, rows
        return rows

    def wait_accepted(self, name: str, count: int) -> None:
        wait_for(lambda: self.receivers.accepted(name) == count, 60, f"{count} at {name}")

    def wait_requests_taken(self) -> None:
        """Until the daemon has seen every request; of those in the air the row keeps it."""
        wait_for(lambda: "requests_granted" in self.daemon.log(), 30, "the request taken up")

    def finish(self) -> None:
        """Nothing is owed, and every exchange is recorded once."""
        self._scene.wait_settled()
        self.wait_rows(0)
        self.daemon.stop()
        assert_exchanges_match(self.database, self.receivers)
        assert_recorded_once(self.database)


@pytest.fixture
def desk(scene: Callable[..., Scene], tmp_path: Path) -> Callable[[dict[str, Any]], Desk]:
    return lambda retry: Desk(scene(2), tmp_path / "op", retry)


def test_dead_letters_are_delivered_when_retried_while_the_daemon_runs(
    desk: Callable[[dict[str, Any]], Desk],
) -> None:
    here = desk(QUICK)
    here.daemon.start()
    here.receivers.manner("billing", "status", status=500)
    here.receivers.manner("crm", "status", status=500)
    here.publish(30, "order.created")
    here.publish(20, "user.created", first=30)
    rows = here.wait_rows(100, "dead")
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
    desk: Callable[[dict[str, Any]], Desk],
) -> None:
    here = desk(QUICK)
    here.daemon.start()
    here.receivers.manner("billing", "status", status=500)
    here.publish(20)
    here.wait_rows(20, "dead")
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
    desk: Callable[[dict[str, Any]], Desk],
) -> None:
    here = desk(QUICK)
    here.daemon.start()
    here.receivers.manner("billing", "status", status=500)
    here.publish(10)
    here.publish(10, "user.created", first=10)
    here.wait_rows(20, "dead")
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
    desk: Callable[[dict[str, Any]], Desk],
) -> None:
    """Without the request the second attempt would be an hour away."""
    here = desk(FAR)
    here.daemon.start()
    here.hang_after_one()
    here.publish(3)
    here.wait_rows(3, "owed")  # parked, because they are slow; the attempt goes on
    assert here.commands.ok("retry", "--id", "e1") == "1 delivery due now\n"
    here.wait_requests_taken()
    here.receivers.manner("billing", "ok")  # whoever hangs is answered 503
    here.wait_accepted("billing", 2)
    assert set(here.receivers.ledger("billing").accepted) == {"e9", "e1"}
    assert {row["id"] for row in here.wait_rows(2)} == {"e0", "e2"}
    here.commands.ok("retry", "--all", "--state", "owed")
    here.wait_accepted("billing", 4)
    assert dict(here.receivers.ledger("billing").received) == {"e9": 1, "e0": 2, "e1": 2, "e2": 2}
    here.finish()


def test_a_discard_asked_for_while_the_attempt_is_in_the_air_is_the_end_of_it(
    desk: Callable[[dict[str, Any]], Desk],
) -> None:
    here = desk(QUICK)
    here.daemon.start()
    here.hang_after_one()
    here.publish(3)
    here.wait_rows(3, "owed")
    here.commands.ok("retry", "--id", "e1", "--discard")
    here.wait_requests_taken()
    here.receivers.manner("billing", "ok")
    here.wait_accepted("billing", 3)
    here.wait_rows(0)
    ledger = here.receivers.ledger("billing")
    assert dict(ledger.received) == {"e9": 1, "e0": 2, "e1": 1, "e2": 2}
    here.finish()
    assert "e1" not in here.receivers.ledger("billing").accepted


def test_an_attempt_that_succeeds_while_a_discard_waits_is_recorded_and_not_resurrected(
    desk: Callable[[dict[str, Any]], Desk],
) -> None:
    here = desk(FAR)
    here.daemon.start()
    here.hang_after_one("hold")
    here.publish(2)
    here.wait_rows(2, "owed")
    here.commands.ok("retry", "--id", "e0", "--discard")
    here.commands.ok("retry", "--id", "e1")
    here.wait_requests_taken()
    here.receivers.manner("billing", "ok")
    here.wait_accepted("billing", 3)
    here.wait_rows(0)
    assert here.receivers.ledger("billing").requests == 3
    here.finish()


def test_what_a_removed_endpoint_was_owed_can_be_discarded_and_not_retried(
    desk: Callable[[dict[str, Any]], Desk],
) -> None:
    here = desk(FAR)
    here.daemon.start()
    here.receivers.manner("billing", "status", status=503)
    here.publish(5)
    here.wait_rows(5, "owed")
    assert "5" in here.commands.ok("endpoints", "list")
    here.commands.ok("endpoints", "remove", "billing")
    rows = here.wait_rows(5, "dead")
    assert {row["reason"] for row in rows} == {"endpoint_removed"}
    assert here.rows("--state", "dead", "--endpoint", "billing") == rows
    assert "billing" not in here.commands.ok("endpoints", "list")
    assert here.commands.ok("retry", "--all").startswith("0 deliveries due now\n5 more were left")
    here.commands.ok("retry", "--endpoint", "billing", "--discard")
    here.finish()
