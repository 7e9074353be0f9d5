"""An end for what asyncpg itself does not end.

Invariant: a block takes its time and no more, whatever the server does. Leaves out: statements,
which asyncpg bounds by the connection's `command_timeout`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dispatcherd.record.connection import Connection

_GRACE_SECONDS = 0.2


@asynccontextmanager
async def bounded(connection: Connection, seconds: float) -> AsyncIterator[None]:
    """End the block when its time is up, or its connection is lost, with TimeoutError.

    For COPY: while the socket takes nothing more, asyncpg waits for neither (its
    `writing_allowed`), and a server that is frozen or gone would hold the task for ever.
    """
    loop = asyncio.get_running_loop()
    # Ended first: else the rollback would wait for the same silent server.
    clock = loop.call_later(seconds, connection.terminate)
    over = False
    scope = asyncio.timeout(None)

    def lost(_connection: Connection) -> None:
        if not over and not scope.expired():
            # Whatever else notices the loss shall have time to say it in better words.
            scope.reschedule(loop.time() + _GRACE_SECONDS)

    connection.add_termination_listener(lost)
    try:
        async with scope:
            try:
                yield
            finally:
                over = True
    except TimeoutError as error:
        if not scope.expired():
            raise
        raise TimeoutError("Postgres fell silent, or was lost, in the middle of it") from error
    finally:
        clock.cancel()
        connection.remove_termination_listener(lost)
