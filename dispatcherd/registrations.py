"""The endpoints of this process's file and of the table, taken over into lanes as they change.

Invariant: what waits in a lane survives a change of its endpoint; of the table only that is read
which has changed, so that a hundred thousand registrations cost nothing while they rest.
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

_MOST_NAMED = 100
"""In one line of the log."""


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
        self._version = -1
        """Of the table, as it was last taken over."""
        self._reconciled = -1
        """The same, when the file was last written to it."""
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
                    await self._follow()
            except StoreUnavailable as error:
                logger.debug("registrations_not_read", error=str(error))

    async def take_over(
        self,
        configs: Sequence[EndpointConfig],
        keys: Mapping[str, Sequence[SigningKey]],
        access: Mapping[str, Access],
    ) -> None:
        """A new file. Raises StoreUnavailable; then the old one stays in force."""
        at_rest = configs is self._configs and self._reconciled == self._version
        before = self._configs, self._keys, self._access
        self._configs, self._keys, self._access = configs, keys, access
        try:
            if at_rest and await registry.version(self._database) == self._version:
                self._endpoints.apply((), (), keys, access)  # secrets may be new
            else:
                await self.apply()
        except StoreUnavailable:
            self._configs, self._keys, self._access = before
            raise

    async def apply(self) -> None:
        """Write the file's endpoints to the table, and take over all that it holds."""
        found, changed = await registry.reconcile(self._database, self._configs)
        if changed:
            logger.info("endpoints_registered", count=len(changed), endpoints=changed[:_MOST_NAMED])
        live = {registration.id for registration in found.live}
        gone = [number for number in self._endpoints.registered if number not in live]
        self._take_over(found, gone)
        self._reconciled = found.version

    async def _follow(self) -> None:
        """Take over what others have changed in the table."""
        found = await registry.read(self._database, self._configs, self._version)
        self._take_over(found, found.removed)

    def _take_over(self, found: registry.Registered, gone: Sequence[int]) -> None:
        self._version = found.version
        names = [
            self._endpoints.registered[n].name for n in gone if n in self._endpoints.registered
        ]
        lanes = self._endpoints.apply(found.live, gone, self._keys, self._access)
        if names:
            logger.warning("endpoints_removed", count=len(names), endpoints=names[:_MOST_NAMED])
            self._retries.removed(lanes)
            for lane in lanes:
                self._sender.forget(lane)
        for lane in self._endpoints.lanes.values():
            self._sender.poke(lane)
