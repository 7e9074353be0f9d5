"""A rebalance forgets which partitions the client had paused: they are paused again, and no more is
in memory than before."""

from __future__ import annotations

from collections.abc import Callable

from tests.acceptance.checks import assert_recorded_once, wait_all_accepted, wait_settled
from tests.rig.daemon import Daemon, config_for
from tests.rig.kafka import KafkaBroker
from tests.rig.postgres import Database, PostgresServer
from tests.rig.producer import Record, event, publish
from tests.rig.proxy import Proxy
from tests.rig.receivers import Receivers
from tests.rig.waiting import wait_for

MEGABYTE = 1 << 20
PARTITIONS, FIRST, COUNT, SIZE = 8, 80, 4_000, 4_000
UNRECORDED = 100


def _records(numbers: range) -> list[Record]:
    return [Record(event(n, size=SIZE), n % PARTITIONS) for n in numbers]


def _paused_seconds(one: Daemon) -> float:
    return one.metric("dispatcherd_paused_seconds_total", "unrecorded")


def _fetched_ahead(way: Proxy) -> int:
    """Bytes from the broker once the client has fetched as far ahead as it does, and rests."""
    looks: list[int] = []

    def rests() -> bool:
        looks.append(way.answered_bytes)
        return len(looks) > 10 and looks[-1] - looks[-10] < 10_000  # heartbeats go on

    wait_for(rests, 30, "the client to have fetched ahead")
    return looks[-1]


def test_partitions_paused_for_backpressure_are_paused_again_after_a_rebalance(
    kafka: KafkaBroker,
    kafka_proxy: Proxy,
    postgres_server: PostgresServer,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    """Without Postgres the first member cannot record, so it takes nothing in. A second one, which
    has Postgres, joins. The first keeps half of the partitions, and must not fetch a byte of their
    2 MB each, from where the group stands, before it can claim them."""
    kafka.create_topic(topic, PARTITIONS)
    way = Proxy(postgres_server.port)
    endpoints = [{"id": "all", "url": receivers.url("all")}]
    config = config_for(
        kafka.proxied,
        database.dsn.replace(f":{postgres_server.port}/", f":{way.port}/"),
        topic,
        endpoints,
        limits={"unrecorded_rows": UNRECORDED},
        postgres={"statement_timeout_seconds": 1.0, "connect_timeout_seconds": 1.0},
    )
    first = daemon(config, "first").migrate().start()
    publish(kafka.bootstrap, topic, _records(range(FIRST)))
    wait_settled(kafka, database, topic)

    way.go_dark()
    publish(kafka.bootstrap, topic, _records(range(FIRST, COUNT)))
    wait_for(lambda: _paused_seconds(first) > 0, 30, "intake to pause")
    consumed = first.metric("dispatcherd_records_consumed_total")
    resident = first.peak_rss_bytes()
    fetched = _fetched_ahead(kafka_proxy)
    logged = len(first.log())

    direct = config_for(kafka.bootstrap, database.dsn, topic, endpoints)
    second = daemon(direct, "second").start()
    wait_for(lambda: second.metric("dispatcherd_records_consumed_total") > 0, 30, "work by it")
    wait_for(lambda: "claim_failed" in first.log()[logged:], 30, "a claim without Postgres")
    assert "partitions_revoked" in first.log()[logged:]
    assert kafka_proxy.answered_bytes - fetched < MEGABYTE
    assert first.metric("dispatcherd_records_consumed_total") == consumed
    assert first.metric("dispatcherd_unrecorded_rows") <= UNRECORDED
    assert first.peak_rss_bytes() < resident + 4 * MEGABYTE

    way.heal()
    wait_all_accepted(receivers, "all", range(COUNT))
    wait_settled(kafka, database, topic)
    assert_recorded_once(database)
    second.stop()
    first.stop()
    way.stop()
