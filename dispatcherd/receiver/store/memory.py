"""Ids in this process's memory: for one process, and for tests.

Invariant: never more than `max_items` ids. At the cap the completed id that is oldest goes first
(a repeat of it would be processed again); a claim in progress is never dropped. Leaves out:
restarts and other processes (sql, redis).
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from itertools import islice

from dispatcherd.receiver.store import (
    DEFAULT_RETENTION_SECONDS,
    Claim,
    State,
    StoreFull,
    new_token,
)

_SWEPT_AT_ONCE = 16


class MemoryStore:
    """A Store in memory; see the module. `now` is a monotonic clock in seconds."""

    def __init__(
        self,
        max_items: int = 100_000,
        retention_seconds: float = DEFAULT_RETENTION_SECONDS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        if max_items < 1:
            raise ValueError(f"max_items is {max_items}; at least 1 is needed")
        self._max_items = max_items
        self._retention = retention_seconds
        self._now = now
        self._lock = threading.Lock()
        self._leases: OrderedDict[str, tuple[str, float]] = OrderedDict()
        """key → (token, end of the lease)"""
        self._done: OrderedDict[str, float] = OrderedDict()
        """key → when it is forgotten; the oldest first"""

    def __len__(self) -> int:
        return len(self._leases) + len(self._done)

    def claim(self, key: str, lease_seconds: float) -> Claim:
        """See Store. Raises StoreFull when every place is held by work in progress."""
        with self._lock:
            now = self._now()
            self._sweep(now)
            until = self._done.get(key)
            if until is not None:
                if until > now:
                    return Claim(key, State.DONE)
                del self._done[key]
            held = self._leases.get(key)
            if held is not None and held[1] > now:
                return Claim(key, State.BUSY, retry_after_seconds=held[1] - now)
            if held is None:
                self._make_room(now)
            token = new_token()
            self._leases[key] = (token, now + lease_seconds)
            self._leases.move_to_end(key)
            return Claim(key, State.GRANTED, token)

    def complete(self, claim: Claim) -> bool:
        """See Store. A lease that ran out and that nobody took still completes."""
        with self._lock:
            if not self._drop(claim):
                return False
            self._done[claim.key] = self._now() + self._retention
            return True

    def release(self, claim: Claim) -> bool:
        """See Store."""
        with self._lock:
            return self._drop(claim)

    def _drop(self, claim: Claim) -> bool:
        held = self._leases.get(claim.key)
        if held is None or held[0] != claim.token:
            return False
        del self._leases[claim.key]
        return True

    def _sweep(self, now: float) -> None:
        """Forget a few whose time has come, so that no call pays for all."""
        for _ in range(_SWEPT_AT_ONCE):
            key = next(iter(self._done), None)
            if key is None or self._done[key] > now:
                return
            del self._done[key]

    def _make_room(self, now: float) -> None:
        if len(self) < self._max_items:
            return
        if self._done:
            self._done.popitem(last=False)
            return
        for key, (_, end) in islice(self._leases.items(), _SWEPT_AT_ONCE):
            if end <= now:
                del self._leases[key]
                return
        raise StoreFull(f"all {self._max_items} places hold work in progress; raise max_items")
