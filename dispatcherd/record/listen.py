"""News from other processes and operators: LISTEN, with a slow poll behind it.

Invariant: a lost notification costs at most one poll interval. Leaves out: what is done about it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dispatcherd import log
from dispatcherd.errors import StoreUnavailable
from dispatcherd.record.connection import Connection, Database, is_transient
from dispatcherd.record.registry import CHANNEL

logger = log.get(__name__)


async def listen(
    database: Database, heard: Callable[[str], None], poll_interval_seconds: float
) -> None:
    """Call `heard` with `endpoints` or `requests`, and with `poll` every interval; for ever."""

    def on_notify(_connection: object, _pid: int, _channel: str, payload: object) -> None:
        heard(str(payload))

    connection: Connection | None = None
    try:
        while True:
            try:
                if connection is None or connection.is_closed():
                    connection = await database.dedicated(listen=True)
                    await connection.add_listener(CHANNEL, on_notify)
                await asyncio.sleep(poll_interval_seconds)
                await connection.fetchval("SELECT 1")  # a dead peer is not noticed otherwise
            except StoreUnavailable:
                await asyncio.sleep(poll_interval_seconds)
            except Exception as error:
                if not is_transient(error):
                    raise
                if connection is not None:
                    connection.terminate()
                    connection = None
            heard("poll")
    finally:
        if connection is not None:
            connection.terminate()
