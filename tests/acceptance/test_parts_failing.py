"""Postgres and Kafka restarted, frozen, gone: nothing lost, work resumes by itself."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import TopicPartition

from dispatcherd.config.model import KafkaConfig
from dispatcherd.consume import Consumer
from dispatcherd.errors import LogError
from tests.acceptance.checks import assert_recorded_once
from tests.acceptance.scene import Scene
from tests.rig.daemon import Daemon
from tests.rig.kafka import KafkaBroker
from tests.rig.postgres import Database, PostgresServer
from tests.rig.producer import Flow, events, publish
from tests.rig.proxy import Proxy
from tests.rig.receivers import Receivers
from tests.rig.waiting import wait_for

NAMES = ("single", "batched", "flaky")


@pytest.fixture
def on_own_postgres(
    kafka: KafkaBroker,
    own_postgres: PostgresServer,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> Scene:
    """With a Postgres to break."""
    return Scene(kafka, own_postgres.create_database(), receivers, topic, daemon, 8)


@pytest.fixture
def on_own_kafka(
    own_kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> Scene:
    """With a broker to break."""
    return Scene(own_kafka, database, receivers, topic, daemon, 8)


def _endpoints(here: Scene) -> list[dict[str, Any]]:
    retry = {"schedule_seconds": [0, 0.5], "max_attempts": 20, "jitter": 0}
    return [
        here.endpoint("single"),
        here.endpoint("batched", batch={"max_events": 10}),
        here.endpoint("flaky", retry=retry),
    ]


def _through(proxy: Proxy, here: Scene) -> str:
    """The DSN of the scene's database, behind a proxy."""
    return re.sub(r":\d+/", f":{proxy.port}/", here.database.dsn)


def _all_arrive(here: Scene, count: int) -> None:
    for name in NAMES:
        here.wait_accepted(name, range(count))
    here.wait_settled()
    here.database.wait_until("SELECT count(*) FROM deliveries", 0)
    assert_recorded_once(here.database)
    recorded = here.database.value("SELECT count(DISTINCT exchange_id) FROM attempts WHERE sent")
    assert recorded == sum(counts[0] for counts in here.receivers.summary().values())


def test_postgres_restarted_at_once_and_frozen_costs_nothing(
    on_own_postgres: Scene, own_postgres: PostgresServer
) -> None:
    here = on_own_postgres
    here.receivers.manner("flaky", "fail_first", times=1)
    one = here.daemon(*_endpoints(here), limits={"unrecorded_rows": 500}).migrate().start()
    flow = Flow(here.kafka.bootstrap, here.topic)
    flow.start()
    wait_for(lambda: here.receivers.accepted("single") > 300, 30, "load")
    for _ in range(3):
        own_postgres.restart_immediately()
        here.wait_more_accepted("single")
    own_postgres.freeze()
    rows = []
    frozen_until = time.monotonic() + 10
    while time.monotonic() < frozen_until:  # ten seconds of it are the claim
        rows.append(one.metric("dispatcherd_unrecorded_rows"))
        time.sleep(0.5)  # twenty looks at a number that must not grow
    sent_while_frozen = here.receivers.accepted("single")
    own_postgres.thaw()
    assert max(rows) <= 500, "the unrecorded buffer grew past its bound"
    count = flow.stop()
    _all_arrive(here, count)
    assert count > sent_while_frozen, "sending did not stop while nothing could be recorded"
    assert one.rss_bytes() < 250 * 1024 * 1024
    one.stop()


def test_a_lost_answer_to_commit_records_nothing_twice(
    on_own_postgres: Scene, own_postgres: PostgresServer
) -> None:
    here, proxy = on_own_postgres, Proxy(own_postgres.port)
    one = here.daemon(*_endpoints(here), postgres={"dsn": _through(proxy, here)}).migrate().start()
    flow = Flow(here.kafka.bootstrap, here.topic)
    flow.start()
    for number in range(1, 6):
        proxy.cut_answer_to(b"COMMIT;")
        wait_for(lambda n=number: proxy.cuts >= n, 30, f"answer {number} to be cut")  # type: ignore[misc]
        here.wait_more_accepted("single")
    _all_arrive(here, flow.stop())
    assert one.metric("dispatcherd_flush_failures_total") >= 1
    one.stop()
    proxy.stop()


def test_postgres_unreachable_without_a_reset_recovers_within_its_timeouts(
    on_own_postgres: Scene, own_postgres: PostgresServer
) -> None:
    here, proxy = on_own_postgres, Proxy(own_postgres.port)
    timeouts = {"statement_timeout_seconds": 2.0, "connect_timeout_seconds": 2.0}
    one = here.daemon(*_endpoints(here), postgres={"dsn": _through(proxy, here), **timeouts})
    one.migrate().start()
    flow = Flow(here.kafka.bootstrap, here.topic)
    flow.start()
    wait_for(lambda: here.receivers.accepted("single") > 200, 30, "load")
    proxy.go_dark()
    wait_for(lambda: "postgres_unavailable" in one.log(), 30, "the outage to be named")
    proxy.cut()
    proxy.heal()
    _all_arrive(here, flow.stop())
    assert "postgres_available_again" in one.log()
    one.stop()
    proxy.stop()


def test_postgres_lost_at_start_while_kafka_is_waited_for_is_waited_for_too(
    on_own_postgres: Scene, own_postgres: PostgresServer
) -> None:
    here = on_own_postgres
    brokers, server = Proxy(int(here.kafka.bootstrap.split(":")[1])), Proxy(own_postgres.port)
    brokers.cut()
    one = here.daemon(
        *_endpoints(here),
        kafka={"bootstrap_servers": [f"127.0.0.1:{brokers.port}"]},
        postgres={"dsn": _through(server, here)},
    )
    one.migrate().start(wait=False)
    wait_for(lambda: "waiting_for_part" in one.log(), 30, "the wait for Kafka")
    server.cut()
    brokers.heal()
    wait_for(lambda: one.log().count("waiting_for_part") == 2, 30, "the wait for Postgres")
    server.heal()
    one.wait_ready()
    here.publish(range(100))
    _all_arrive(here, 100)
    one.stop()
    brokers.stop()
    server.stop()


def test_kafka_restarted_resumes(on_own_kafka: Scene) -> None:
    here = on_own_kafka
    one = here.start(*_endpoints(here))
    here.publish(range(2_000))
    wait_for(lambda: here.receivers.accepted("single") > 100, 30, "load")
    here.kafka.restart()
    here.publish(range(2_000, 3_000))
    for name in NAMES:
        here.wait_accepted(name, range(3_000))
    here.wait_settled()
    one.stop()


def test_kafka_gone_while_sigterm_arrives_still_exits_in_time(on_own_kafka: Scene) -> None:
    here = on_own_kafka
    one = here.start(*_endpoints(here))
    here.publish(range(1_000))
    here.wait_accepted("single", range(1_000))
    here.kafka.kill()
    one.sigterm()
    assert one.wait_exit(11) == 0, one.log()[-2000:]


def test_empty_group_offsets_start_from_progress_and_not_from_the_policy(
    on_own_kafka: Scene,
) -> None:
    here = on_own_kafka
    one = here.start(*_endpoints(here))
    here.publish(range(500))
    here.wait_accepted("single", range(500))
    here.wait_settled()
    one.stop()
    here.kafka.delete_group(f"group-{here.topic}")
    here.publish(range(500, 600))
    one.start()
    here.wait_accepted("single", range(600))
    assert here.receivers.ledger("single").received.total() == 600


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
