"""How much one endpoint, and all together, may be owed in Postgres, and who is at the cap.

Invariant: an endpoint at its cap stays there until what it is owed has fallen to `_RELEASE` of
the cap, so that the state does not flap; at the total cap only those who owe are held, never an
endpoint that is owed nothing. Leaves out: counting (record.backlog) and what is done at the cap
(intake, retry).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_RELEASE: Final = 0.9


class Quota:
    """What is owed as of the last look, with this process's own changes since."""

    def __init__(self, per_endpoint: int, total: int) -> None:
        self._per_endpoint = per_endpoint
        self._total = total
        self.owed: dict[int, int] = {}
        """Endpoint → rows owed by all processes."""
        self.total = 0
        self.full: set[int] = set()
        """Endpoints at their cap, or owed something while the total is at its cap."""
        self._all_full = False

    def look(self, owed: Mapping[int, int]) -> tuple[set[int], set[int]]:
        """Take over exact counts; returns the endpoints that came to the cap, and those that left
        it."""
        self.owed = {number: count for number, count in owed.items() if count > 0}
        self.total = sum(self.owed.values())
        before, self.full = self.full, set()
        self._all_full = self._at(self.total, self._total, self._all_full)
        for number, count in self.owed.items():
            if self._all_full or self._at(count, self._per_endpoint, number in before):
                self.full.add(number)
        return self.full - before, before - self.full

    def add(self, endpoint_id: int, change: int) -> bool:
        """A flush changed what this process owes; True when the endpoint came to its cap by it."""
        count = self.owed.get(endpoint_id, 0) + change
        self.owed[endpoint_id] = count
        self.total += change
        if change <= 0 or endpoint_id in self.full:
            return False
        if count >= self._per_endpoint or self.total >= self._total:
            self.full.add(endpoint_id)
            return True
        return False

    def excess(self, endpoint_id: int) -> int:
        """How many rows of this endpoint are above its own cap."""
        return max(0, self.owed.get(endpoint_id, 0) - self._per_endpoint)

    def room(self, endpoint_id: int) -> int:
        """How many more rows this endpoint may be owed."""
        own = self._per_endpoint - self.owed.get(endpoint_id, 0)
        return max(0, min(own, self._total - self.total))

    @staticmethod
    def _at(count: int, cap: int, was_full: bool) -> bool:
        return count >= (cap * _RELEASE if was_full else cap)
