"""The parts that other tests lean on do what they say: a broken instrument proves nothing.

Leaves out: anything about dispatcherd itself.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil  # type: ignore[import-untyped]
import pytest
from confluent_kafka import Consumer, TopicPartition

from tests.rig import kafka as kafka_part
from tests.rig.clock import WallClock
from tests.rig.kafka import KafkaBroker
from tests.rig.memory import MemoryLimit
from tests.rig.postgres import Database, PostgresServer
from tests.rig.producer import Record, publish
from tests.rig.proxy import Proxy
from tests.rig.receivers import Receivers
from tests.rig.small_disk import SmallDisk
from tests.rig.waiting import wait_for


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    kafka_part.need()
    one = KafkaBroker(tmp_path_factory.mktemp("kafka"))
    one.start()
    yield one
    one.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    one = PostgresServer(durable=True)
    one.start()
    yield one
    wait_until_no_client(one)
    one.remove()


@pytest.fixture
def receivers() -> Iterator[Receivers]:
    one = Receivers()
    yield one
    one.stop()


@pytest.fixture
def proxy(server: PostgresServer) -> Iterator[Proxy]:
    one = Proxy(server.port)
    yield one
    one.stop()


def read(broker: KafkaBroker, topic: str, count: int) -> list[bytes | None]:
    """The first `count` values of partition 0; commits the position after them as group `g`."""
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "g", "log_level": 0})
    values: list[bytes | None] = []

    def enough() -> bool:
        values.extend(message.value() for message in consumer.consume(count, 1.0))
        return len(values) >= count

    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        wait_for(enough, 30, f"{count} records of {topic}")
        consumer.commit(offsets=[TopicPartition(topic, 0, count)], asynchronous=False)
    finally:
        consumer.close()
    return values


def post(receivers: Receivers, name: str, webhook_id: str, body: bytes = b"{}") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", receivers.port, timeout=30)
    try:
        connection.request("POST", f"/{name}", body, {"webhook-id": webhook_id})
        return connection.getresponse().status
    finally:
        connection.close()


def wait_until_no_client(server: PostgresServer) -> None:
    """Until every backend that served a client has ended.

    `freeze`, `thaw` and `stop` list the server's processes and then signal each: one that ends in
    between makes them raise.
    """

    def no_client() -> bool:
        try:
            return not any("127.0.0.1(" in " ".join(p.cmdline()) for p in server._processes())
        except psutil.Error:
            return False

    wait_for(no_client, 30, "no backend serves a client")


def assert_silent(dsn: str) -> None:
    """A connection attempt gets neither an answer nor a refusal."""
    with pytest.raises(TimeoutError):
        asyncio.run(asyncpg.connect(dsn, timeout=1))


def test_kafka_keeps_records_and_committed_offsets_over_a_restart(broker: KafkaBroker) -> None:
    broker.create_topic("kept", partitions=1)
    publish(broker.bootstrap, "kept", (Record(b"%d" % n, partition=0) for n in range(1_000)))
    expected = [b"%d" % n for n in range(1_000)]
    assert read(broker, "kept", 1_000) == expected
    bootstrap = broker.bootstrap
    broker.restart()
    assert broker.bootstrap == bootstrap
    assert broker.end_offsets("kept") == {0: 1_000}
    assert broker.committed("g", "kept") == {0: 1_000}
    assert read(broker, "kept", 1_000) == expected


def test_kafka_topics_grow_and_go(broker: KafkaBroker) -> None:
    broker.create_topic("grows", partitions=1)
    broker.add_partitions("grows", 3)
    wait_for(lambda: len(broker.end_offsets("grows")) == 3, 30, "three partitions")
    broker.delete_topic("grows")
    assert "grows" not in broker.admin.list_topics(timeout=10).topics


def test_each_postgres_database_is_fresh(server: PostgresServer) -> None:
    first, second = server.create_database(), server.create_database()
    first.execute("CREATE TABLE public.t (n int)")
    assert second.value("SELECT to_regclass('public.t')") is None


def test_a_frozen_postgres_is_silent_and_works_again_when_thawed(server: PostgresServer) -> None:
    database = server.create_database()
    wait_until_no_client(server)
    server.freeze()
    try:
        assert_silent(database.dsn)
    finally:
        server.thaw()
    assert database.value("SELECT 1") == 1


def test_an_immediate_restart_keeps_what_was_committed(server: PostgresServer) -> None:
    database = server.create_database()
    database.execute("CREATE TABLE public.t AS SELECT 7 AS n")
    server.restart_immediately()
    assert database.value("SELECT n FROM public.t") == 7


def test_receivers_answer_in_their_manner_and_count_what_they_accepted(
    receivers: Receivers,
) -> None:
    receivers.manner("a", "fail_first", times=2)
    assert [post(receivers, "a", "m1") for _ in range(3)] == [503, 503, 200]
    receivers.manner("a", "status", status=410)
    assert post(receivers, "a", "m2") == 410
    ledger = receivers.ledger("a")
    assert (ledger.requests, ledger.received, ledger.accepted) == (4, {"m1": 3, "m2": 1}, {"m1": 1})


def test_receivers_count_the_members_of_a_batch(receivers: Receivers) -> None:
    body = json.dumps([{"id": "m1"}, {"id": "m2"}]).encode()
    assert post(receivers, "b", "batch", body) == 200
    ledger = receivers.ledger("b")
    assert (ledger.requests, ledger.accepted) == (1, {"m1": 1, "m2": 1})
    headers, kept = ledger.kept[-1]
    assert (headers["webhook-id"], kept) == ("batch", body)


def test_a_dropping_receiver_gives_no_answer_and_accepts_nothing(receivers: Receivers) -> None:
    receivers.manner("c", "drop")
    with pytest.raises((http.client.BadStatusLine, OSError)):
        post(receivers, "c", "m1")
    assert receivers.ledger("c").received == {"m1": 1}


def test_the_proxy_passes_then_cuts_then_heals(server: PostgresServer, proxy: Proxy) -> None:
    dsn = server.dsn().replace(f":{server.port}/", f":{proxy.port}/")
    assert Database(dsn).value("SELECT 1") == 1
    proxy.cut()
    with pytest.raises(OSError):
        Database(dsn).value("SELECT 1")
    proxy.heal()
    assert Database(dsn).value("SELECT 1") == 1


def test_the_proxy_in_the_dark_answers_nothing(server: PostgresServer, proxy: Proxy) -> None:
    dsn = server.dsn().replace(f":{server.port}/", f":{proxy.port}/")
    proxy.go_dark()
    assert_silent(dsn)
    proxy.heal()
    assert Database(dsn).value("SELECT 1") == 1


def test_the_proxy_loses_the_answer_to_a_commit_that_happened(
    server: PostgresServer, proxy: Proxy
) -> None:
    database = server.create_database()
    database.execute("CREATE TABLE public.t (n int)")
    through = Database(database.dsn.replace(f":{server.port}/", f":{proxy.port}/"))
    proxy.cut_answer_to(b"COMMIT")
    with pytest.raises((OSError, asyncpg.PostgresConnectionError)):
        through.execute("BEGIN; INSERT INTO public.t VALUES (1); COMMIT")
    assert proxy.cuts == 1
    assert database.value("SELECT count(*) FROM public.t") == 1


def test_a_process_beyond_its_limit_of_memory_is_killed_and_counted() -> None:
    try:
        limit = MemoryLimit(100 << 20)
    except OSError as error:
        pytest.skip(f"no group with a limit of memory can be made here: {error}")
    ended = []
    for size in (20 << 20, 300 << 20):
        command = [*limit.prefix(), sys.executable, "-c", f"len(bytearray(b'x') * {size})"]
        ended.append(subprocess.run(command, timeout=60).returncode)
    assert ended == [0, -signal.SIGKILL]
    assert limit.kills() == 1
    limit.remove()


def test_a_small_disk_is_full_and_empty_again() -> None:
    disk = SmallDisk(4)
    try:
        disk.fill()
        with pytest.raises(OSError, match="No space left"):
            (disk.folder / "file").write_bytes(b"x" * 10_000)
        disk.empty()
        (disk.folder / "file").write_bytes(b"x" * 10_000)
    finally:
        disk.remove()


def test_a_clock_that_jumps_takes_the_wall_clock_along_and_no_other(tmp_path: Path) -> None:
    clock = WallClock(tmp_path)
    clock.jump(3_600)
    ask = "import time; print(time.time(), time.monotonic())"
    done = subprocess.run(
        [sys.executable, "-c", ask],
        capture_output=True, text=True, timeout=60, env={**os.environ, **clock.environ},
    )  # fmt: skip
    wall, monotonic = (float(text) for text in done.stdout.split())
    assert wall - time.time() == pytest.approx(3_600, abs=60)
    assert monotonic - time.monotonic() == pytest.approx(0, abs=60)
