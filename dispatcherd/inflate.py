"""A bound on what a compressed batch of records may become in memory.

aiokafka inflates a batch whole, whatever it grows to: 6.5 KB of zstd can be 200 MB. It has no place
where a codec can be passed in, so the names by which its record parsers find their codecs are set
to the ones below. (One more thing of aiokafka is replaced, in `consume`.) A version in which the
names are not found is refused at the start.

Invariant: no batch is inflated past `most_bytes`, and no one poll inflates more than that in all,
but for its first batch. Leaves out: what is done about such a batch (consume, fetch).
"""

from __future__ import annotations

import importlib
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ClassVar

import cramjam

_PARSERS = (
    "aiokafka.record._crecords.default_records",
    "aiokafka.record._crecords.legacy_records",
    "aiokafka.record.default_records",
    "aiokafka.record.legacy_records",
)
_SCRATCH_BYTES = 1 << 20
"""Most batches fit; what does not gets a buffer of its own, eight times larger each time."""
_FULL = "failed to write whole buffer"
"""How cramjam says that the output has no room for more (Rust's `WriteZero`)."""
_XERIAL = b"\x82SNAPPY\x00"
_XERIAL_HEADER_BYTES = 16


class BatchTooLarge(Exception):
    """One batch would become larger than the bound."""


class PollTooLarge(Exception):
    """The batches of one poll would together: ask for fewer records at once."""


class _Inflated(bytearray):
    """An inflated batch. Counted while it is alive: a batch that is read in part stays."""

    live: ClassVar[int] = 0

    def __init__(self, content: bytearray | memoryview) -> None:
        super().__init__(content)
        _Inflated.live += len(self)

    def __del__(self) -> None:
        _Inflated.live -= len(self)


class Turn:
    """What one poll has inflated so far, and how much it may."""

    __slots__ = ("bytes", "most_bytes")

    def __init__(self, most_bytes: int) -> None:
        self.bytes = 0
        self.most_bytes = most_bytes


_turn: ContextVar[Turn | None] = ContextVar("turn", default=None)


def live_bytes() -> int:
    """Bytes of inflated batches that are not read to their end."""
    return _Inflated.live


@contextmanager
def turn(most_bytes: int) -> Iterator[Turn]:
    """Count what this task inflates within the block; PollTooLarge when it would be more."""
    counted = Turn(most_bytes)
    token = _turn.set(counted)
    try:
        yield counted
    finally:
        _turn.reset(token)


class Inflation:
    """The codecs, with their bound. One per process is installed: aiokafka's parsers are global."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._scratch = bytearray(min(_SCRATCH_BYTES, most_bytes))

    def install(self) -> None:
        """From now on every batch that this process reads is inflated here."""
        codecs: dict[str, Callable[[bytes | memoryview], bytearray]] = {
            "gzip_decode": lambda data: self._streamed(cramjam.gzip.decompress_into, data),
            "lz4_decode": lambda data: self._streamed(cramjam.lz4.decompress_into, data),
            "zstd_decode": lambda data: self._streamed(cramjam.zstd.decompress_into, data),
            "snappy_decode": self._snappy,
        }
        for name in _PARSERS:
            parser = importlib.import_module(name)
            for codec, bounded in codecs.items():
                if codec == "zstd_decode" and "legacy" in name:
                    continue  # the old formats never knew it
                if not hasattr(parser, codec):
                    raise RuntimeError(
                        f"{name} of aiokafka has no {codec}: what batches become in memory cannot "
                        "be bounded with this version; install one that constraints.txt names"
                    )
                setattr(parser, codec, bounded)

    def _streamed(
        self, into: Callable[[bytes | memoryview, bytearray], int], data: bytes | memoryview
    ) -> _Inflated:
        """Inflated until it ends or the output is full; then once more into a larger one."""
        output: bytearray | None = self._scratch
        while output is not None:
            try:
                size = into(data, output)
                return self._counted(memoryview(output)[:size])
            except cramjam.DecompressionError as error:
                if str(error) != _FULL:
                    raise
            tried, output = len(output), None  # let go before the next one is made
            if tried < self.most_bytes:
                output = bytearray(min(self.most_bytes, tried * 8))
        raise self._too_large(len(data))

    def _snappy(self, data: bytes | memoryview) -> _Inflated:
        """A raw block says its size beforehand; Java's producers write several, each with its
        length, behind a header."""
        view = memoryview(data)
        blocks = [view]
        if bytes(view[: len(_XERIAL)]) == _XERIAL:
            blocks, at = [], _XERIAL_HEADER_BYTES
            while at < len(view):
                (length,) = struct.unpack_from(">i", view, at)
                if not 0 < length <= len(view) - at - 4:
                    raise ValueError("snappy: a block reaches past the end of its batch")
                blocks.append(view[at + 4 : at + 4 + length])
                at += 4 + length
        sizes = [cramjam.snappy.decompress_raw_len(block) for block in blocks]
        if sum(sizes) > self.most_bytes:
            raise self._too_large(len(view))
        output, at = bytearray(sum(sizes)), 0
        for block, size in zip(blocks, sizes, strict=True):
            room = bytearray(size)
            written = cramjam.snappy.decompress_raw_into(block, room)
            output[at : at + written] = room[:written]
            at += written
        return self._counted(output)

    def _counted(self, content: bytearray | memoryview) -> _Inflated:
        spent = _turn.get()
        if spent is not None:
            if spent.bytes and spent.bytes + len(content) > spent.most_bytes:
                raise PollTooLarge
            spent.bytes += len(content)
        return _Inflated(content)

    def _too_large(self, compressed: int) -> BatchTooLarge:
        return BatchTooLarge(
            f"a batch of {compressed} compressed bytes becomes more than "
            f"limits.batch_inflated_bytes ({self.most_bytes})"
        )
