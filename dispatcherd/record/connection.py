"""Connections to Postgres: opened with bounds, translated errors, nothing that waits for ever.

Invariant: every wait on the server has a bound, on our side and on the server's, so that neither a
frozen server nor a frozen client can hold a lock or a task for ever. Leaves out: what is said over
a connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from dispatcherd.config.model import PostgresConfig
from dispatcherd.errors import StoreUnavailable

Connection = Any
"""An asyncpg connection; asyncpg ships no types that mypy could use here."""

TRANSIENT = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.TransactionRollbackError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.LockNotAvailableError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InternalClientError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.ObjectInUseError,
)
"""What may pass by itself: waited for, with the reason named; not a fault of what we sent."""


def is_transient(error: BaseException) -> bool:
    """Whether trying again may help. asyncpg says `InterfaceError` both for a connection that is
    closed and for an argument it cannot encode; only the first is transient."""
    if isinstance(error, TRANSIENT):
        return True
    return isinstance(error, asyncpg.InterfaceError) and not isinstance(error, ValueError)


def describe(error: BaseException) -> str:
    """The error in one line, with Postgres's own code where it has one."""
    state = getattr(error, "sqlstate", None)
    text = " ".join(str(error).split())[:300] or type(error).__name__
    return f"{text} ({state})" if state else f"{type(error).__name__}: {text}"


class Database:
    """A small pool for everything but the flush, and dedicated connections for what needs one."""

    def __init__(self, config: PostgresConfig, password: str | None = None) -> None:
        self._config = config
        self._password = password
        self._pool: Any = None

    def _options(self, dsn: str) -> dict[str, Any]:
        config = self._config
        milliseconds = int(config.statement_timeout_seconds * 1000)
        options: dict[str, Any] = {
            "dsn": dsn,
            "timeout": config.connect_timeout_seconds,
            "command_timeout": config.statement_timeout_seconds + 2,
            "statement_cache_size": config.statement_cache_size,
            "server_settings": {
                "application_name": "dispatcherd",
                "search_path": config.schema_name,
                "synchronous_commit": "on",
                "statement_timeout": str(milliseconds),
                "lock_timeout": str(int(config.lock_timeout_seconds * 1000)),
                # A client that freezes inside a transaction holds row locks that fence nobody.
                "idle_in_transaction_session_timeout": str(milliseconds),
                "tcp_keepalives_idle": "10",
                "tcp_keepalives_interval": "5",
                "tcp_keepalives_count": "3",
                "tcp_user_timeout": str(milliseconds),
                "timezone": "UTC",
            },
        }
        if self._password is not None:
            options["password"] = self._password
        return options

    async def open(self) -> None:
        """Open the pool; raises StoreUnavailable with the reason when the server is not there."""
        try:
            self._pool = await asyncpg.create_pool(
                **self._options(self._config.dsn),
                min_size=1,
                max_size=max(1, self._config.pool_size - 1),
                max_inactive_connection_lifetime=60,
            )
        except Exception as error:
            raise _translated(error) from error

    async def close(self) -> None:
        """Close the pool within a bound; a server that does not answer is not waited for."""
        if self._pool is None:
            return
        try:
            await asyncio.wait_for(self._pool.close(), 2)
        except (TimeoutError, *TRANSIENT):
            self._pool.terminate()

    async def dedicated(self, listen: bool = False) -> Connection:
        """A connection of its own; the caller closes or terminates it."""
        dsn = self._config.listen_dsn if listen and self._config.listen_dsn else self._config.dsn
        try:
            return await asyncpg.connect(**self._options(dsn))
        except Exception as error:
            raise _translated(error) from error

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Connection]:
        """A pooled connection; what is transient comes out as StoreUnavailable."""
        if self._pool is None:
            await self.open()
        try:
            connection = await self._pool.acquire(timeout=self._config.connect_timeout_seconds)
        except Exception as error:
            raise _translated(error) from error
        try:
            yield connection
        except Exception as error:
            if is_transient(error):
                connection.terminate()
            raise _translated(error) from error
        finally:
            await self._release(connection)

    async def _release(self, connection: Connection) -> None:
        try:
            await self._pool.release(connection, timeout=5)
        except Exception as error:
            if not is_transient(error):
                raise
            connection.terminate()


def _translated(error: Exception) -> Exception:
    if is_transient(error):
        return StoreUnavailable(f"Postgres: {describe(error)}")
    return error
