"""The service under a real systemd, with real Kafka and Postgres."""

from __future__ import annotations

import json
import re

import pytest

from tests.acceptance.checks import assert_recorded_once, wait_all_accepted, wait_settled
from tests.acceptance.service_rig import Rig
from tests.rig.daemon import SECRET
from tests.rig.postgres import Database
from tests.rig.proxy import Proxy
from tests.rig.receivers import Receivers
from tests.rig.waiting import wait_for

pytestmark = pytest.mark.filterwarnings("ignore")

WATCHED = "[Service]\nWatchdogSec=4s\nTimeoutAbortSec=2s\nRestartSec=200ms\n"


def test_start_returns_when_the_group_has_been_joined_and_events_are_delivered_from_the_sandbox(
    rig: Rig, receivers: Receivers, empty_database: Database
) -> None:
    port = int(rig.kafka.bootstrap.rpartition(":")[2])
    proxy = Proxy(port)
    proxy.cut()
    try:
        config = rig.config({"id": "a", "url": receivers.url("a")})
        config["postgres"]["dsn"] = empty_database.dsn
        config["kafka"]["bootstrap_servers"] = [f"127.0.0.1:{proxy.port}"]
        rig.service.configure(config)
        rig.service.command("migrate")
        rig.machine.systemctl("start", "--no-block", rig.service.unit)
        wait_for(
            lambda: "waiting for kafka: Kafka:" in rig.service.status(), 30,
            "the status line to name Kafka",
        )  # fmt: skip
        assert rig.service.show()["ActiveState"] == "activating"
        proxy.heal()
        wait_for(lambda: rig.service.show()["ActiveState"] == "active", 60, "READY")
    finally:
        proxy.stop()
    assert len(empty_database.fetch("SELECT 1 FROM progress WHERE watermark IS NOT NULL")) == 4
    rig.publish(range(200))
    wait_all_accepted(receivers, "a", range(200))
    wait_settled(rig.kafka, empty_database, rig.topic)
    wait_for(lambda: rig.service.status().startswith("4 partitions; "), 30, "the status line")
    shown = rig.machine.systemctl("status", rig.service.unit).stdout
    assert re.search(r'Status: "4 partitions; .* delivered/s; .*Postgres ok; Kafka ok"', shown)
    assert rig.service.show()["NRestarts"] == "0"


def test_log_lines_carry_their_priority_into_the_journal(rig: Rig, receivers: Receivers) -> None:
    rig.start({"id": "a", "url": receivers.url("a")})
    rig.machine.systemctl("kill", "--signal=HUP", rig.service.unit)
    rig.service.wait_logged("reloaded")
    rig.service.configure(rig.config({"id": "a", "url": "gopher://x"}))
    rig.machine.systemctl("kill", "--signal=HUP", rig.service.unit)
    rig.service.wait_logged("reload_refused")
    priorities = {}
    for entry in rig.service.journal():
        if entry["_COMM"].startswith("python") and str(entry["MESSAGE"]).startswith("{"):
            priorities[json.loads(entry["MESSAGE"])["event"]] = entry["PRIORITY"]
    assert priorities["ready"] == priorities["reloaded"] == "6"
    assert priorities["reload_refused"] == "3"


def test_reload_takes_over_endpoints_and_keeps_what_waits_on_the_wheel(
    rig: Rig, receivers: Receivers
) -> None:
    receivers.manner("down", "status", status=503)
    down = {"id": "down", "url": receivers.url("down"), "event_types": ["order.*"],
            "retry": {"schedule_seconds": [0, 50], "jitter": 0}}  # fmt: skip
    new = {"id": "new", "url": receivers.url("new"), "event_types": ["user.*"]}
    rig.start(down)
    rig.publish(range(50))
    wait_for(lambda: rig.service.metric("dispatcherd_retries_waiting") == 50, 30, "the wheel")
    pid = rig.service.pid()

    rig.service.configure(rig.config({**down, "headers": {"x-changed": "yes"}}, new))
    rig.service.kill("USR1")  # the loop is slow to hear of the signal
    rig.machine.systemctl("reload", rig.service.unit)
    # It has returned: all that it stands for has happened.
    assert rig.database.value("SELECT count(*) FROM endpoints") == 2
    assert rig.service.metric("dispatcherd_retries_waiting") == 50
    # Its own word of a second reading of the signal may come just behind.
    wait_for(lambda: rig.service.show()["ActiveState"] == "active", 10, "active again")
    rig.publish(range(50, 60), "user.created")
    wait_all_accepted(receivers, "new", range(50, 60))

    receivers.manner("down", "ok")
    rig.service.command("retry", "--endpoint", "down", "--state", "owed")
    wait_all_accepted(receivers, "down", range(50))
    assert set(receivers.ledger("down").received.values()) == {2}
    assert rig.service.pid() == pid
    assert_recorded_once(rig.database)


def test_a_reload_with_a_mistake_fails_and_changes_nothing(rig: Rig, receivers: Receivers) -> None:
    rig.start({"id": "a", "url": receivers.url("a")})
    pid = rig.service.pid()
    rig.service.configure(rig.config({"id": "a", "url": receivers.url("a"), "concurency": 3}))
    refused = rig.machine.systemctl("reload", rig.service.unit, check=False)
    assert refused.returncode != 0
    rig.service.wait_logged("Did you mean `concurrency`?")
    shown = rig.service.show()
    assert (shown["ActiveState"], shown["MainPID"]) == ("active", str(pid))
    rig.publish(range(20))
    wait_all_accepted(receivers, "a", range(20))


def test_the_watchdog_restarts_a_loop_that_stands_still_and_nothing_is_lost(
    rig: Rig, receivers: Receivers
) -> None:
    rig.service.drop_in("watchdog", WATCHED)
    rig.start({"id": "a", "url": receivers.url("a")})
    rig.publish(range(100))
    wait_all_accepted(receivers, "a", range(100))
    rig.service.kill("USR2")  # sleeps in a signal handler, on the loop's thread
    rig.publish(range(100, 200))
    rig.service.wait_restarted()
    rig.service.wait_logged("Failed with result 'watchdog'")
    log = rig.service.log()
    assert "Watchdog timeout" in log
    assert "Fatal Python error: Aborted" in log and "launch.py" in log, "where it stood still"
    wait_all_accepted(receivers, "a", range(200))
    assert_recorded_once(rig.database)


def test_a_frozen_process_is_killed_by_the_watchdog_too(rig: Rig, receivers: Receivers) -> None:
    rig.service.drop_in("watchdog", WATCHED)
    rig.start({"id": "a", "url": receivers.url("a")})
    rig.service.kill("STOP")
    rig.service.wait_restarted()
    rig.publish(range(20))
    wait_all_accepted(receivers, "a", range(20))


def test_stop_drains_and_ends_with_success_and_nothing_is_sent_again(
    rig: Rig, receivers: Receivers
) -> None:
    receivers.manner("a", "slow", seconds=1)
    rig.start({"id": "a", "url": receivers.url("a"), "concurrency": 30})
    rig.publish(range(200))
    wait_for(lambda: receivers.accepted("a") > 0, 30, "the first answers")
    rig.machine.systemctl("stop", rig.service.unit)
    shown = rig.service.show()
    assert (shown["Result"], shown["ExecMainCode"], shown["ExecMainStatus"]) == (
        "success",
        "1",
        "0",
    )
    assert shown["SubState"] == "dead"
    rig.service.wait_logged('"interrupted":0,"recorded":true,"committed":true,"left_group":true')
    receivers.manner("a", "ok")
    rig.service.start()
    wait_all_accepted(receivers, "a", range(200))
    assert set(receivers.ledger("a").received.values()) == {1}


def test_a_stop_may_take_longer_than_the_unit_says_when_the_configuration_does(
    rig: Rig, receivers: Receivers
) -> None:
    receivers.manner("a", "hang")
    rig.service.drop_in("stop", "[Service]\nTimeoutStopSec=1s\n")
    rig.start(
        {"id": "a", "url": receivers.url("a"), "timeout_seconds": 60}, shutdown_timeout_seconds=12
    )
    rig.publish(range(4))
    wait_for(lambda: receivers.ledger("a").requests > 0, 30, "attempts in the air")
    rig.machine.systemctl("stop", rig.service.unit)
    assert rig.service.show()["Result"] == "success"
    rig.service.wait_logged('"event":"stopped"')


def test_a_stop_while_parts_are_waited_for_is_prompt_and_a_success(rig: Rig) -> None:
    config = rig.config()
    config["postgres"]["dsn"] = "postgresql://nobody@127.0.0.1:1/none"
    rig.service.configure(config)
    rig.machine.systemctl("start", "--no-block", rig.service.unit)
    rig.service.wait_logged("waiting_for_part")
    rig.machine.systemctl("stop", rig.service.unit)
    shown = rig.service.show()
    assert (shown["Result"], shown["ExecMainStatus"]) == ("success", "0")


def test_a_start_may_take_longer_than_the_unit_says_while_parts_are_waited_for(rig: Rig) -> None:
    rig.service.drop_in("start", "[Service]\nTimeoutStartSec=4s\n")
    config = rig.config(start_timeout_seconds=9)
    config["postgres"]["dsn"] = "postgresql://nobody@127.0.0.1:1/none"
    rig.service.configure(config)
    done = rig.machine.systemctl("start", rig.service.unit, check=False)
    assert done.returncode != 0
    rig.service.wait_logged("waited for until start_timeout_seconds had passed")
    assert "start operation timed out" not in rig.service.log()


def test_a_killed_process_is_restarted_and_nothing_is_lost(rig: Rig, receivers: Receivers) -> None:
    rig.service.drop_in("restart", "[Service]\nRestartSec=200ms\n")
    receivers.manner("a", "slow", seconds=0.02)
    rig.start({"id": "a", "url": receivers.url("a")})
    rig.publish(range(300))
    wait_for(lambda: receivers.accepted("a") > 20, 30, "some answers")
    rig.service.kill("KILL")
    assert rig.service.wait_restarted()["NRestarts"] == "1"
    wait_all_accepted(receivers, "a", range(300))
    assert_recorded_once(rig.database)


def test_a_mistake_in_the_configuration_fails_once_and_is_not_tried_again(rig: Rig) -> None:
    rig.service.configure(rig.config(shutdown_timeout_secs=3))
    done = rig.machine.systemctl("start", rig.service.unit, check=False)
    assert done.returncode != 0
    shown = rig.service.show()
    # A unit that will be restarted is "activating (auto-restart)".
    assert (shown["ActiveState"], shown["SubState"]) == ("failed", "failed")
    assert (shown["ExecMainStatus"], shown["NRestarts"]) == ("2", "0")
    rig.service.wait_logged("Did you mean `shutdown_timeout_seconds`?")
    [told] = [e for e in rig.service.journal() if "Did you mean" in str(e["MESSAGE"])]
    assert told["PRIORITY"] == "3"


def test_secrets_come_from_credentials_and_from_files_of_the_services_group(
    rig: Rig, receivers: Receivers
) -> None:
    rig.machine.write("/etc/dispatcherd/credentials/endpoint-a", SECRET + "\n", 0o600)
    rig.machine.write("/etc/dispatcherd/secrets/endpoint-b", SECRET + "\n", 0o640)
    rig.machine.run("chgrp", "-R", "dispatcherd", "/etc/dispatcherd/secrets")
    rig.service.drop_in(
        "credentials", "[Service]\nLoadCredential=a:/etc/dispatcherd/credentials/endpoint-a\n"
    )
    a = {"id": "a", "url": receivers.url("a"), "secret": {"credential": "a"}}
    b = {"id": "b", "url": receivers.url("b"),
         "secret": {"file": "/etc/dispatcherd/secrets/endpoint-b"}}  # fmt: skip
    rig.service.configure(rig.config(a, b, allow_inline_secrets=False))
    rig.service.start()
    rig.machine.systemctl("reload", rig.service.unit)
    rig.publish(range(20))
    for name in ("a", "b"):
        wait_all_accepted(receivers, name, range(20))
    assert "REFUSED" not in rig.service.status()
    rig.machine.inside("/etc/dispatcherd/secrets/endpoint-b").unlink()
    assert rig.machine.systemctl("reload", rig.service.unit, check=False).returncode != 0
