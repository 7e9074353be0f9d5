"""What is owed in partitions that nobody subscribes to any more: alarmed, and adopted on request.

Invariant: an adopted partition is claimed by the same epochs as any other, so that it is worked on
by one process, and by the group again as soon as somebody subscribes. Leaves out: the SQL
(record.claims) and sending (retry, send).
"""

from __future__ import annotations

import asyncio

from dispatcherd import log
from dispatcherd.claim import Ownership
from dispatcherd.errors import StoreUnavailable
from dispatcherd.metrics import Metrics
from dispatcherd.record import claims
from dispatcherd.record.connection import Database
from dispatcherd.retry import Retries
from dispatcherd.timers import set_within

logger = log.get(__name__)

_EVERY_SECONDS = 60.0


class Adoption:
    """Looks for orphans."""

    def __init__(
        self, database: Database, ownership: Ownership, retries: Retries, metrics: Metrics
    ) -> None:
        self._database = database
        self._ownership = ownership
        self._retries = retries
        self._metrics = metrics
        self._asked = asyncio.Event()

    def look_again(self) -> None:
        """An operator has put something up."""
        self._asked.set()

    async def run(self) -> None:
        """Take what is put up, name what is not; for ever."""
        while True:
            try:
                if await self._ownership.adopt():
                    self._retries.look_again()
                async with self._database.session() as connection:
                    self._tell(await claims.orphans(connection))
            except StoreUnavailable as error:
                logger.debug("adoption_postponed", error=str(error))
            await set_within(self._asked, _EVERY_SECONDS)
            self._asked.clear()

    def _tell(self, orphans: list[claims.Orphan]) -> None:
        by_topic: dict[str, int] = {}
        for orphan in orphans:
            if not orphan.adopted:
                by_topic[orphan.topic] = by_topic.get(orphan.topic, 0) + orphan.owed
        self._metrics.orphaned = sum(by_topic.values())
        for topic, owed in by_topic.items():
            logger.error(
                "deliveries_of_nobody",
                topic=topic,
                owed=owed,
                reason="no daemon subscribes to it any more; subscribe again, or run: "
                f"dispatcherd adopt {topic}",
            )
