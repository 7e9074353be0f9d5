"""Kafka is told the durable watermarks: advice for lag tools, proof of membership, not the truth.

Invariant: an offset is committed only after the flush that made it durable. Leaves out: which
watermarks there are (offsets) and when they became durable (record).
"""

from __future__ import annotations

import asyncio

from dispatcherd import log
from dispatcherd.claim import Ownership
from dispatcherd.consume import Consumer, MembershipLost
from dispatcherd.errors import LogUnavailable
from dispatcherd.metrics import Metrics

logger = log.get(__name__)

_EVERY_SECONDS = 1.0
_TIMEOUT_SECONDS = 10.0


class Committer:
    """Commits what has moved."""

    def __init__(self, consumer: Consumer, ownership: Ownership, metrics: Metrics) -> None:
        self._consumer = consumer
        self._ownership = ownership
        self._metrics = metrics

    async def run(self) -> None:
        """Every second, for ever."""
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            await self.once(_TIMEOUT_SECONDS)

    async def once(self, timeout_seconds: float) -> bool:
        """Commit now; False when Kafka did not take it."""
        moved = [
            t
            for t in self._ownership.reading.values()
            if t.window.durable_watermark > t.window.committed_watermark and t.halted is None
        ]
        offsets = {t.tp: t.window.durable_watermark for t in moved}
        try:
            await self._consumer.commit(offsets, timeout_seconds)
        except (MembershipLost, LogUnavailable) as error:
            self._metrics.commit_failures += 1
            logger.debug("commit_failed", error=str(error))
            return False
        for tenure in moved:
            tenure.window.committed_watermark = offsets[tenure.tp]
        return True
