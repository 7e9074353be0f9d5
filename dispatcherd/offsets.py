"""What of a claimed partition is settled: the window between its watermark and its position.

Invariant: every offset below `watermark` is settled, and the watermark never moves backwards; a
record leaves `records` only through `settle`. Offsets have gaps (transactions, compaction): two
records that were fetched one after the other prove what lies between them. Leaves out: when a
settlement becomes durable (record) and what is done when the window is full (pipeline).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from dispatcherd.delivery import Claim, Delivery

_NONE: Final[AbstractSet[int]] = frozenset()
QUARANTINED: Final = 0
"""Stands for the endpoint of a record that goes to quarantine (surrogate keys start at 1)."""


class Outstanding:
    """A record that is not settled: the deliveries still open, and the endpoints settled so far.

    Most records are owed to one endpoint. Its delivery stands here itself: a dictionary each would
    take memory, and of the processor's cache.
    """

    __slots__ = ("_open", "_single", "entered_at", "settled", "size")

    def __init__(
        self,
        deliveries: dict[int, Delivery | None] | None,
        single: Delivery | None,
        settled: set[int] | None,
        entered_at: float,
        size: int,
    ) -> None:
        """Either `deliveries`, by endpoint (None: not in memory), or `single`."""
        self._open = deliveries
        self._single = single
        self.settled = settled
        self.entered_at = entered_at
        self.size = size

    def deliveries(self) -> list[Delivery]:
        """Those open that exist in memory."""
        if self._open is not None:
            return [delivery for delivery in self._open.values() if delivery is not None]
        return [] if self._single is None else [self._single]

    def close(self, endpoint_id: int) -> bool:
        """One is settled. False when it was so already, or never owed."""
        if self._open is not None:
            if endpoint_id not in self._open:
                return False
            del self._open[endpoint_id]
            return True
        if self._single is None or self._single.endpoint_id != endpoint_id:
            return False
        self._single = None
        return True

    @property
    def closed(self) -> bool:
        """None is open."""
        return self._single is None if self._open is None else not self._open


@dataclass(slots=True, frozen=True)
class Progress:
    """One partition's state as a flush writes it."""

    claim: Claim
    watermark: int
    settled: str
    """`int8multirange` text of the settled offsets at or above the watermark."""
    partial: Mapping[str, list[int]]
    """Half-settled records: offset (as text) → surrogate keys of the endpoints settled."""
    fingerprint: bytes | None
    fingerprint_offset: int | None


class Window:
    """The unsettled records of one claim, counted in deliveries and bytes."""

    def __init__(
        self,
        claim: Claim,
        watermark: int,
        settled: Iterable[tuple[int, int]] = (),
        partial: Mapping[int, Iterable[int]] | None = None,
    ) -> None:
        self.claim = claim
        self.position = watermark
        """The next offset that has not been taken in."""
        self.records: dict[int, Outstanding] = {}
        """Unsettled records, in offset order."""
        self.deliveries = 0
        self.bytes = 0
        self.dirty = False
        """It changed since the last snapshot."""
        self.durable_watermark = watermark
        self.committed_watermark = -1
        """Last watermark that Kafka accepted; -1: none."""
        self.aside: list[Delivery] = []
        """Deliveries taken out of their lanes while the claim is suspended."""
        self.marks: deque[tuple[int, bytes]] = deque()
        """(offset, fingerprint) of some records taken in, rising: the last one below the watermark
        tells, at the next claim, whether the topic is still the same."""
        self._known = sorted(settled)
        self._known_starts = [low for low, _ in self._known]
        self._known_partial = {offset: set(ids) for offset, ids in (partial or {}).items()}
        self._half: dict[int, set[int]] = {}

    @property
    def watermark(self) -> int:
        """Every offset below it is settled in memory; durable only after the next flush."""
        return next(iter(self.records), self.position)

    def wanted(self, offset: int) -> bool:
        """Whether a fetched record is to be taken in: it was not before, and is not settled."""
        if offset < self.position:
            return False
        if not self._known:
            return True
        index = bisect_right(self._known_starts, offset) - 1
        return index < 0 or offset >= self._known[index][1]

    def settled_endpoints(self, offset: int) -> AbstractSet[int]:
        """The endpoints that had settled this record before this claim began."""
        return self._known_partial.get(offset, _NONE) if self._known_partial else _NONE

    def skip_to(self, position: int) -> None:
        """Every offset below `position` that is not outstanding is settled or does not exist."""
        if position > self.position:
            self.position = position
            self.dirty = True

    def add(
        self, offset: int, deliveries: dict[int, Delivery | None], now: float, size: int
    ) -> None:
        """Take a record in; with no delivery it is settled by that. Offsets must rise."""
        assert offset >= self.position, (offset, self.position)
        if deliveries:
            before = self._known_partial.pop(offset, None)
            self.records[offset] = Outstanding(deliveries, None, before, now, size)
            if before:
                self._half[offset] = before
            self.deliveries += len(deliveries)
            self.bytes += size
        self.position = offset + 1
        self.dirty = True

    def add_single(self, offset: int, delivery: Delivery, now: float, size: int) -> None:
        """`add` for a record of which no other delivery is known, nor was before this claim."""
        assert offset >= self.position, (offset, self.position)
        self.records[offset] = Outstanding(None, delivery, None, now, size)
        self.deliveries += 1
        self.bytes += size
        self.position = offset + 1
        self.dirty = True

    def settle(self, offset: int, endpoint_id: int) -> bool:
        """One delivery of a record is settled. False when it was so already, or never taken in."""
        record = self.records.get(offset)
        if record is None or not record.close(endpoint_id):
            return False
        self.deliveries -= 1
        self.dirty = True
        if not record.closed:
            if record.settled is None:
                record.settled = self._half[offset] = set()
            record.settled.add(endpoint_id)
            self._half[offset] = record.settled
            return True
        del self.records[offset]
        if record.settled is not None:
            self._half.pop(offset, None)
        self.bytes -= record.size
        return True

    def over_cap(self, cap: int) -> list[int]:
        """Offsets of half-settled records with more settled endpoints than `cap`."""
        return [o for o, ids in self._half.items() if len(ids) > cap and o in self.records]

    def oldest(self, entered_before: float) -> Iterator[tuple[int, Outstanding]]:
        """Unsettled records taken in before a monotonic time, oldest first."""
        for offset, record in self.records.items():
            if record.entered_at >= entered_before:
                return
            yield offset, record

    def snapshot(self) -> Progress:
        """The state as of now, for the flush that is being frozen; clears `dirty`."""
        self.dirty = False
        watermark = low = self.watermark
        ranges: list[str] = []
        for offset in self.records:
            if offset > low:
                ranges.append(f"[{low},{offset})")
            low = offset + 1
        tail = max(low, self.position)
        if low < self.position:
            ranges.append(f"[{low},{self.position})")
        if self._known and self._known[-1][1] > tail:
            ranges.extend(
                f"[{max(start, tail)},{stop})" for start, stop in self._known if stop > tail
            )
        mark = self._mark_below(watermark)
        half = self._half
        if self._known_partial:
            later = {o: ids for o, ids in self._known_partial.items() if o >= self.position}
            self._known_partial = later
            half = {**half, **later}
        return Progress(
            claim=self.claim,
            watermark=watermark,
            settled="{" + ",".join(ranges) + "}",
            partial={str(offset): sorted(ids) for offset, ids in half.items()},
            fingerprint=mark[1] if mark else None,
            fingerprint_offset=mark[0] if mark else None,
        )

    def mark(self, offset: int, fingerprint: bytes) -> None:
        """Remember a record's fingerprint; at most a few hundred are kept."""
        if len(self.marks) < 256:
            self.marks.append((offset, fingerprint))

    def _mark_below(self, watermark: int) -> tuple[int, bytes] | None:
        mark = None
        while self.marks and self.marks[0][0] < watermark:
            mark = self.marks.popleft()
        return mark
