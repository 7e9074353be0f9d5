"""Batches that no client library would write: the bytes are made here, produced as they are."""

from __future__ import annotations

import asyncio
import struct
import time

from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from aiokafka.record.util import calc_crc32c

_NAME = "QQQQ"
_NOT_UTF8 = b"\xff\xfe\xfd\xfc"
_CRC_AT, _CRC_FROM = 17, 21


def batch_with_a_header_name_that_is_not_utf8(values: list[bytes], bad: int) -> bytes:
    """A batch of these values; the record at index `bad` has a header whose name is not UTF-8."""
    builder = _DefaultRecordBatchBuilderPy(2, 0, 0, -1, -1, -1, 1_000_000)
    for index, value in enumerate(values):
        headers = [(_NAME, b"x")] if index == bad else []
        assert builder.append(index, 1_767_355_200_000, None, value, headers) is not None
    raw = bytearray(builder.build())
    at = raw.index(_NAME.encode())
    raw[at : at + len(_NOT_UTF8)] = _NOT_UTF8
    struct.pack_into(">I", raw, _CRC_AT, calc_crc32c(bytes(raw[_CRC_FROM:])))
    return bytes(raw)


CODECS = {"gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


def compressed_batch(codec: str, values: list[bytes]) -> bytes:
    """A batch of these values, compressed as a whole, however large it is."""
    builder = _DefaultRecordBatchBuilderPy(2, CODECS[codec], 0, -1, -1, -1, 1 << 31)
    now = int(time.time() * 1000)  # or retention would soon delete it
    for index, value in enumerate(values):
        assert builder.append(index, now, None, value, []) is not None
    return bytes(builder.build())


def produce(bootstrap: str, topic: str, partition: int, batch: bytes) -> int:
    """Produce one batch as it is; returns its first offset."""

    async def main() -> int:
        client = AIOKafkaClient(bootstrap_servers=bootstrap)
        await client.bootstrap()
        try:
            node = next(iter(client.cluster.brokers())).nodeId
            request = ProduceRequest(
                transactional_id=None,
                required_acks=-1,
                timeout=10_000,
                topics=[(topic, [(partition, batch)])],
            )
            response = await client.send(node, request)
            (_, [answer]) = response.topics[0]
            assert answer[1] == 0, f"the broker refused the batch: error {answer[1]}"
            return int(answer[2])
        finally:
            await client.close()

    return asyncio.run(main())
