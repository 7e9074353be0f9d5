"""How fast the machine is at the moment: the same small piece of work, timed again and again.

On a virtual machine the same code may take half as much CPU time again a minute later, when a
neighbour wants the memory or the other half of the core; no counter of the kernel shows it. With
the pace known, two runs can be compared that had different luck.

Invariant: the work is the same whatever is measured beside it, and takes less than a hundredth of a
core. Leaves out: what is done with it (session, results).
"""

from __future__ import annotations

import statistics
import time

from bench.ticking import Ticking

_EVERY_SECONDS = 0.05
_PIECE = range(0, 20_000, 37)


def piece() -> float:
    """CPU seconds that one piece of work takes this thread: about a tenth of a millisecond."""
    began = time.thread_time()
    made = {}
    for number in _PIECE:
        made[number] = str(number)
    return time.thread_time() - began


class Pace(Ticking):
    """A context that measures until it is left."""

    def __init__(self) -> None:
        super().__init__(_EVERY_SECONDS)
        self._taken: list[float] = []

    def tick(self) -> None:
        """One piece of work."""
        self._taken.append(piece())

    def take(self) -> float:
        """Mean microseconds of a piece since the last call."""
        taken, self._taken = self._taken, []
        return statistics.mean(taken or [piece()]) * 1e6
