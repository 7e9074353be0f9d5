"""Compressed batches that become far larger in memory: bounded, by the policy, nobody else's
matter."""

from __future__ import annotations

from collections.abc import Callable

from tests.acceptance.checks import wait_all_accepted, wait_settled
from tests.rig.daemon import Daemon, config_for
from tests.rig.kafka import KafkaBroker
from tests.rig.postgres import Database
from tests.rig.producer import event, events, publish
from tests.rig.raw_batch import CODECS, compressed_batch, produce
from tests.rig.receivers import Receivers
from tests.rig.waiting import wait_for

MEGABYTE = 1 << 20
BOUND = 16 * MEGABYTE
INFLATED = {"gzip": 200_000_000, "snappy": 40_000_000, "lz4": 200_000_000, "zstd": 200_000_000}
"""(Snappy makes at most 21 bytes of one: 200 MB would have to be sent as 9.)"""
BIG_TOPIC = {"max.message.bytes": "20000000"}


LIMITS = {"batch_inflated_bytes": BOUND}


def test_a_bomb_of_each_codec_is_passed_over_within_the_bound_of_memory(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    codecs = list(CODECS)
    kafka.create_topic(topic, len(codecs), BIG_TOPIC)
    endpoints = [{"id": "all", "url": receivers.url("all")}]
    config = config_for(
        kafka.bootstrap,
        database.dsn,
        topic,
        endpoints,
        kafka={"on_unreadable": "skip"},
        limits=LIMITS,
    )
    one = daemon(config).migrate().start()
    for partition, codec in enumerate(codecs):  # each is read by its own codec before the bomb
        values = [event(1_000 * partition + n) for n in range(100)]
        produce(kafka.bootstrap, topic, partition, compressed_batch(codec, values))
    good = [1_000 * partition + n for partition in range(len(codecs)) for n in range(100)]
    wait_all_accepted(receivers, "all", good)
    before = one.peak_rss_bytes()
    for partition, codec in enumerate(codecs):
        bomb = compressed_batch(codec, [bytes(INFLATED[codec])])
        produce(kafka.bootstrap, topic, partition, bomb)
        if codec == "zstd":
            assert len(bomb) < 20_000, "it is not the bomb that is meant"
    publish(kafka.bootstrap, topic, events(range(10_000, 10_100), partitions=len(codecs)))
    wait_all_accepted(receivers, "all", [*good, *range(10_000, 10_100)])
    wait_settled(kafka, database, topic)
    rows = database.fetch('SELECT partition, "offset", detail FROM quarantine ORDER BY 1')
    assert [(row["partition"], row["offset"]) for row in rows] == [(p, 100) for p in range(4)]
    assert all("limits.batch_inflated_bytes" in row["detail"] for row in rows)
    assert one.peak_rss_bytes() - before < 4 * BOUND, "a batch was inflated past the bound"
    one.stop()


def test_a_bomb_halts_its_partition_and_no_other(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    kafka.create_topic(topic, 2, BIG_TOPIC)
    endpoints = [{"id": "all", "url": receivers.url("all")}]
    config = config_for(kafka.bootstrap, database.dsn, topic, endpoints, limits=LIMITS)
    one = daemon(config).migrate()
    publish(kafka.bootstrap, topic, events(range(100), partitions=2))
    produce(kafka.bootstrap, topic, 0, compressed_batch("zstd", [bytes(INFLATED["zstd"])]))
    publish(kafka.bootstrap, topic, events(range(100, 200), partitions=2))
    one.start()
    wait_for(lambda: "partition_halted" in one.log(), 30, "the halt to be named")
    readable = [*range(100), *range(101, 200, 2)]
    wait_all_accepted(receivers, "all", readable)
    assert "limits.batch_inflated_bytes" in one.log()
    assert one.metric("dispatcherd_halted", f"0,{topic}") == 1
    assert one.peak_rss_bytes() < 180 * MEGABYTE
    one.stop()


def test_batches_that_are_large_together_are_read_a_few_at_a_time(
    kafka: KafkaBroker,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
) -> None:
    """160 MB of events in 32 batches of 1 KB that become 5 MB each; every bound is 8 MB."""
    partitions, batches, values, bound = 4, 8, 5, 8 * MEGABYTE
    kafka.create_topic(topic, partitions)
    endpoints = [{"id": "all", "url": receivers.url("all")}]
    every = ("memory", "window", "lane", "unrecorded", "wheel")
    limits = {f"{name}_bytes": bound for name in every} | {"batch_inflated_bytes": bound}
    config = config_for(kafka.bootstrap, database.dsn, topic, endpoints, limits=limits)
    one = daemon(config).migrate()
    number = 0
    for partition in range(partitions):
        for _ in range(batches):
            large = [event(number + n, size=1_000_000) for n in range(values)]
            number += values
            produce(kafka.bootstrap, topic, partition, compressed_batch("zstd", large))
    one.start()
    before = one.peak_rss_bytes()
    wait_all_accepted(receivers, "all", range(number))
    wait_settled(kafka, database, topic)
    assert receivers.ledger("all").accepted.total() == number
    assert one.peak_rss_bytes() - before < 110 * MEGABYTE
    one.stop()
