"""What waits to be recorded, and the places reserved for what will: handed in here, flushed by the
recorder.

Invariant: a place for an outcome was reserved before the send it speaks of, so that nothing grows
past the reservation while Postgres is away; what is frozen for a flush does not change until its
fate is known. Nothing here waits. Leaves out: when to flush, and writing (recorder, flush).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from dispatcherd.config.model import LimitsConfig
from dispatcherd.delivery import (
    Claim,
    Delivery,
    Headers,
    Hold,
    Outcome,
    OutcomeKind,
    Reason,
    Refused,
    Stage,
)
from dispatcherd.offsets import QUARANTINED, Window
from dispatcherd.record.catalogue import Catalogue
from dispatcherd.record.gathering import (
    Change,
    Gathering,
    HeldRange,
    Operation,
    QuarantineRow,
    postgres_moment,
)
from dispatcherd.record.holding import Holding

# Looking up a member of an enum costs Python 3.11 70 ns each time.
_DELIVERED: Final = OutcomeKind.DELIVERED
_GONE: Final = Stage.GONE
_DELETE: Final = Change.DELETE
_OK: Final = Reason.OK
_MOST_MICROSECONDS: Final = 2_147_483_647
# asyncpg encodes an int in a third of the time that a member of an IntEnum takes.
_KINDS: Final = list(range(max(OutcomeKind) + 1))
_REASONS: Final = list(range(max(Reason) + 1))


class Buffer:
    """Outcomes and changes of what is owed, between those who make them and the recorder."""

    def __init__(
        self,
        catalogue: Catalogue,
        limits: LimitsConfig,
        flush_rows: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`flush_rows`: so many attempts are a reason to flush at once."""
        self._type_ids = catalogue.ids
        self._flush_rows = flush_rows
        self._max_rows = limits.unrecorded_rows
        self._max_bytes = limits.unrecorded_bytes
        self._clock = clock
        self.rows = 0
        """Places reserved or filled, up to and including the flush under way."""
        self.bytes = 0
        self.windows: dict[Claim, Window] = {}
        """Every claim whose records are in memory, active or suspended."""
        self.holding = Holding()
        self.awake = False
        """`on_work` has been called: another outcome need not say so again."""
        self.on_work: Callable[[], None] = _nobody
        """There is something to flush; set `awake` to False when it has been seen."""
        self.on_many: Callable[[], None] = _nobody
        """There is enough of it to flush at once."""
        self._open = Gathering()
        self._frozen: Gathering | None = None
        self.number = 0
        """Of the last flush that was frozen."""
        self._millisecond = -1
        self._moment = postgres_moment(0.0)
        """The time of the last attempt as a row has it: to the millisecond, and made once in it."""

    # --- reserving -------------------------------------------------------------------------

    def try_reserve(self, rows: int, size: int = 0) -> bool:
        """Reserve places for outcomes that do not exist yet; False when the buffer is full."""
        if self.rows + rows > self._max_rows and self.rows:
            return False
        if size and self.bytes + size > self._max_bytes and self.bytes:
            return False
        self.rows += rows
        self.bytes += size
        return True

    # --- handing in ------------------------------------------------------------------------

    def attempt(
        self,
        delivery: Delivery,
        exchange_id: int,
        at: float,
        duration_seconds: float,
        status: int,
        outcome: Outcome,
        sent: bool,
    ) -> None:
        """An exchange ended; its place was reserved, with `event.size` bytes. Changes nothing else:
        `delivered`, `owe` or `bury` follows.

        `exchange_id` is shared by the members of a batch; `delivery.attempts` counts this attempt
        already; `at` (Unix seconds) is when the request was begun.
        """
        event, gathering = delivery.event, self._open
        claim = event.claim
        if outcome.kind is _DELIVERED or delivery.owed:
            self.bytes -= event.size
        else:
            gathering.bytes += event.size  # its body goes with the flush
        millisecond = int(at * 1000)
        if millisecond != self._millisecond:
            self._millisecond = millisecond
            self._moment = postgres_moment(millisecond / 1000)
        duration = int(duration_seconds * 1e6)
        number = delivery.attempts
        gathering.attempts.append(
            (
                exchange_id,
                event.offset,
                self._moment,
                claim.topic_id,
                claim.partition,
                delivery.endpoint_id,
                self._type_ids[event.type],
                duration if duration < _MOST_MICROSECONDS else _MOST_MICROSECONDS,
                number if number < 32_767 else 32_767,
                status,
                _KINDS[outcome.kind],
                _REASONS[outcome.reason],
                sent,
                event.id,
            )
        )
        gathering.rows += 1
        if not self.awake:
            self._wake()
        elif len(gathering.attempts) >= self._flush_rows:
            self.on_many()

    def delivered(self, delivery: Delivery) -> None:
        """It is done: its row, if it has one, goes; else its record waits for one less."""
        delivery.stage = _GONE
        if delivery.owed:
            self._operate(delivery, _DELETE, 0.0, _OK, 0)
        else:
            self._open.settled.append(delivery)
        if not self.awake:
            self._wake()

    def owe(self, delivery: Delivery, due: float, reason: Reason, status: int = 0) -> None:
        """It waits in Postgres, due at a monotonic time; that settles it for Kafka's sake."""
        self._operate(delivery, Change.OWED, due, reason, status)

    def park(self, delivery: Delivery, due: float, reason: Reason) -> None:
        """As `owe`, without an attempt; its place was reserved, with `event.size` bytes."""
        self._open.rows += 1
        self._open.bytes += delivery.event.size
        self._operate(delivery, Change.OWED, due, reason, 0)

    def bury(self, delivery: Delivery, reason: Reason, status: int = 0) -> None:
        """It becomes a dead letter."""
        delivery.stage = Stage.GONE
        self._operate(delivery, Change.DEAD, self._clock(), reason, status)

    def discard(self, delivery: Delivery, request_no: int | None) -> None:
        """An operator wants it gone: its row is deleted whatever became of it."""
        delivery.stage = Stage.GONE
        self._operate(delivery, Change.DELETE, 0.0, Reason.OPERATOR_DISCARD, 0, request_no)

    def quarantine(
        self,
        window: Window,
        offset: int,
        refused: Refused,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        keep_bytes: int,
        now: float,
    ) -> None:
        """A record is no event: it is settled once its row is durable. Its place was reserved."""
        window.add(offset, {QUARANTINED: None}, now, 0)
        row = QuarantineRow.cut(window.claim, offset, refused, key, value, headers, keep_bytes)
        self._open.quarantine.append(row)
        self._open.settled_apart.append((window.claim, offset, QUARANTINED))
        self._open.rows += 1
        self._open.bytes += len(row.value or b"")
        self._wake()

    def hold(self, window: Window, offset: int, endpoint_id: int) -> None:
        """Owe a record to an endpoint without a row: its offset joins the range that is read again
        later. The record must be in the window already; that settles it for Kafka's sake."""
        grown = self.holding.extend(window.claim, endpoint_id, offset)
        self._open.held[grown.key] = grown
        self._open.settled_apart.append((window.claim, offset, endpoint_id))
        self._wake()

    def reread(self, held: HeldRange) -> None:
        """Everything below `held.resume_at` has been parked by now: in the same flush."""
        self._open.reread[held.key] = replace(held)
        self._wake()

    def touch(self) -> None:
        """A window moved without an outcome (records that nobody wants): flush it soon."""
        self._wake()

    def pending(self, delivery: Delivery) -> bool:
        """Whether a change of its row is not durable yet."""
        key = delivery.key
        frozen = self._frozen
        return key in self._open.operations or (frozen is not None and key in frozen.operations)

    def forget(self, claim: Claim) -> None:
        """The claim is somebody else's: nothing gathered for it counts but its attempts."""
        self.windows.pop(claim, None)
        self.holding.forget(claim)

    def _operate(
        self,
        delivery: Delivery,
        change: Change,
        due: float,
        reason: Reason,
        status: int,
        request_no: int | None = None,
    ) -> None:
        first = not delivery.owed
        if first:
            delivery.owed = True
            self._open.settled.append(delivery)
        operation = Operation(delivery, change, due, reason, status, first)
        operation.request_no = request_no
        if request_no is None and delivery.request is not None:
            operation.request_no = delivery.request_no
        self._open.put(operation)
        self._wake()

    def _wake(self) -> None:
        self.awake = True
        self.on_work()
        if len(self._open.attempts) >= self._flush_rows:
            self.on_many()

    # --- what a flush takes ----------------------------------------------------------------

    @property
    def empty(self) -> bool:
        """Nothing was handed in since the last `freeze`."""
        return not self._open

    @property
    def under_way(self) -> bool:
        """A flush has been frozen and its fate is not known."""
        return self._frozen is not None

    def freeze(self) -> Gathering | None:
        """The contents of the next flush, with its number; None when there is nothing to write."""
        self.settle()
        contents, self._open = self._open, Gathering()
        contents.progress = [
            window.snapshot()
            for window in self.windows.values()
            if window.dirty and window.claim.hold is not Hold.FENCED
        ]
        if not contents:
            return None
        self.number += 1
        contents.number = self.number
        self._frozen = contents
        return contents

    def settle(self) -> None:
        """What has been handed in leaves the windows, and their room is free; `freeze` does it
        otherwise. Its rows stay gathered, and no watermark is durable before they are."""
        gathering, windows = self._open, self.windows
        settled, gathering.settled = gathering.settled, []
        claim: Claim | None = None
        window: Window | None = None
        for delivery in settled:
            event = delivery.event
            if event.claim is not claim:
                claim = event.claim
                window = windows.get(claim)
            if window is not None:
                window.settle(event.offset, delivery.endpoint_id)
        apart, gathering.settled_apart = gathering.settled_apart, []
        for claim, offset, endpoint_id in apart:
            window = windows.get(claim)
            if window is not None:
                window.settle(offset, endpoint_id)

    def written(self, contents: Gathering) -> None:
        """The flush has committed: its places are free again, its watermarks durable."""
        self._frozen = None
        for progress in contents.progress:
            window = self.windows.get(progress.claim)
            if window is not None and progress.claim not in contents.fenced:
                window.durable_watermark = progress.watermark
        self.rows -= contents.rows
        self.bytes -= contents.bytes


def _nobody() -> None:
    """Nobody flushes yet."""
