"""Ids in a table, through any DB-API 2.0 driver: SQLite 3.24 or newer, PostgreSQL 9.5 or newer.

One rule carries it: a row may be taken when `expires_at` has passed, be it a lease or a completed
id. A claim is one `INSERT … ON CONFLICT … WHERE expires_at <= now`, which the database decides
alone, and then a look at whose token stands there.

Invariant: each operation may be repeated after a lost connection without changing its result.
Times are the application's wall clock in Unix seconds: where several hosts share a table, a lease
must be much longer than their clocks differ. Leaves out: pooling beyond a few idle connections.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from dispatcherd.receiver.store import (
    DEFAULT_RETENTION_SECONDS,
    Claim,
    LeaseLost,
    State,
    new_token,
)

_MAX_IDLE = 4
_PURGED_AT_ONCE = 1_000
_PURGE_EVERY_SECONDS = 60.0
_is_name = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}(\.[A-Za-z_][A-Za-z0-9_]{0,62})?").fullmatch

_STATEMENTS = {
    "create": "CREATE TABLE IF NOT EXISTS {t} (id VARCHAR(600) PRIMARY KEY, token VARCHAR(32)"
    " NOT NULL, done INTEGER NOT NULL, expires_at DOUBLE PRECISION NOT NULL)",
    "index": "CREATE INDEX IF NOT EXISTS {i}_expires_at ON {t} (expires_at)",
    "claim": "INSERT INTO {t} (id, token, done, expires_at) VALUES (?, ?, 0, ?)"
    " ON CONFLICT (id) DO UPDATE SET token = excluded.token, done = 0,"
    " expires_at = excluded.expires_at WHERE {t}.expires_at <= ?",
    "look": "SELECT token, done, expires_at FROM {t} WHERE id = ?",
    "complete": "UPDATE {t} SET done = 1, expires_at = ? WHERE id = ? AND token = ?",
    "release": "DELETE FROM {t} WHERE id = ? AND token = ? AND done = 0",
    "purge": "DELETE FROM {t} WHERE id IN"
    " (SELECT id FROM {t} WHERE expires_at <= ? LIMIT " + str(_PURGED_AT_ONCE) + ")",
}


class Cursor(Protocol):
    """Of DB-API 2.0 (PEP 249), what is used here."""

    @property
    def rowcount(self) -> int: ...
    def execute(self, sql: Any, parameters: Sequence[Any] = ..., /) -> Any: ...
    def fetchone(self) -> Any: ...
    def close(self) -> Any: ...


class Connection(Protocol):
    """Of DB-API 2.0 (PEP 249), what is used here."""

    def cursor(self) -> Any: ...
    def commit(self) -> Any: ...
    def rollback(self) -> Any: ...
    def close(self) -> Any: ...


class SqlStore:
    """A Store in a table; see the module.

    `connect` makes a connection that any thread may use, one at a time (`check_same_thread=False`
    for sqlite3). `paramstyle` is the driver's: `qmark` (sqlite3) or `format` (psycopg).
    """

    def __init__(
        self,
        connect: Callable[[], Connection],
        *,
        paramstyle: str = "qmark",
        table: str = "webhook_ids",
        retention_seconds: float = DEFAULT_RETENTION_SECONDS,
        now: Callable[[], float] = time.time,
    ) -> None:
        if paramstyle not in ("qmark", "format"):
            raise ValueError(f"paramstyle is {paramstyle!r}; it is 'qmark' or 'format'")
        if not _is_name(table):
            raise ValueError(f"{table!r} is no table name")
        mark = "?" if paramstyle == "qmark" else "%s"
        names = {"t": table, "i": table.replace(".", "_")}
        self._sql = {k: v.format(**names).replace("?", mark) for k, v in _STATEMENTS.items()}
        self._connect = connect
        self._retention = retention_seconds
        self._now = now
        self._idle: list[Connection] = []
        self._inherited: list[Connection] = []
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._next_purge = 0.0

    def create_table(self) -> None:
        """Make the table and its index where they are missing."""
        self._run(lambda cursor: [cursor.execute(self._sql[n]) for n in ("create", "index")])

    def claim(self, key: str, lease_seconds: float) -> Claim:
        """See Store. Raises the driver's errors."""
        token = new_token()
        now = self._now()
        self._purge_when_due(now)

        def ask(cursor: Cursor) -> Any:
            cursor.execute(self._sql["claim"], (key, token, now + lease_seconds, now))
            cursor.execute(self._sql["look"], (key,))
            return cursor.fetchone()

        row = self._run(ask)
        if row is None:  # released between the two statements
            return Claim(key, State.BUSY, retry_after_seconds=1.0)
        holder, done, expires_at = row
        if holder == token:
            return Claim(key, State.GRANTED, token)
        if done:
            return Claim(key, State.DONE)
        return Claim(key, State.BUSY, retry_after_seconds=max(0.0, expires_at - now))

    def complete(self, claim: Claim) -> bool:
        """See Store. A lease that ran out and that nobody took still completes."""
        return bool(self._run(lambda cursor: self._complete(cursor, claim)))

    def complete_with(self, connection: Connection, claim: Claim) -> None:
        """Complete inside your own transaction, so that the work and its completion are one.

        Commits nothing. Raises LeaseLost if someone else has the claim: roll back. Call it with
        `event.claim` in a handler; this is as near to exactly once as a database gets.
        """
        cursor = connection.cursor()
        try:
            if not self._complete(cursor, claim):
                raise LeaseLost(f"the claim on {claim.key} ran out and was taken: roll back")
        finally:
            cursor.close()

    def release(self, claim: Claim) -> bool:
        """See Store."""

        def ask(cursor: Cursor) -> bool:
            cursor.execute(self._sql["release"], (claim.key, claim.token))
            return cursor.rowcount > 0

        return bool(self._run(ask))

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _complete(self, cursor: Cursor, claim: Claim) -> bool:
        until = self._now() + self._retention
        cursor.execute(self._sql["complete"], (until, claim.key, claim.token))
        return cursor.rowcount > 0

    def _purge_when_due(self, now: float) -> None:
        with self._lock:
            if now < self._next_purge:
                return
            self._next_purge = now + _PURGE_EVERY_SECONDS

        def purge(cursor: Cursor) -> int:
            cursor.execute(self._sql["purge"], (now,))
            return cursor.rowcount

        if self._run(purge) >= _PURGED_AT_ONCE:
            with self._lock:
                self._next_purge = now

    def _run(self, ask: Callable[[Any], Any]) -> Any:
        """In a transaction; once more on a fresh connection if a kept one turns out to be dead."""
        with self._lock:
            if self._pid != os.getpid():  # forked: the parent's connections are not ours to
                self._inherited.extend(self._idle)  # use, nor to close
                self._pid, self._idle = os.getpid(), []
            kept = self._idle.pop() if self._idle else None
        if kept is not None:
            try:
                return self._once(kept, ask)
            except Exception:  # each driver has its own classes
                pass
        return self._once(self._connect(), ask)

    def _once(self, connection: Connection, ask: Callable[[Any], Any]) -> Any:
        try:
            cursor = connection.cursor()
            answer = ask(cursor)
            cursor.close()
            connection.commit()
        except BaseException:
            connection.close()
            raise
        with self._lock:
            if len(self._idle) < _MAX_IDLE:
                self._idle.append(connection)
                return answer
        connection.close()
        return answer
