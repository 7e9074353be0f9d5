"""Flushes, one transaction after another, each with a known fate.

Invariant: what was handed in to the buffer is written once, in order; while Postgres is away
nothing is lost. Leaves out: what is gathered (buffer), the SQL (flush), claims, and what a settled
watermark is good for (pipeline).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from dispatcherd import log
from dispatcherd.config.model import PostgresConfig
from dispatcherd.errors import StoreUnavailable
from dispatcherd.metrics import Metrics
from dispatcherd.record import flush
from dispatcherd.record.bounds import bounded
from dispatcherd.record.buffer import Buffer
from dispatcherd.record.catalogue import Catalogue
from dispatcherd.record.connection import Connection, Database, describe, is_transient
from dispatcherd.record.gathering import Gathering
from dispatcherd.timers import set_within

logger = log.get(__name__)

_BACKOFF_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)


class Recorder:
    """Writes what the buffer gathers; the only writer of attempts, progress and deliveries."""

    def __init__(
        self,
        buffer: Buffer,
        database: Database,
        catalogue: Catalogue,
        incarnation: int,
        postgres: PostgresConfig,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.buffer = buffer
        self._database = database
        self._catalogue = catalogue
        self._incarnation = incarnation
        self._interval = postgres.flush_interval_seconds
        # Each statement has its own bound; this one is for what asyncpg itself does not bound.
        self._flush_seconds = 3 * postgres.statement_timeout_seconds
        self._metrics = metrics
        self._clock = clock
        self.on_committed: Callable[[Gathering], None] = lambda contents: None
        self.on_room: Callable[[], None] = lambda: None
        self.turnstile = asyncio.Lock()
        """Held by a flush, and by whoever changes what is owed beside it: what it finds in Postgres
        and what is in memory must be of one moment."""
        self.pages = asyncio.Lock()
        """Held while a page of what is owed is read, and by who buries rows that are not in memory:
        a page must not bring one back. A flush need not wait for a page, nor a page for a flush
        (see `owed.page`)."""
        self.healthy = True
        self.trouble = ""
        """Why the last flush was not written, in Postgres's own words; "" while all is well."""
        self._trouble_kind = ""
        self._work = asyncio.Event()
        self._urgent = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._connection: Connection | None = None
        self._doubtful = False
        self._awaited: list[tuple[int, asyncio.Future[None]]] = []
        buffer.on_work = self._has_work
        buffer.on_many = self._urgent.set

    def _has_work(self) -> None:
        self._idle.clear()
        self._work.set()

    async def run(self) -> None:
        """Flush for ever. Ends only by cancellation, or by an error that nobody foresaw."""
        while True:
            await self._work.wait()
            if not self._urgent.is_set():
                await set_within(self._urgent, self._interval)
            self._work.clear()
            self._urgent.clear()
            self.buffer.awake = False
            async with self.turnstile:
                contents = self.buffer.freeze()
                if contents is not None:
                    await self._write(contents)
                    self._finish(contents)
            if not self._work.is_set():
                self._idle.set()

    async def drained(self, timeout_seconds: float) -> bool:
        """Flush at once what is gathered, and wait until it is durable. False: not in time."""
        self.buffer.touch()
        self._urgent.set()
        return await set_within(self._idle, timeout_seconds)

    async def durable(self) -> None:
        """Wait until everything that has been handed in by now is durable."""
        buffer = self.buffer
        if not buffer.empty:
            number = buffer.number + 1
        elif buffer.under_way:
            number = buffer.number
        else:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._awaited.append((number, done))
        buffer.touch()
        await done

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
            logger.warning("postgres_available_again", unrecorded=self.buffer.rows)
        self._metrics.flushed(len(contents.attempts), self._clock() - started)

    def _say_why(self, error: Exception) -> None:
        """Once for each kind of trouble: a disk that is full is another one than a lost server."""
        why = describe(error)
        kind = why.rpartition("(")[2] if why.endswith(")") else type(error).__name__
        if self.healthy or kind != self._trouble_kind:
            logger.error("postgres_unavailable", error=why, unrecorded=self.buffer.rows)
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
        self.buffer.written(contents)
        self.on_committed(contents)
        for number, done in self._awaited:
            if number <= contents.number and not done.done():
                done.set_result(None)
        self._awaited = [waiting for waiting in self._awaited if not waiting[1].done()]
        self.on_room()

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._database.dedicated()
            await flush.prepare(self._connection)
        return self._connection

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def close(self) -> None:
        """Close the connection; what is not durable by now stays owed by Kafka."""
        self._drop_connection()
