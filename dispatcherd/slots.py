"""Who may send now: slots per host and in all.

Leaves out: connections (pool), and how many slots there should be (concurrency).
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable


class HostSlots:
    """Exchanges under way per host and in all, shared fairly between those who wait.

    Invariant: never more than `limit` per host nor `total` in all; a slot that is free is offered
    to whoever waits and may have it, in the order in which they came, until it is taken or nobody
    is left: so nobody waits beside a free slot.
    """

    def __init__(self, limit: int, total: int) -> None:
        self._limit = limit
        self._total = total
        self._taken: dict[str, int] = {}
        self._all = 0
        self._waiting: dict[str, OrderedDict[Callable[[], None], int]] = {}
        """Host → who waits for it, with tickets that rise."""
        self._tickets = 0
        self._heads: list[tuple[int, str]] = []
        """A heap of the first tickets of hosts that wait for the total alone (or did: the host may
        be full by now)."""
        self._listed: set[str] = set()
        """The hosts in the heap: each stands there once."""
        self._offering = False

    def take(self, host: str, waiter: Callable[[], None]) -> bool:
        """True: a slot is yours, give it back. False: `waiter` (queued once) will be called when
        it is worth asking again."""
        taken = self._taken.get(host, 0)
        if taken < self._limit and self._all < self._total:
            self._taken[host] = taken + 1
            self._all += 1
            return True
        queue = self._waiting.get(host)
        if queue is None:
            queue = self._waiting[host] = OrderedDict()
        if waiter not in queue:
            self._tickets += 1
            queue[waiter] = self._tickets
        if taken < self._limit:
            self._list(host)
        return False

    def resize(self, total: int) -> None:
        """From now on so many in all; what is above it is not taken back, only not given again."""
        grown = total > self._total
        self._total = total
        if grown and self._heads and not self._offering:
            self._offering = True
            try:
                self._offer()
            finally:
                self._offering = False

    def contended(self, host: str) -> bool:
        """Whether somebody waits for a slot of this host, or for any: give yours back then."""
        return host in self._waiting or bool(self._heads)

    def give(self, host: str) -> None:
        """Give a slot back; who waits longest for it is called, before this returns."""
        left = self._taken[host] - 1
        if left:
            self._taken[host] = left
        else:
            del self._taken[host]
        self._all -= 1
        if host in self._waiting:
            self._list(host)
        if self._heads and not self._offering:
            # Only the outermost call offers: a thousand who give back at once what they were
            # offered must not nest a thousand calls deep.
            self._offering = True
            try:
                self._offer()
            finally:
                self._offering = False

    def _list(self, host: str) -> None:
        if host not in self._listed:
            self._listed.add(host)
            heapq.heappush(self._heads, (next(iter(self._waiting[host].values())), host))

    def _offer(self) -> None:
        while self._heads and self._all < self._total:
            _, host = heapq.heappop(self._heads)
            self._listed.remove(host)
            if self._taken.get(host, 0) >= self._limit:
                continue  # listed again when a slot of the host is given back
            queue = self._waiting[host]
            waiter, _ = queue.popitem(last=False)
            if queue:
                self._list(host)
            else:
                del self._waiting[host]
            waiter()
