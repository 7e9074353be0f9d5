"""Compressed batches that become far larger in memory: bounded, by the policy, nobody else's
matter."""

from __future__ import annotations

from collections.abc import Callable

from tests.acceptance.scene import Scene
from tests.rig.producer import event
from tests.rig.raw_batch import CODECS, compressed_batch, produce
from tests.rig.waiting import wait_for

MEGABYTE = 1 << 20
BOUND = 16 * MEGABYTE
INFLATED = {"gzip": 200_000_000, "snappy": 40_000_000, "lz4": 200_000_000, "zstd": 200_000_000}
"""(Snappy makes at most 21 bytes of one: 200 MB would have to be sent as 9.)"""
BIG_TOPIC = {"max.message.bytes": "20000000"}


LIMITS = {"batch_inflated_bytes": BOUND}


def test_a_bomb_of_each_codec_is_passed_over_within_the_bound_of_memory(
    scene: Callable[..., Scene],
) -> None:
    codecs = list(CODECS)
    here = scene(len(codecs), BIG_TOPIC)
    one = here.start(here.endpoint("all"), kafka={"on_unreadable": "skip"}, limits=LIMITS)
    for partition, codec in enumerate(codecs):  # each is read by its own codec before the bomb
        values = [event(1_000 * partition + n) for n in range(100)]
        produce(here.kafka.bootstrap, here.topic, partition, compressed_batch(codec, values))
    good = [1_000 * partition + n for partition in range(len(codecs)) for n in range(100)]
    here.wait_accepted("all", good)
    before = one.peak_rss_bytes()
    for partition, codec in enumerate(codecs):
        bomb = compressed_batch(codec, [bytes(INFLATED[codec])])
        produce(here.kafka.bootstrap, here.topic, partition, bomb)
        if codec == "zstd":
            assert len(bomb) < 20_000, "it is not the bomb that is meant"
    here.publish(range(10_000, 10_100))
    here.wait_accepted("all", [*good, *range(10_000, 10_100)])
    here.wait_settled()
    rows = here.database.fetch('SELECT partition, "offset", detail FROM quarantine ORDER BY 1')
    assert [(row["partition"], row["offset"]) for row in rows] == [(p, 100) for p in range(4)]
    assert all("limits.batch_inflated_bytes" in row["detail"] for row in rows)
    assert one.peak_rss_bytes() - before < 4 * BOUND, "a batch was inflated past the bound"
    one.stop()


def test_a_bomb_halts_its_partition_and_no_other(scene: Callable[..., Scene]) -> None:
    here = scene(2, BIG_TOPIC)
    one = here.daemon(here.endpoint("all"), limits=LIMITS)
    here.publish(range(100))
    bomb = compressed_batch("zstd", [bytes(INFLATED["zstd"])])
    produce(here.kafka.bootstrap, here.topic, 0, bomb)
    here.publish(range(100, 200))
    one.start()
    wait_for(lambda: "partition_halted" in one.log(), 30, "the halt to be named")
    readable = [*range(100), *range(101, 200, 2)]
    here.wait_accepted("all", readable)
    assert "limits.batch_inflated_bytes" in one.log()
    assert one.metric("dispatcherd_halted", f"0,{here.topic}") == 1
    assert one.peak_rss_bytes() < 180 * MEGABYTE
    one.stop()


def test_batches_that_are_large_together_are_read_a_few_at_a_time(
    scene: Callable[..., Scene],
) -> None:
    """160 MB of events in 32 batches of 1 KB that become 5 MB each; every bound is 8 MB."""
    partitions, batches, values, bound = 4, 8, 5, 8 * MEGABYTE
    here = scene(partitions)
    every = ("memory", "window", "lane", "unrecorded", "wheel")
    limits = {f"{name}_bytes": bound for name in every} | {"batch_inflated_bytes": bound}
    one = here.daemon(here.endpoint("all"), limits=limits)
    number = 0
    for partition in range(partitions):
        for _ in range(batches):
            large = [event(number + n, size=1_000_000) for n in range(values)]
            number += values
            produce(here.kafka.bootstrap, here.topic, partition, compressed_batch("zstd", large))
    one.start()
    before = one.peak_rss_bytes()
    here.wait_accepted("all", range(number))
    here.wait_settled()
    assert here.receivers.ledger("all").accepted.total() == number
    assert one.peak_rss_bytes() - before < 110 * MEGABYTE
    one.stop()
