"""Postgres out of disk (that of its own log too), read-only, out of connections: intake pauses,
says why, and resumes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import asyncpg
import pytest

from tests.acceptance.checks import assert_recorded_once, wait_all_accepted, wait_settled
from tests.rig.daemon import Daemon, config_for
from tests.rig.kafka import KafkaBroker
from tests.rig.postgres import Database, PostgresServer
from tests.rig.producer import Flow
from tests.rig.receivers import Receivers
from tests.rig.small_disk import SmallDisk
from tests.rig.waiting import wait_for

UNRECORDED = 500


@pytest.fixture
def disk(own_postgres: PostgresServer) -> Iterator[SmallDisk]:
    """Where the database's tables lie."""
    small = SmallDisk(64)
    (small.folder / "tables").mkdir()
    yield small
    own_postgres.stop()
    small.remove()


def _stands_still(one: Daemon, reason: str) -> None:
    """The reason is named, intake has stopped, and nothing is in memory past its bound."""
    wait_for(lambda: reason in one.log(), 60, f"{reason} in the log")
    wait_for(lambda: reason in one.lacking().get("postgres", ""), 10, f"{reason} in /readyz")
    before = _paused_seconds(one)
    wait_for(lambda: _paused_seconds(one) > before + 0.2, 60, "intake to pause")
    assert one.metric("dispatcherd_unrecorded_rows") <= UNRECORDED


def _paused_seconds(one: Daemon) -> float:
    found = one.metrics()
    return sum(v for (name, _), v in found.items() if name == "dispatcherd_paused_seconds_total")


def _resumes(one: Daemon, receivers: Receivers) -> None:
    wait_for(lambda: one.metric("dispatcherd_postgres_up") == 1, 60, "Postgres to be up again")
    seen = receivers.accepted("all")
    wait_for(lambda: receivers.accepted("all") > seen, 60, "work resumed")


class _Hog:
    """Takes every connection that the server has left."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._loop = asyncio.new_event_loop()
        self._held: list[asyncpg.Connection] = []

    def take_all(self) -> None:
        self._loop.run_until_complete(self._take_all())

    async def _take_all(self) -> None:
        """And throw everybody else out, so that the daemon needs new ones; also a connection that
        has only begun and bears no name yet."""
        own = await asyncpg.connect(self._dsn)
        self._held.append(own)
        others = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> ALL($1)"
        while True:
            held = [connection.get_server_pid() for connection in self._held]
            await own.execute(f"SELECT pg_terminate_backend(pid) {others}", held)
            try:
                while True:
                    self._held.append(await asyncpg.connect(self._dsn))
            except asyncpg.TooManyConnectionsError:
                held = [connection.get_server_pid() for connection in self._held]
                if not await own.fetchval(f"SELECT count(*) {others}", held):
                    return

    def let_go(self) -> None:
        for connection in self._held:
            connection.terminate()
        self._held.clear()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()


def test_postgres_full_read_only_or_out_of_connections_costs_nothing_but_time(
    kafka: KafkaBroker,
    own_postgres: PostgresServer,
    disk: SmallDisk,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    kafka.create_topic(topic, 8)
    database = own_postgres.create_database(disk.folder / "tables")
    endpoints = [{"id": "all", "url": receivers.url("all")}]
    limits = {"unrecorded_rows": UNRECORDED}
    config = config_for(kafka.bootstrap, database.dsn, topic, endpoints, limits=limits)
    one = daemon(config).migrate().start()
    pid = one.pid
    flow = Flow(kafka.bootstrap, topic, at_once=200, pause_seconds=0.1)
    flow.start()
    wait_for(lambda: receivers.accepted("all") > 300, 30, "load")

    disk.fill()
    _stands_still(one, "53100")
    disk.empty()
    _resumes(one, receivers)

    own_postgres.set("default_transaction_read_only", "on")
    _stands_still(one, "25006")
    own_postgres.set("default_transaction_read_only", "off")
    _resumes(one, receivers)

    hog = _Hog(own_postgres.dsn())
    hog.take_all()
    _stands_still(one, "53300")
    hog.let_go()
    _resumes(one, receivers)

    wait_all_accepted(receivers, "all", range(flow.stop()))
    wait_settled(kafka, database, topic)
    _every_request_is_recorded_once(database, receivers)
    assert one.lacking() == {}
    assert one.running() and one.pid == pid
    assert one.peak_rss_bytes() < 200 << 20
    one.stop()


def _every_request_is_recorded_once(database: Database, receivers: Receivers) -> None:
    assert_recorded_once(database)
    recorded = database.value("SELECT count(DISTINCT exchange_id) FROM attempts WHERE sent")
    assert recorded == sum(counts[0] for counts in receivers.summary().values())


@pytest.fixture
def wal() -> Iterator[tuple[SmallDisk, PostgresServer]]:
    """A disk that holds a server's log of writes only, and that server."""
    small = SmallDisk(32)
    (small.folder / "wal").mkdir()
    server = PostgresServer(durable=True, wal=small.folder / "wal")
    server.start()
    yield small, server
    server.remove()
    small.remove()


def test_the_volume_of_postgres_own_log_full_costs_nothing_but_time(
    kafka: KafkaBroker,
    wal: tuple[SmallDisk, PostgresServer],
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    """Postgres itself does not survive that: it panics, cannot recover, and ends. Whoever makes
    room starts it again, as here; nobody does anything to the daemon."""
    small, server = wal
    kafka.create_topic(topic, 8)
    database = server.create_database()
    endpoints = [{"id": "all", "url": receivers.url("all")}]
    limits = {"unrecorded_rows": UNRECORDED}
    config = config_for(kafka.bootstrap, database.dsn, topic, endpoints, limits=limits)
    one = daemon(config).migrate().start()
    flow = Flow(kafka.bootstrap, topic, at_once=1_000, pause_seconds=0.1)
    flow.start()
    wait_for(lambda: receivers.accepted("all") > 300, 30, "load")

    small.fill()
    wait_for(lambda: "No space left on device" in one.log(), 60, "the reason in the log")
    wait_for(lambda: not server.running(), 60, "Postgres to have ended")
    assert "PANIC" in server.log() and "pg_wal" in server.log()
    _stands_still(one, "refused")
    small.empty()
    server.start()
    _resumes(one, receivers)

    wait_all_accepted(receivers, "all", range(flow.stop()))
    wait_settled(kafka, database, topic)
    _every_request_is_recorded_once(database, receivers)
    assert one.lacking() == {}
    assert one.peak_rss_bytes() < 200 << 20
    one.stop()
