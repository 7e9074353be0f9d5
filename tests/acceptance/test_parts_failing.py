"""Postgres and Kafka restarted, frozen, gone: nothing lost, work resumes by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
from aiokafka import TopicPartition

from dispatcherd.config.model import KafkaConfig
from dispatcherd.consume import Consumer
from dispatcherd.errors import LogError
from tests.acceptance.checks import assert_recorded_once, wait_all_accepted, wait_settled
from tests.rig.daemon import Daemon, config_for
from tests.rig.kafka import KafkaBroker
from tests.rig.postgres import Database, PostgresServer
from tests.rig.producer import Flow, events, publish
from tests.rig.proxy import Proxy
from tests.rig.receivers import Receivers
from tests.rig.waiting import wait_for


def _endpoints(receivers: Receivers) -> list[dict[str, object]]:
    return [
        {"id": "single", "url": receivers.url("single")},
        {"id": "batched", "url": receivers.url("batched"), "batch": {"max_events": 10}},
        {"id": "flaky", "url": receivers.url("flaky"), "retry": {
            "schedule_seconds": [0, 0.5], "max_attempts": 20, "jitter": 0}},
    ]  # fmt: skip


def _all_arrive(
    kafka: KafkaBroker, database: Database, receivers: Receivers, topic: str, count: int
) -> None:
    for name in ("single", "batched", "flaky"):
        wait_all_accepted(receivers, name, range(count))
    wait_settled(kafka, database, topic)
    database.wait_until("SELECT count(*) FROM deliveries", 0)
    assert_recorded_once(database)
    recorded = database.value("SELECT count(DISTINCT exchange_id) FROM attempts WHERE sent")
    assert recorded == sum(counts[0] for counts in receivers.summary().values())


def test_postgres_restarted_at_once_and_frozen_costs_nothing(
    kafka: KafkaBroker,
    own_postgres: PostgresServer,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    kafka.create_topic(topic, 8)
    receivers.manner("flaky", "fail_first", times=1)
    database = own_postgres.create_database()
    config = config_for(
        kafka.bootstrap,
        database.dsn,
        topic,
        _endpoints(receivers),
        limits={"unrecorded_rows": 500},
    )
    one = daemon(config).migrate().start()
    flow = Flow(kafka.bootstrap, topic)
    flow.start()
    wait_for(lambda: receivers.accepted("single") > 300, 30, "load")
    for _ in range(3):
        own_postgres.restart_immediately()
        seen = receivers.accepted("single")
        wait_for(lambda before=seen: receivers.accepted("single") > before, 60, "work resumed")  # type: ignore[misc]
    own_postgres.freeze()
    rows = []
    frozen_until = time.monotonic() + 10
    while time.monotonic() < frozen_until:  # ten seconds of it are the claim
        rows.append(one.metric("dispatcherd_unrecorded_rows"))
        time.sleep(0.5)  # twenty looks at a number that must not grow
    sent_while_frozen = receivers.accepted("single")
    own_postgres.thaw()
    assert max(rows) <= 500, "the unrecorded buffer grew past its bound"
    count = flow.stop()
    _all_arrive(kafka, database, receivers, topic, count)
    assert count > sent_while_frozen, "sending did not stop while nothing could be recorded"
    assert one.rss_bytes() < 250 * 1024 * 1024
    one.stop()


def test_a_lost_answer_to_commit_records_nothing_twice(
    kafka: KafkaBroker,
    own_postgres: PostgresServer,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    kafka.create_topic(topic, 8)
    database = own_postgres.create_database()
    proxy = Proxy(own_postgres.port)
    dsn = database.dsn.replace(f":{own_postgres.port}/", f":{proxy.port}/")
    config = config_for(kafka.bootstrap, dsn, topic, _endpoints(receivers))
    one = daemon(config).migrate().start()
    flow = Flow(kafka.bootstrap, topic)
    flow.start()
    for number in range(1, 6):
        proxy.cut_answer_to(b"COMMIT;")
        wait_for(lambda n=number: proxy.cuts >= n, 30, f"answer {number} to be cut")  # type: ignore[misc]
        seen = receivers.accepted("single")
        wait_for(lambda before=seen: receivers.accepted("single") > before, 30, "work resumed")  # type: ignore[misc]
    _all_arrive(kafka, database, receivers, topic, flow.stop())
    assert one.metric("dispatcherd_flush_failures_total") >= 1
    one.stop()
    proxy.stop()


def test_postgres_unreachable_without_a_reset_recovers_within_its_timeouts(
    kafka: KafkaBroker,
    own_postgres: PostgresServer,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    kafka.create_topic(topic, 8)
    database = own_postgres.create_database()
    proxy = Proxy(own_postgres.port)
    dsn = database.dsn.replace(f":{own_postgres.port}/", f":{proxy.port}/")
    timeouts = {"statement_timeout_seconds": 2.0, "connect_timeout_seconds": 2.0}
    config = config_for(kafka.bootstrap, dsn, topic, _endpoints(receivers), postgres=timeouts)
    one = daemon(config).migrate().start()
    flow = Flow(kafka.bootstrap, topic)
    flow.start()
    wait_for(lambda: receivers.accepted("single") > 200, 30, "load")
    proxy.go_dark()
    wait_for(lambda: "postgres_unavailable" in one.log(), 30, "the outage to be named")
    proxy.cut()
    proxy.heal()
    _all_arrive(kafka, database, receivers, topic, flow.stop())
    assert "postgres_available_again" in one.log()
    one.stop()
    proxy.stop()


def test_postgres_lost_at_start_while_kafka_is_waited_for_is_waited_for_too(
    kafka: KafkaBroker,
    own_postgres: PostgresServer,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    kafka.create_topic(topic, 8)
    database = own_postgres.create_database()
    brokers, server = Proxy(int(kafka.bootstrap.split(":")[1])), Proxy(own_postgres.port)
    brokers.cut()
    dsn = database.dsn.replace(f":{own_postgres.port}/", f":{server.port}/")
    config = config_for(f"127.0.0.1:{brokers.port}", dsn, topic, _endpoints(receivers))
    one = daemon(config).migrate().start(wait=False)
    wait_for(lambda: "waiting_for_part" in one.log(), 30, "the wait for Kafka")
    server.cut()
    brokers.heal()
    wait_for(lambda: one.log().count("waiting_for_part") == 2, 30, "the wait for Postgres")
    server.heal()
    one.wait_ready()
    publish(kafka.bootstrap, topic, events(range(100)))
    _all_arrive(kafka, database, receivers, topic, 100)
    one.stop()
    brokers.stop()
    server.stop()


def test_kafka_restarted_resumes(
    own_kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    own_kafka.create_topic(topic, 8)
    one = daemon(config_for(own_kafka.bootstrap, database.dsn, topic, _endpoints(receivers)))
    one.start()
    publish(own_kafka.bootstrap, topic, events(range(2_000)))
    wait_for(lambda: receivers.accepted("single") > 100, 30, "load")
    own_kafka.restart()
    publish(own_kafka.bootstrap, topic, events(range(2_000, 3_000)))
    for name in ("single", "batched", "flaky"):
        wait_all_accepted(receivers, name, range(3_000))
    wait_settled(own_kafka, database, topic)
    one.stop()


def test_kafka_gone_while_sigterm_arrives_still_exits_in_time(
    own_kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    own_kafka.create_topic(topic, 8)
    one = daemon(config_for(own_kafka.bootstrap, database.dsn, topic, _endpoints(receivers)))
    one.start()
    publish(own_kafka.bootstrap, topic, events(range(1_000)))
    wait_all_accepted(receivers, "single", range(1_000))
    own_kafka.kill()
    one.sigterm()
    assert one.wait_exit(11) == 0, one.log()[-2000:]


def test_empty_group_offsets_start_from_progress_and_not_from_the_policy(
    own_kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    own_kafka.create_topic(topic, 8)
    one = daemon(config_for(own_kafka.bootstrap, database.dsn, topic, _endpoints(receivers)))
    one.start()
    publish(own_kafka.bootstrap, topic, events(range(500)))
    wait_all_accepted(receivers, "single", range(500))
    wait_settled(own_kafka, database, topic)
    one.stop()
    own_kafka.delete_group(f"group-{topic}")
    publish(own_kafka.bootstrap, topic, events(range(500, 600)))
    one.start()
    wait_all_accepted(receivers, "single", range(600))
    assert receivers.ledger("single").received.total() == 600


def _consumer(kafka: KafkaBroker, topic: str) -> Consumer:
    config = KafkaConfig(bootstrap_servers=[kafka.bootstrap], topics=[topic])
    return Consumer(config, most_inflated_bytes=1_000_000)


async def test_a_kafka_client_that_has_stopped_fetching_is_an_error_and_not_silence(
    kafka: KafkaBroker, topic: str
) -> None:
    kafka.create_topic(topic, 1)
    consumer = _consumer(kafka, topic)
    await consumer.start()
    assert await consumer.poll([], 0) == {}
    reader = consumer.client._fetcher.error_future
    reader.cancel()
    await asyncio.wait({reader})
    with pytest.raises(LogError, match="stopped fetching"):
        await consumer.poll([], 0)
    await consumer.stop(5)


async def test_a_connection_to_kafka_that_is_closed_underneath_is_made_again(
    kafka: KafkaBroker, topic: str
) -> None:
    """uvloop's own error for it is none that aiokafka foresees: it ended the fetching for good."""
    kafka.create_topic(topic, 1)
    consumer = _consumer(kafka, topic)
    assigned = asyncio.Event()
    consumer.on_assigned = lambda tps: assigned.set()
    consumer.on_revoked = lambda tps: None
    await consumer.start()
    await asyncio.wait_for(assigned.wait(), 30)
    partition = TopicPartition(topic, 0)
    consumer.begin(partition, 0)
    host, port = kafka.bootstrap.split(":")
    connections = consumer.client._client._conns
    broken, kept = list(connections.values()), []
    for connection in broken:
        _, closed = await asyncio.open_connection(host, int(port))
        closed.transport.abort()
        await closed.wait_closed()
        with pytest.raises(RuntimeError):
            closed.write(b"x")
        kept.append(connection._writer)  # or it is closed, and that would be noticed in time
        connection._writer = closed
    async with asyncio.timeout(30):
        while not set(connections.values()).isdisjoint(broken):
            await consumer.poll([partition], 0.1)
    publish(kafka.bootstrap, topic, events(range(3), partitions=1))
    found: list[object] = []
    async with asyncio.timeout(30):
        while len(found) < 3:
            found += (await consumer.poll([partition], 0.5)).get(partition, [])
    await consumer.stop(5)
