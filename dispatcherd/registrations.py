"""The endpoints of this process's file and of the table, taken over into lanes as they change.

Invariant: what waits in a lane survives a change of its endpoint; the table is read again only when
its version has changed, so that a hundred thousand registrations cost nothing while they rest.
Leaves out: the rules between file and table (record.registry).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from dispatcherd import log
from dispatcherd.config.model import EndpointConfig
from dispatcherd.config.secrets import Access
from dispatcherd.endpoints import Endpoints
from dispatcherd.errors import StoreUnavailable
from dispatcherd.keys import SigningKey
from dispatcherd.record import registry
from dispatcherd.record.connection import Database
from dispatcherd.retry import Retries
from dispatcherd.send import Sender

logger = log.get(__name__)


class Registrations:
    """Keeps `endpoints` at what file and table say."""

    def __init__(
        self,
        database: Database,
        endpoints: Endpoints,
        sender: Sender,
        retries: Retries,
        configs: Sequence[EndpointConfig],
        keys: Mapping[str, Sequence[SigningKey]],
        access: Mapping[str, Access],
    ) -> None:
        self._database = database
        self._endpoints = endpoints
        self._sender = sender
        self._retries = retries
        self._configs = configs
        self._keys = keys
        self._access = access
        self._version: tuple[object, ...] = ()
        self._changed = asyncio.Event()

    def look_again(self) -> None:
        """Another process or a command may have changed the table."""
        self._changed.set()

    async def run(self) -> None:
        """Follow the table, for ever."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                if await registry.version(self._database) != self._version:
                    await self.apply(write=False)
            except StoreUnavailable as error:
                logger.debug("registrations_not_read", error=str(error))

    async def take_over(
        self,
        configs: Sequence[EndpointConfig],
        keys: Mapping[str, Sequence[SigningKey]],
        access: Mapping[str, Access],
    ) -> None:
        """A new file. Raises StoreUnavailable; then the old one stays in force."""
        before = self._configs, self._keys, self._access
        self._configs, self._keys, self._access = configs, keys, access
        try:
            await self.apply(write=True)
        except StoreUnavailable:
            self._configs, self._keys, self._access = before
            raise

    async def apply(self, write: bool) -> None:
        """Read the table (first written to from the file, if `write`), and take it over."""
        version = await registry.version(self._database)
        if write:
            found, changed = await registry.reconcile(self._database, self._configs)
            if changed:
                logger.info("endpoints_registered", endpoints=changed)
        else:
            found = await registry.read(self._database, self._configs)
        self._version = version
        gone = self._endpoints.apply(found, self._keys, self._access)
        if gone:
            logger.warning("endpoints_removed", endpoints=[lane.endpoint.name for lane in gone])
            self._retries.removed(gone)
            for lane in gone:
                self._sender.forget(lane)
        for lane in self._endpoints.lanes.values():
            self._sender.poke(lane)
