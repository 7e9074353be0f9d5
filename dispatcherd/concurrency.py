"""How many exchanges may be under way when the process itself is the bottleneck.

Exchanges beyond what one core can serve only wait in sockets: they add latency, and connections
that push each other out of the pool. So while the event loop is late the limit falls, and while it
keeps up the limit rises, by little: additive increase, multiplicative decrease (D. Chiu, R. Jain,
"Analysis of the Increase and Decrease Algorithms for Congestion Avoidance", 1989).

Out of descriptors, what is under way is all that there can be: the limit falls below that at once,
and is regained slowly, by a fifth in a second, so that few exchanges fail in finding out.

Invariant: but for that, the limit stays between `_LEAST` and the configured total; exchanges that
have been under way for long (a receiver that hangs) are counted on top, so that they take nobody's
place. Pure.
Leaves out: measuring (timers), and holding to it (slots.HostSlots).
"""

from __future__ import annotations

from typing import Final

_LEAST: Final = 128
_LATE_SECONDS: Final = 0.003
_SMOOTHING: Final = 0.2
_DECREASE: Final = 0.9
_INCREASE: Final = 16
_LEFT_TO_OTHERS: Final = 6
"""Descriptors: Kafka's and Postgres's connections may have to be made anew."""
_REGAIN_FACTOR: Final = 1.002
_REGAIN: Final = 0.02


class ConcurrencyLimit:
    """Adjusted every few hundredths of a second."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._least = min(_LEAST, most)
        self._lag = 0.0
        self._afforded = float(most)
        """How many the system has descriptors for, as far as is known."""
        self.moving = float(min(2 * _LEAST, most))
        """Exchanges that may be under way beside those that hang."""

    @property
    def late(self) -> bool:
        """The process itself is the bottleneck: its loop comes round late."""
        return self._lag > _LATE_SECONDS

    def adjust(self, lag_seconds: float, hanging: int) -> int:
        """The new limit in all, from how late the loop was and how many exchanges hang."""
        self._lag += _SMOOTHING * (lag_seconds - self._lag)
        if self.late:
            self.moving = max(self._least, self.moving * _DECREASE)
        else:
            self.moving = min(self._most, self.moving + _INCREASE)
        self._afforded = min(self._most, self._afforded * _REGAIN_FACTOR + _REGAIN)
        return min(int(self._afforded), int(self.moving) + hanging)

    def starved(self, under_way: int) -> int:
        """One more than `under_way` could not be begun for want of resources; the new limit."""
        self._afforded = min(self._afforded, float(max(0, under_way - _LEFT_TO_OTHERS)))
        return int(self._afforded)
