"""MemoryMax= of the service's unit, enforced by a real systemd: killed, restarted, nothing lost."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.acceptance.checks import assert_recorded_once, wait_all_accepted, wait_settled
from tests.rig import service, systemd
from tests.rig.daemon import config_for
from tests.rig.kafka import KafkaBroker
from tests.rig.postgres import Database
from tests.rig.producer import Record, event, publish
from tests.rig.receivers import Receivers
from tests.rig.service import Service
from tests.rig.systemd import Systemd
from tests.rig.waiting import wait_for

COUNT, SIZE = 1_500, 50_000
TIGHT = "[Service]\nMemoryMax=90M\nMemoryHigh=infinity\nRestartSec=200ms\n"
"""An idle process has 67 MB."""
WIDE = "[Service]\nMemoryMax=1G\n"


@pytest.fixture
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service in a systemd of its own that can limit memory."""
    systemd.need()
    folder = tmp_path_factory.mktemp("systemd")
    why = systemd.unable(folder / "probe") or systemd.unable_to_limit_memory()
    if why is not None:
        pytest.skip(why)
    machine = Systemd(folder / "machine", service.binds(), limits_memory=True)
    try:
        service.install(machine)
        yield Service(machine)
    finally:
        machine.stop()
    assert not systemd.remains(folder, os.getpid())


def test_killed_at_its_memory_limit_the_service_is_restarted_and_loses_nothing(
    limited: Service, kafka: KafkaBroker, database: Database, receivers: Receivers, topic: str
) -> None:
    kafka.create_topic(topic, 4)
    receivers.manner("slow", "hang")
    endpoint = {"id": "slow", "url": receivers.url("slow"), "concurrency": 50}
    limited.configure(config_for(kafka.bootstrap, database.dsn, topic, [endpoint]))
    limited.command("migrate")
    limited.drop_in("memory", TIGHT)
    limited.start()
    publish(
        kafka.bootstrap, topic, (Record(event(n, size=SIZE), partition=n % 4) for n in range(COUNT))
    )
    wait_for(lambda: "status=9/KILL" in limited.log(), 60, "the kernel to kill it at its limit")
    limited.drop_in("memory", WIDE)
    receivers.manner("slow", "ok")
    wait_all_accepted(receivers, "slow", range(COUNT))
    wait_settled(kafka, database, topic)
    database.wait_until("SELECT count(*) FROM deliveries", 0)
    assert_recorded_once(database)
    assert int(limited.show()["NRestarts"]) >= 1
