"""How much may be owed: who came to a cap is said, and where that is the policy, room is made.

Invariant: what a flush changed counts at once; what other processes changed, at the next look.
Leaves out: the arithmetic (quota), and what is done with new deliveries at a cap (intake).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dispatcherd import log
from dispatcherd.claim import Ownership
from dispatcherd.config.model import LimitsConfig
from dispatcherd.endpoints import Endpoints
from dispatcherd.errors import StoreUnavailable
from dispatcherd.quota import Quota
from dispatcherd.record import backlog, owed
from dispatcherd.record.connection import Database
from dispatcherd.record.gathering import Gathering
from dispatcherd.record.recorder import Recorder

logger = log.get(__name__)

_TRIM_AT_ONCE = 2_000


class OwedCaps:
    """Holds the quota to what Postgres has."""

    def __init__(
        self,
        database: Database,
        endpoints: Endpoints,
        ownership: Ownership,
        recorder: Recorder,
        quota: Quota,
        limits: LimitsConfig,
        poll_seconds: float,
    ) -> None:
        self._database = database
        self._endpoints = endpoints
        self._ownership = ownership
        self._recorder = recorder
        self._quota = quota
        self._limits = limits
        self._poll_seconds = poll_seconds

    async def run(self) -> None:
        """Look at the exact counts regularly, say who came to a cap and who left it, and make room
        where the policy is to dead-letter the oldest; for ever."""
        while True:
            try:
                full, free = self._quota.look(await backlog.owed_by_endpoint(self._database))
                self._recorder.buffer.holding.end(free)
                for number in full:
                    self._say(logger.error, "owed_cap_reached", number)
                for number in free:
                    self._say(logger.info, "owed_cap_left", number)
                if self._limits.at_owed_cap == "dead_letter_oldest":
                    await self._trim()
            except StoreUnavailable as error:
                logger.debug("quota_not_read", error=str(error))
            await asyncio.sleep(self._poll_seconds)

    def count(self, contents: Gathering) -> None:
        """A flush is durable: what it changed counts at once, not only at the next look."""
        for (_, _, number), (owed_more, _) in backlog.changes(contents.operations.values()).items():
            if self._quota.add(number, owed_more):
                self._say(logger.error, "owed_cap_reached", number)

    def _say(self, line: Callable[..., None], event: str, number: int) -> None:
        lane = self._endpoints.lane(number)
        line(
            event,
            endpoint=lane.endpoint.name if lane is not None else number,
            owed=self._quota.owed.get(number, 0),
            owed_total=self._quota.total,
            action=self._limits.at_owed_cap,
        )

    async def _trim(self) -> None:
        for number in list(self._quota.full):
            lane = self._endpoints.lane(number)
            if lane is None:
                continue
            while (excess := self._quota.excess(number)) > 0:
                async with self._recorder.pages, self._recorder.turnstile:
                    keep = [delivery.key for delivery in lane.owed.values()]
                    count = await owed.bury_oldest(
                        self._database,
                        [c for t in self._ownership.working() for c in t.claims],
                        number,
                        min(excess, _TRIM_AT_ONCE),
                        keep,
                    )
                self._quota.add(number, -count)
                if not count:
                    break
