"""The part of the fast exchange that waits: for the connector, and for what it has begun.

Apart from `fast`, because compiled modules hold no coroutines (setup.py). Leaves out: what becomes
of a connection once it is there (fast).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

import aiohttp

from dispatcherd.exchange.seam import Target

_NO_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None)
_LOST_BEFORE = (aiohttp.ClientError, OSError, ValueError, UnicodeError)


class Waiter(Protocol):
    """A request that waits for its connection."""

    def make_room(self) -> None:
        """Called before a connection is asked for."""

    def connected(self, held: aiohttp.connector.Connection) -> None:
        """Called with it. Raises what `connector.connect` does when it is lost already."""

    def not_connected(self, error: Exception) -> None:
        """Called instead: no byte of the request has left."""

    def interrupted(self) -> None:
        """Called instead: the task was cancelled."""

    def fault(self, error: BaseException) -> None:
        """Called with what nobody foresaw; it is raised too."""


async def connect(connector: aiohttp.TCPConnector, target: Target, waiter: Waiter) -> None:
    """Ask the connector for a connection, and tell the waiter what came of it."""
    try:
        waiter.make_room()
        request = aiohttp.ClientRequest(
            "POST", target.url, loop=asyncio.get_running_loop(), ssl=target.tls or True
        )
        waiter.connected(await connector.connect(request, [], _NO_TIMEOUT))
    except asyncio.CancelledError:
        waiter.interrupted()
        raise
    except _LOST_BEFORE as error:
        waiter.not_connected(error)
    except BaseException as error:
        waiter.fault(error)
        raise


async def closed(
    connector: aiohttp.TCPConnector, tasks: Iterable[asyncio.Task[None]], held: Iterable[Held]
) -> None:
    """When these tasks have ended: drop what is held, and close the connector."""
    await asyncio.gather(*tasks, return_exceptions=True)
    for connection in list(held):
        connection.drop()
    await connector.close()


class Held(Protocol):
    """A connection that is to be dropped."""

    def drop(self) -> None:
        """Close at once."""
