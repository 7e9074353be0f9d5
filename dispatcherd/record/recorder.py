"""Outcomes in, flushes out: one transaction after another, each with a known fate.

Invariant: what was handed in is written once, in order; a place for it was reserved before the
send it speaks of; while Postgres is away nothing is lost and nothing grows past the reservation.
Leaves out: the SQL (flush), claims, and what a settled watermark is good for (pipeline).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from dispatcherd import log
from dispatcherd.config.model import LimitsConfig, PostgresConfig
from dispatcherd.delivery import (
    Attempt,
    Claim,
    Delivery,
    Headers,
    Hold,
    OutcomeKind,
    Reason,
    Refused,
    Stage,
)
from dispatcherd.errors import StoreUnavailable
from dispatcherd.metrics import Metrics
from dispatcherd.offsets import QUARANTINED, Window
from dispatcherd.record import flush
from dispatcherd.record.bounds import bounded
from dispatcherd.record.catalogue import Catalogue
from dispatcherd.record.connection import Connection, Database, describe, is_transient
from dispatcherd.record.gathering import Change, Gathering, HeldRange, Operation, QuarantineRow
from dispatcherd.record.holding import Holding

logger = log.get(__name__)

# Looking up a member of an enum costs Python 3.11 70 ns each time.
_DELIVERED, _GONE = OutcomeKind.DELIVERED, Stage.GONE
_MOST_MICROSECONDS = 2_147_483_647
_BACKOFF_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)


class Recorder:
    """Gathers outcomes and writes them; the only writer of attempts, progress and deliveries."""

    def __init__(
        self,
        database: Database,
        catalogue: Catalogue,
        incarnation: int,
        postgres: PostgresConfig,
        limits: LimitsConfig,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._catalogue = catalogue
        self._incarnation = incarnation
        self._interval = postgres.flush_interval_seconds
        self._flush_rows = postgres.flush_max_rows
        # Each statement has its own bound; this one is for what asyncpg itself does not bound.
        self._flush_seconds = 3 * postgres.statement_timeout_seconds
        self._max_rows = limits.unrecorded_rows
        self._max_bytes = limits.unrecorded_bytes
        self._metrics = metrics
        self._clock = clock
        self.rows = 0
        """Places reserved or filled, up to and including the flush under way."""
        self.bytes = 0
        self.windows: dict[Claim, Window] = {}
        """Every claim whose records are in memory, active or suspended."""
        self.on_committed: Callable[[Gathering], None] = lambda contents: None
        self.on_room: Callable[[], None] = lambda: None
        self.turnstile = asyncio.Lock()
        """Held by a flush, and by whoever reads or changes what is owed: what a page shows and what
        is in memory must be of one moment."""
        self.healthy = True
        self.trouble = ""
        """Why the last flush was not written, in Postgres's own words; "" while all is well."""
        self._trouble_kind = ""
        self._open = Gathering()
        self._frozen: Gathering | None = None
        self._number = 0
        self._work = asyncio.Event()
        self._urgent = asyncio.Event()
        self._awake = False
        """`_work` is set: another outcome need not say so again."""
        self._millisecond = -1
        self._moment = datetime.fromtimestamp(0, UTC)
        """The time of the last attempt as a row has it: to the millisecond, and made once in it."""
        self._idle = asyncio.Event()
        self._idle.set()
        self._connection: Connection | None = None
        self._doubtful = False
        self._awaited: list[tuple[int, asyncio.Future[None]]] = []
        self.holding = Holding()

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

    def attempt(self, attempt: Attempt) -> None:
        """An exchange ended; its place was reserved, with `event.size` bytes. Changes nothing else:
        `delivered`, `owe` or `bury` follows."""
        delivery, exchange_id, number, at, duration_seconds, status, outcome, sent = attempt
        event, gathering = delivery.event, self._open
        claim = event.claim
        if outcome.kind is _DELIVERED or delivery.owed:
            self.bytes -= event.size
        else:
            gathering.bytes += event.size  # its body goes with the flush
        millisecond = int(at * 1000)
        if millisecond != self._millisecond:
            self._millisecond = millisecond
            self._moment = datetime.fromtimestamp(millisecond / 1000, UTC)
        duration = int(duration_seconds * 1e6)
        gathering.attempts.append(
            (
                exchange_id,
                event.offset,
                self._moment,
                claim.topic_id,
                claim.partition,
                delivery.endpoint_id,
                self._catalogue.ids[event.type],
                duration if duration < _MOST_MICROSECONDS else _MOST_MICROSECONDS,
                number if number < 32_767 else 32_767,
                status,
                outcome.kind,
                outcome.reason,
                sent,
                event.id,
            )
        )
        gathering.rows += 1
        if not self._awake:
            self._wake()
        elif len(gathering.attempts) >= self._flush_rows:
            self._urgent.set()

    def delivered(self, delivery: Delivery) -> None:
        """It is done: its row, if it has one, goes; else its record waits for one less."""
        delivery.stage = _GONE
        if delivery.owed:
            self._operate(delivery, Change.DELETE, 0.0, Reason.OK, 0)
        else:
            self._settle(delivery)
        if not self._awake:
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
        self._open.settled.append((window.claim, offset, QUARANTINED))
        self._open.rows += 1
        self._open.bytes += len(row.value or b"")
        self._wake()

    def hold(self, window: Window, offset: int, endpoint_id: int) -> None:
        """Owe a record to an endpoint without a row: its offset joins the range that is read again
        later. The record must be in the window already; that settles it for Kafka's sake."""
        grown = self.holding.extend(window.claim, endpoint_id, offset)
        self._open.held[grown.key] = grown
        self._open.settled.append((window.claim, offset, endpoint_id))
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

    def _settle(self, delivery: Delivery) -> None:
        event = delivery.event
        self._open.settled.append((event.claim, event.offset, delivery.endpoint_id))

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
            self._settle(delivery)
        operation = Operation(delivery, change, due, reason, status, first)
        operation.request_no = request_no
        if request_no is None and delivery.request is not None:
            operation.request_no = delivery.request_no
        self._open.put(operation)
        self._wake()

    def _wake(self) -> None:
        self._awake = True
        self._idle.clear()
        self._work.set()
        if len(self._open.attempts) >= self._flush_rows:
            self._urgent.set()

    # --- flushing --------------------------------------------------------------------------

    async def run(self) -> None:
        """Flush for ever. Ends only by cancellation, or by an error that nobody foresaw."""
        while True:
            await self._work.wait()
            if not self._urgent.is_set():
                try:
                    async with asyncio.timeout(self._interval):
                        await self._urgent.wait()
                except TimeoutError:
                    pass
            self._work.clear()
            self._urgent.clear()
            self._awake = False
            async with self.turnstile:
                contents = self._freeze()
                if contents:
                    await self._write(contents)
                    self._finish(contents)
            if not self._work.is_set():
                self._idle.set()

    async def drained(self, timeout_seconds: float) -> bool:
        """Flush at once what is gathered, and wait until it is durable. False: not in time."""
        self._wake()
        self._urgent.set()
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._idle.wait()
            return True
        except TimeoutError:
            return False

    async def durable(self) -> None:
        """Wait until everything that has been handed in by now is durable."""
        if not self._open:
            if self._frozen is None:
                return
            number = self._number
        else:
            number = self._number + 1
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._awaited.append((number, done))
        self._wake()
        await done

    def _freeze(self) -> Gathering:
        contents, self._open = self._open, Gathering()
        for claim, offset, endpoint_id in contents.settled:
            window = self.windows.get(claim)
            if window is not None:
                window.settle(offset, endpoint_id)
        contents.progress = [
            window.snapshot()
            for window in self.windows.values()
            if window.dirty and window.claim.hold is not Hold.FENCED
        ]
        if contents:
            self._number += 1
            contents.number = self._number
            self._frozen = contents
        return contents

    async def _write(self, contents: Gathering) -> None:
        """Until it is known to have committed: reconnect, ask, repeat."""
        failures = 0
        while True:
            started = self._clock()
            try:
                connection = await self._connected()
                async with bounded(connection, self._flush_seconds):
                    await self._write_once(connection, contents)
                break
            except Exception as error:
                if not isinstance(error, StoreUnavailable) and not is_transient(error):
                    raise
                self._doubtful = True
                self._drop_connection()
                self._metrics.flush_failures += 1
                self._say_why(error)
                pause = _BACKOFF_SECONDS[min(failures, len(_BACKOFF_SECONDS) - 1)]
                failures += 1
                await asyncio.sleep(pause)
        self._doubtful = False
        if not self.healthy:
            self.healthy, self.trouble = True, ""
            logger.warning("postgres_available_again", unrecorded=self.rows)
        self._metrics.flushed(len(contents.attempts), self._clock() - started)

    def _say_why(self, error: Exception) -> None:
        """Once for each kind of trouble: a disk that is full is another one than a lost server."""
        why = describe(error)
        kind = why.rpartition("(")[2] if why.endswith(")") else type(error).__name__
        if self.healthy or kind != self._trouble_kind:
            logger.error("postgres_unavailable", error=why, unrecorded=self.rows)
        self.healthy, self.trouble, self._trouble_kind = False, why, kind

    async def _write_once(self, connection: Connection, contents: Gathering) -> None:
        if self._doubtful and await flush.already_committed(
            connection, self._incarnation, contents.number
        ):
            return
        refused = await flush.write(
            connection, self._incarnation, contents, self._clock(), self._catalogue.ids
        )
        if refused:
            self._metrics.rows_refused += refused
            logger.error("rows_refused_by_postgres", rows=refused, flush=contents.number)

    def _finish(self, contents: Gathering) -> None:
        self._frozen = None
        for progress in contents.progress:
            window = self.windows.get(progress.claim)
            if window is not None and progress.claim not in contents.fenced:
                window.durable_watermark = progress.watermark
        self.rows -= contents.rows
        self.bytes -= contents.bytes
        self.on_committed(contents)
        for number, done in self._awaited:
            if number <= contents.number and not done.done():
                done.set_result(None)
        self._awaited = [waiting for waiting in self._awaited if not waiting[1].done()]
        self.on_room()

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._database.dedicated()
        return self._connection

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def close(self) -> None:
        """Close the connection; what is not durable by now stays owed by Kafka."""
        self._drop_connection()
