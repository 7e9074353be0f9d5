"""How fast the machine is at the moment: the same small piece of work, timed again and again.

On a virtual machine the same code may take half as much CPU time again a minute later, when a
neighbour wants the memory or the other half of the core; no counter of the kernel shows it. With
the pace known, two runs can be compared that had different luck.

Invariant: the work is the same whatever is measured beside it, and takes less than a hundredth of a
core. Leaves out: what is done with it (session, results).
"""

from __future__ import annotations

import statistics
import threading
import time

_EVERY_SECONDS = 0.05
_PIECE = range(0, 20_000, 37)


def piece() -> float:
    """CPU seconds that one piece of work takes this thread: about a tenth of a millisecond."""
    began = time.thread_time()
    made = {}
    for number in _PIECE:
        made[number] = str(number)
    return time.thread_time() - began


class Pace:
    """A context that measures until it is left, in a thread of its own."""

    def __init__(self) -> None:
        self._taken: list[float] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Pace:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(5)

    def _run(self) -> None:
        while not self._ended.wait(_EVERY_SECONDS):
            self._taken.append(piece())

    def take(self) -> float:
        """Mean microseconds of a piece since the last call."""
        taken, self._taken = self._taken, []
        return statistics.mean(taken or [piece()]) * 1e6
