"""Where what the client cannot read ends: by the header of the batch, or by trying.

Invariant: what lies behind the first bad batch is not taken for a part of it, as long as that batch
has a header that can be believed. Leaves out: what is done about it (fetch, reread).
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.protocol.fetch import FetchRequest

_HEADER = struct.Struct(">qiibIhi")
"""Base offset, length, leader epoch, magic, CRC, attributes, last offset's delta: how a batch of
records begins (Kafka protocol, "Record Batch")."""
_MAGIC = 2
_CONTROL = 0x20
_TIMEOUT_SECONDS = 10


async def end_of_batch(client: AIOKafkaConsumer, tp: TopicPartition, offset: int) -> int | None:
    """The offset behind the batch in which this one lies. None: the broker does not say, or says
    what no batch's header can be. (aiokafka gives out records only: asked through its client.)"""
    end = offset
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            while True:
                header = _HEADER.unpack_from(await _first_batch(client, tp, end))
                base, _, _, magic, _, attributes, delta = header
                if magic != _MAGIC or delta < 0 or base + delta < end:
                    return None
                end = base + delta + 1
                if not attributes & _CONTROL:  # those are readable, and handed out to nobody
                    return int(end)
    except (kafka_errors.KafkaError, TimeoutError, struct.error):
        return None


async def _first_batch(client: AIOKafkaConsumer, tp: TopicPartition, offset: int) -> bytes:
    """Whole, however large it is: the broker gives no less."""
    wire = client._client
    place = (tp.topic, [(tp.partition, offset, 1)])
    request = FetchRequest(0, 0, 1, 0, [place])
    response = await wire.send(wire.cluster.leader_for_partition(tp), request)
    for _, partitions in response.topics:
        for _, error, *rest in partitions:
            return b"" if error else bytes(rest[-1] or b"")
    return b""


async def first_readable(
    readable: Callable[[int], Awaitable[bool]], unreadable: int, end: int
) -> int:
    """An offset behind `unreadable` that can be read from, at most `end`. `readable` tries one
    offset; it is asked a few dozen times, and steps over what can be read between two batches that
    cannot."""
    low, step = unreadable, 1
    while low + step < end and not await readable(low + step):
        low, step = low + step, step * 2
    high = min(low + step, end)
    while high - low > 1:
        middle = (low + high) // 2
        if await readable(middle):
            high = middle
        else:
            low = middle
    return high
