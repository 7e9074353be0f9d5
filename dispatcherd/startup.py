"""Starting waits for Kafka and Postgres, for a bounded time, and says for what.

Invariant: an attempt that is under way at the deadline is given up too. Leaves out: what there is
to be done with each part (pipeline).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from dispatcherd import log
from dispatcherd.errors import LogUnavailable, StartTimeout, StoreUnavailable

logger = log.get(__name__)

T = TypeVar("T")

_REMEDY = (
    "it was waited for until start_timeout_seconds had passed. Start it, or correct its address in "
    "the configuration"
)


class Startup:
    """One start, from its first attempt to the deadline."""

    def __init__(self, timeout_seconds: float) -> None:
        self._deadline = time.monotonic() + timeout_seconds
        self.waiting_for = "postgres", "not asked yet"
        """A part, and what it last said."""

    async def until(self, part: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Repeat until the part answers. Raises StartTimeout with its last words."""
        self.waiting_for = part, "no answer yet"
        warned = False
        while True:
            try:
                async with asyncio.timeout(max(1.0, self._deadline - time.monotonic())):
                    answer = await attempt()
                break
            except TimeoutError as error:
                raise StartTimeout(f"{part}: {self.waiting_for[1]}; {_REMEDY}") from error
            except (StoreUnavailable, LogUnavailable) as error:
                self.waiting_for = part, str(error)
                if time.monotonic() > self._deadline:
                    raise StartTimeout(f"{error}; {_REMEDY}") from error
                if not warned:
                    logger.warning("waiting_for_part", part=part, error=str(error))
                warned = True
                await asyncio.sleep(1)
        if warned:
            logger.info("part_is_up", part=part)
        return answer
