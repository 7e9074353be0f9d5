"""Accepted now, worked on later: a bounded queue in an SQLite file.

`put` returns after the commit has reached the disk (`synchronous=FULL`): what is answered with 2xx
then survives a crash of the process and of the machine. Several processes may share the file. Its
keys stay for a while after the work is done, so that a repeat of an event is recognised.

Invariant: an event that was put is waiting, taken under a lease, done, or dead, and never less;
places and bytes are bounded, and dead ones hold their place until someone revives or discards
them, so that giving up is never silent. Leaves out: running handlers (workers, tasks).
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dispatcherd.receiver.errors import ReceiverError
from dispatcherd.receiver.event import Event, restore
from dispatcherd.receiver.store import DEFAULT_RETENTION_SECONDS, new_token

_WAITING, _TAKEN, _DONE, _DEAD = 0, 1, 2, 3
_PURGED_AT_ONCE = 500
_MAX_ERROR_CHARACTERS = 500

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  state INTEGER NOT NULL DEFAULT 0,
  due REAL NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  token TEXT NOT NULL DEFAULT '',
  received_at REAL NOT NULL,
  error TEXT NOT NULL DEFAULT '',
  type TEXT NOT NULL,
  version TEXT NOT NULL,
  timestamp TEXT NOT NULL,
  sender_attempt INTEGER NOT NULL,
  body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS jobs_open ON jobs (due) WHERE state < 2;
CREATE INDEX IF NOT EXISTS jobs_done ON jobs (due) WHERE state = 2;
CREATE INDEX IF NOT EXISTS jobs_dead ON jobs (seq) WHERE state = 3;
CREATE TABLE IF NOT EXISTS held (items INTEGER NOT NULL, bytes INTEGER NOT NULL, dead INTEGER
  NOT NULL);
INSERT INTO held SELECT 0, 0, 0 WHERE NOT EXISTS (SELECT 1 FROM held);
"""
_JOB = "id, token, attempts, received_at, error, type, version, timestamp, sender_attempt, body"


class BacklogFull(ReceiverError):
    """No room: the sender shall come back later."""

    cause = "backlog_full"


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """An event under work, or dead."""

    event: Event
    token: str
    attempts: int
    """How often work on it was begun, this time included."""
    received_at: float
    error: str


@dataclass(frozen=True, slots=True)
class Depth:
    """How full it is."""

    items: int
    """Waiting, taken and dead."""
    dead: int
    lag_seconds: float
    """How long the first job has been ready and not taken; 0 if none is."""


class Backlog:
    """The queue; see the module. Any thread may call. Times are Unix seconds."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_items: int = 100_000,
        max_bytes: int = 1 << 30,
        retention_seconds: float = DEFAULT_RETENTION_SECONDS,
        max_done_ids: int = 1_000_000,
        now: Callable[[], float] = time.time,
    ) -> None:
        if sqlite3.sqlite_version_info < (3, 35):
            raise ReceiverError(f"SQLite {sqlite3.sqlite_version} is too old; 3.35 is needed")
        self.max_items = max_items
        self._max_bytes = max_bytes
        self._retention = retention_seconds
        self._max_done = max_done_ids
        self._path = Path(path)
        self._now = now
        self._lock = threading.RLock()
        self._connections: dict[str, sqlite3.Connection] = {}
        self._inherited: list[dict[str, sqlite3.Connection]] = []
        self._pid = os.getpid()
        self._since_purge = 0
        self.on_put: Callable[[], None] = lambda: None
        """Called after each put, from its thread: workers of this process need not poll."""
        self.depth()

    # --- taking in ---------------------------------------------------------------------------

    def put(self, events: Sequence[Event]) -> list[bool]:
        """Durably take all of them or none; per event False if its id is here already.

        An id whose job is dead is taken anew. Raises BacklogFull, or sqlite3.Error (disk full …):
        then nothing was taken.
        """
        now = self._now()
        with self._transaction("FULL") as db:
            added = [self._add(db, event, now) for event in events]
            items, held_bytes = db.execute("SELECT items, bytes FROM held").fetchone()
            if any(added) and (items > self.max_items or held_bytes > self._max_bytes):
                raise BacklogFull(
                    f"the backlog holds {items - sum(added)} of {self.max_items} events and"
                    f" {held_bytes} of {self._max_bytes} bytes would be exceeded"
                )
            self._since_purge += len(events)
            if self._since_purge >= _PURGED_AT_ONCE // 2:
                self._since_purge = 0
                self._purge(db, now)
        self.on_put()
        return added

    def _add(self, db: sqlite3.Connection, event: Event, now: float) -> bool:
        row = db.execute("SELECT state, due FROM jobs WHERE id = ?", (event.id,)).fetchone()
        if row is not None:
            state, due = row
            if state < _DONE or (state == _DONE and due > now):
                return False
            self._delete(db, event.id)
        db.execute(
            "INSERT INTO jobs (id, due, received_at, type, version, timestamp, sender_attempt,"
            " body) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (event.id, now, now, event.type, event.version, event.timestamp, event.attempt,
             event.body),
        )  # fmt: skip
        self._hold(db, 1, len(event.body), 0)
        return True

    # --- working off -------------------------------------------------------------------------

    def take(self, lease_seconds: float) -> Job | None:
        """The job that has been ready longest, for `lease_seconds`; None if none is ready.

        A job whose lease ran out (its worker died) is ready again.
        """
        now, token = self._now(), new_token()
        with self._transaction("NORMAL") as db:
            row = db.execute(
                f"UPDATE jobs SET state = {_TAKEN}, token = ?, due = ?, attempts = attempts + 1"
                " WHERE seq = (SELECT seq FROM jobs WHERE state < 2 AND due <= ?"
                f" ORDER BY due LIMIT 1) RETURNING {_JOB}",
                (token, now + lease_seconds, now),
            ).fetchone()
        return None if row is None else _job(row)

    def done(self, job: Job) -> bool:
        """The work is done: the body goes, the id stays. False if the lease was lost."""
        until = self._now() + self._retention
        return self._move(job, f"state = {_DONE}, body = x'', error = ''", until, (-1, -1, 0))

    def retry(self, job: Job, delay_seconds: float, error: str) -> bool:
        """Ready again after `delay_seconds`. False if the lease was lost."""
        due = self._now() + delay_seconds
        return self._move(job, f"state = {_WAITING}, error = ?", due, (0, 0, 0), error)

    def give_back(self, job: Job) -> bool:
        """Not begun after all: ready at once, and the attempt does not count."""
        change = f"state = {_WAITING}, attempts = attempts - 1"
        return self._move(job, change, job.received_at, (0, 0, 0))

    def bury(self, job: Job, error: str) -> bool:
        """Given up: kept as dead, in its place. False if the lease was lost."""
        return self._move(job, f"state = {_DEAD}, error = ?", self._now(), (0, 0, 1), error)

    def _move(
        self,
        job: Job,
        change: str,
        due: float,
        held: tuple[int, int, int],
        error: str | None = None,
    ) -> bool:
        """`held` is (items, sign of the body's bytes, dead)."""
        texts = () if error is None else (error[:_MAX_ERROR_CHARACTERS],)
        with self._transaction("NORMAL") as db:
            moved = db.execute(
                f"UPDATE jobs SET {change}, due = ?, token = '' WHERE id = ? AND token = ?",
                (*texts, due, job.event.id, job.token),
            ).rowcount
            if moved:
                self._hold(db, held[0], held[1] * len(job.event.body), held[2])
        return bool(moved)

    # --- looking, and the dead ---------------------------------------------------------------

    def depth(self) -> Depth:
        """How full it is now."""
        now = self._now()
        with self._lock:
            db = self._connection("NORMAL")
            items, dead = db.execute("SELECT items, dead FROM held").fetchone()
            first = db.execute(
                "SELECT due FROM jobs WHERE state < 2 AND due <= ? ORDER BY due LIMIT 1", (now,)
            ).fetchone()
        return Depth(items, dead, 0.0 if first is None else now - first[0])

    def next_due(self) -> float | None:
        """When the next job becomes ready, in seconds from now (0 if one is); None without any."""
        with self._lock:
            row = self._connection("NORMAL").execute(
                "SELECT due FROM jobs WHERE state < 2 ORDER BY due LIMIT 1"
            ).fetchone()  # fmt: skip
        return None if row is None else max(0.0, float(row[0]) - self._now())

    def dead(self, limit: int = 100) -> list[Job]:
        """The jobs given up, the oldest first."""
        with self._lock:
            rows = self._connection("NORMAL").execute(
                f"SELECT {_JOB} FROM jobs WHERE state = {_DEAD} ORDER BY seq LIMIT ?", (limit,)
            ).fetchall()  # fmt: skip
        return [_job(row) for row in rows]

    def revive(self, event_id: str) -> bool:
        """Work on a dead one again, counting attempts from 0. False if it is not dead."""
        with self._transaction("FULL") as db:
            moved = db.execute(
                f"UPDATE jobs SET state = {_WAITING}, attempts = 0, due = ?"
                f" WHERE id = ? AND state = {_DEAD}",
                (self._now(), event_id),
            ).rowcount
            if moved:
                self._hold(db, 0, 0, -1)
        self.on_put()
        return bool(moved)

    def discard(self, event_id: str) -> bool:
        """Drop a dead one. False if it is not dead."""
        with self._transaction("FULL") as db:
            row = db.execute("SELECT state FROM jobs WHERE id = ?", (event_id,)).fetchone()
            if row is None or row[0] != _DEAD:
                return False
            self._delete(db, event_id)
        return True

    def close(self) -> None:
        """Close the file; what waits stays in it."""
        with self._lock:
            for db in self._connections.values():
                db.close()
            self._connections.clear()

    # --- the file ----------------------------------------------------------------------------

    def _delete(self, db: sqlite3.Connection, event_id: str) -> None:
        state, size = db.execute(
            "DELETE FROM jobs WHERE id = ? RETURNING state, length(body)", (event_id,)
        ).fetchone()
        if state == _DEAD:
            self._hold(db, -1, -size, -1)

    @staticmethod
    def _hold(db: sqlite3.Connection, items: int, size: int, dead: int) -> None:
        db.execute("UPDATE held SET items = items + ?, bytes = bytes + ?, dead = dead + ?",
                   (items, size, dead))  # fmt: skip

    def _purge(self, db: sqlite3.Connection, now: float) -> None:
        done = f"SELECT seq FROM jobs WHERE state = {_DONE}"
        db.execute(
            f"DELETE FROM jobs WHERE seq IN ({done} AND due <= ? ORDER BY due LIMIT ?)",
            (now, _PURGED_AT_ONCE),
        )
        db.execute(
            f"DELETE FROM jobs WHERE seq IN ({done} ORDER BY due DESC LIMIT ? OFFSET ?)",
            (_PURGED_AT_ONCE, self._max_done),
        )

    @contextmanager
    def _transaction(self, synchronous: str) -> Iterator[sqlite3.Connection]:
        with self._lock:
            db = self._connection(synchronous)
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def _connection(self, synchronous: str) -> sqlite3.Connection:
        """Two: commits that must reach the disk at once, and those whose loss costs a repeat."""
        if self._pid != os.getpid():  # forked: SQLite forbids using the parent's connections,
            self._inherited.append(self._connections)  # and closing them would drop its locks
            self._pid, self._connections = os.getpid(), {}
        db = self._connections.get(synchronous)
        if db is None:
            db = sqlite3.connect(
                self._path, timeout=10, isolation_level=None, check_same_thread=False
            )
            db.execute("PRAGMA journal_mode = WAL")
            db.execute(f"PRAGMA synchronous = {synchronous}")
            if not self._connections:
                db.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}COMMIT;")
            self._connections[synchronous] = db
        return db


def _job(row: Sequence[Any]) -> Job:
    id_, token, attempts, received_at, error, type_, version, timestamp, sender_attempt, body = row
    event = restore(id_, type_, version, timestamp, sender_attempt, bytes(body))
    return Job(event, token, attempts, received_at, error)
