"""The one ticker: drives the wheel, measures the loop, and notices when the process was frozen.

Invariant: every hot-path timer (retry, deadline, batch wait) is on this wheel; a callback that
raises is a fault of ours and stops the daemon. Leaves out: the wheel's arithmetic (wheel).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from dispatcherd.metrics import Metrics
from dispatcherd.wheel import Timer, Wheel

_TURN_SECONDS = 0.002
"""For so long timers run before the loop gets a turn: a thousand receivers that hang are given up
at one moment, and those that answer must not wait for that."""


async def set_within(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event is set, waited for so long at the most."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


class Timers:
    """The wheel and its ticker. `now()` is monotonic seconds."""

    def __init__(self, metrics: Metrics, tick_seconds: float = 0.01) -> None:
        self._metrics = metrics
        self._tick = tick_seconds
        self.now = time.monotonic
        self.wheel = Wheel(self.now(), tick_seconds)
        self.last_beat = self.now()
        """When the loop last came round; a long gap means that the process did not run."""
        self.on_gap: Callable[[float], None] = lambda seconds: None
        self.on_lag: Callable[[float, float], None] = lambda now, lag_seconds: None
        """Told at each tick how late it was."""
        self.gap_seconds = float("inf")

    def schedule(self, at: float, callback: Callable[[Any], None], argument: Any) -> Timer:
        """Call back at a monotonic time, never early."""
        return self.wheel.schedule(at, callback, argument)

    def cancel(self, timer: Timer) -> None:
        """Take a timer back; harmless when it has fired."""
        self.wheel.cancel(timer)

    def check_gap(self, now: float) -> bool:
        """True when the loop has stood still for longer than `gap_seconds`: nothing may be sent
        before epochs are verified. Cheap: called before each send."""
        gap = now - self.last_beat
        if gap < self.gap_seconds:
            return False
        self.last_beat = now
        self.on_gap(gap)
        return True

    async def run(self) -> None:
        """Tick for ever."""
        self.last_beat = self.now()  # waiting for parts to come up was no gap
        while True:
            before = self.now()
            await asyncio.sleep(self._tick)
            now = self.now()
            lag = self._metrics.loop_lag = max(0.0, now - before - self._tick)
            self.on_lag(now, lag)
            self.check_gap(now)
            self.last_beat = now
            for timer in self.wheel.advance(now):
                if timer.cancelled:
                    continue
                timer.callback(timer.argument)
                if self.now() - self.last_beat > _TURN_SECONDS:
                    await asyncio.sleep(0)
                    self.last_beat = self.now()
