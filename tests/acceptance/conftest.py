"""Parts to break, and what stands on the shared ones of tests/conftest.py."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.scene import Scene
from tests.acceptance.service_rig import Rig
from tests.rig import kafka as kafka_part
from tests.rig import service, systemd
from tests.rig.daemon import Daemon, config_for
from tests.rig.kafka import KafkaBroker
from tests.rig.postgres import Database, PostgresServer
from tests.rig.receivers import Receivers
from tests.rig.systemd import Systemd


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[KafkaBroker]:
    """A broker to break."""
    kafka_part.need()
    broker = KafkaBroker(tmp_path / "kafka")
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def migrated(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Database:
    """What `dispatcherd migrate` makes of an empty database: to copy, not to use."""
    one = postgres_server.create_database()
    config = config_for("127.0.0.1:9092", one.dsn, "none", [])
    Daemon(tmp_path_factory.mktemp("migrated"), "migrate", config).migrate()
    return one


@pytest.fixture
def database(postgres_server: PostgresServer, migrated: Database) -> Database:
    """A fresh database that has been migrated."""
    return postgres_server.create_database(copy_of=migrated)


@pytest.fixture
def empty_database(postgres_server: PostgresServer) -> Database:
    """A fresh database in which `dispatcherd migrate` has still to be run."""
    return postgres_server.create_database()


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server to break, with fsync on."""
    server = PostgresServer(durable=True)
    server.start()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def receivers_process() -> Iterator[Receivers]:
    """One process for all."""
    process = Receivers()
    yield process
    process.stop()


@pytest.fixture
def receivers(receivers_process: Receivers) -> Receivers:
    """Receivers that have received nothing yet."""
    receivers_process.forget()
    return receivers_process


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    """A topic name of this test's own."""
    return f"t{abs(hash(request.node.nodeid)) % 10**10}"


@pytest.fixture
def daemon(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Daemon]]:
    """Makes daemons; ends them all, and shows their logs when the test failed."""
    made: list[Daemon] = []

    def make(config: dict[str, Any], name: str | None = None) -> Daemon:
        one = Daemon(tmp_path / "daemons", name or f"daemon{len(made) + 1}", config)
        made.append(one)
        return one

    yield make
    for one in made:
        if one.running():
            one.thaw()
            one.kill()
    report = getattr(request.node, "report_call", None)
    if report is not None and report.failed:
        for one in made:
            print(f"--- the end of {one.name}'s log\n{one.log()[-4000:]}")


@pytest.fixture
def scene(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> Callable[..., Scene]:
    """Sets it: `scene(partitions)`, or with a topic's configuration behind."""

    def set_up(partitions: int = 8, topic_config: dict[str, str] | None = None) -> Scene:
        return Scene(kafka, database, receivers, topic, daemon, partitions, topic_config)

    return set_up


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Systemd]:
    """A systemd with the service installed; all of it is gone afterwards."""
    systemd.need()
    folder = tmp_path_factory.mktemp("systemd")
    why = systemd.unable(folder / "probe")
    if why is not None:
        pytest.skip(why)
    one = Systemd(folder / "machine", service.binds())
    try:
        service.install(one)
        yield one
    finally:
        one.stop()
    assert not systemd.remains(folder, os.getpid())


@pytest.fixture
def rig(
    machine: Systemd, scene: Callable[..., Scene], request: pytest.FixtureRequest
) -> Iterator[Rig]:
    """The service of this test's own; the journal's end is shown when it failed."""
    one = Rig(machine, scene(4))
    yield one
    report = getattr(request.node, "report_call", None)
    if report is not None and report.failed:
        print(f"--- the end of the journal\n{one.service.log()[-6000:]}")
    one.service.end()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Lets a fixture see whether its test failed."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    setattr(item, f"report_{report.when}", report)
