"""One memory for all lanes, shared without a list of who wants some.

Dynamic thresholds, after A. Choudhury and E. Hahne, "Dynamic Queue Length Thresholds for
Shared-Memory Packet Switches" (IEEE/ACM Transactions on Networking 6, 1998), with alpha = 1: a lane
may hold as much as is free. One lane alone gets half of the budget, n lanes get an (n+1)th each,
and so much stays free for the next one that comes.

Invariant: what is held exceeds the budget by one delivery at most. Pure. Leaves out: what a lane of
its own may hold (lane), and counting (retry).
"""

from __future__ import annotations


class SharedBudget:
    """Deliveries and bytes that all lanes together may hold."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self.held = 0
        self.held_bytes = 0

    def room(self, own: int, own_bytes: int) -> tuple[int, int]:
        """(deliveries, bytes) that a lane may take in now which holds so many. A lane that holds
        nothing may take one, however large, as long as anything is free."""
        free = self._most - self.held
        free_bytes = self._most_bytes - self.held_bytes
        count, size = max(0, free - own) // 2, max(0, free_bytes - own_bytes) // 2
        if not own and free > 0 and free_bytes > 0:
            return max(1, count), max(1, size)
        return (count, size) if size else (0, 0)

    def fits(self, own: int, own_bytes: int, size: int) -> bool:
        """Whether a lane may take in one more delivery, of so many bytes."""
        count, room = self.room(own, own_bytes)
        return count > 0 and (size <= room or not own)

    def take(self, size: int) -> None:
        """One more is held."""
        self.held += 1
        self.held_bytes += size
