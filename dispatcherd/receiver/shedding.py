"""When to say "later": the receiver is behind, and taking more would only make it later still.

Invariant: shedding starts at a high mark and stops at a lower one, so that it does not flutter;
what it asks for is between 1 and `MAX_RETRY_AFTER_SECONDS`, and spread, so that everybody sent
away does not come back at once. Pure: `now` and `draw` are arguments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from dispatcherd.receiver.backlog import Depth

MAX_RETRY_AFTER_SECONDS = 300.0
_HALF_LIFE_SECONDS = 30.0
_RECHECK_SECONDS = 0.25
_UNKNOWN_PACE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class ShedPolicy:
    """The marks. A share is of the backlog's `max_items`."""

    high_share: float = 0.9
    low_share: float = 0.7
    max_lag_seconds: float = 600.0
    """Shed while the first job has been ready and untaken for longer."""

    def __post_init__(self) -> None:
        if not 0 < self.low_share <= self.high_share <= 1:
            raise ValueError("shares must be 0 < low_share <= high_share <= 1")


class Pace:
    """How many jobs a second get done, recent ones counting most."""

    def __init__(self) -> None:
        self._weight = 0.0
        self._first: float | None = None
        self._at = 0.0

    def tick(self, now: float) -> None:
        """One more is done."""
        self._weight = self._faded(now) + 1.0
        self._at = now
        if self._first is None:
            self._first = now

    def per_second(self, now: float) -> float:
        """Jobs a second; 0 when nothing was done for long."""
        if self._first is None:
            return 0.0
        # Shortly after the start less weight has gathered than a steady pace would have.
        gathered: float = 1.0 - 0.5 ** (max(1.0, now - self._first) / _HALF_LIFE_SECONDS)
        return self._faded(now) * math.log(2) / _HALF_LIFE_SECONDS / gathered

    def _faded(self, now: float) -> float:
        return float(self._weight * 0.5 ** (max(0.0, now - self._at) / _HALF_LIFE_SECONDS))


class Shedder:
    """Decides from the backlog's depth, which is asked for a few times a second at most."""

    def __init__(self, policy: ShedPolicy, max_items: int) -> None:
        self._policy = policy
        self._high = policy.high_share * max_items
        self._low = policy.low_share * max_items
        self._checked_at = float("-inf")
        self._shedding = False
        self._depth = Depth(0, 0, 0.0)
        self.pace = Pace()

    def wants_depth(self, now: float) -> bool:
        """Whether the last look is too old to decide by."""
        return now - self._checked_at >= _RECHECK_SECONDS

    def look(self, depth: Depth, now: float) -> None:
        """How full the backlog is now."""
        self._checked_at = now
        self._depth = depth
        lag = self._policy.max_lag_seconds
        if depth.items >= self._high or depth.lag_seconds > lag:
            self._shedding = True
        elif depth.items <= self._low and depth.lag_seconds <= lag / 2:
            self._shedding = False

    def retry_after(self, now: float, draw: float) -> float | None:
        """Seconds after which to come again, None if the request is welcome. `draw` in [0, 1)."""
        return self.estimate(now, draw) if self._shedding else None

    def estimate(self, now: float, draw: float) -> float:
        """How long the excess over the low mark takes at the present pace, and up to half more."""
        excess = max(1.0, self._depth.items - self._low)
        pace = self.pace.per_second(now)
        seconds = excess / pace if pace > 0 else _UNKNOWN_PACE_SECONDS
        return min(MAX_RETRY_AFTER_SECONDS, max(1.0, seconds * (1.0 + draw / 2)))
