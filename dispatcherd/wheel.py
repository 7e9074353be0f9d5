"""A hierarchical timing wheel: O(1) to set, cancel and advance, whatever the number of timers.

After G. Varghese and T. Lauck, "Hashed and Hierarchical Timing Wheels" (SOSP 1987), scheme 7: four
wheels of 256 slots, each turning 256 times slower than the one below; a timer lies in the slowest
wheel whose slot still tells it from now, and moves down as its time comes near (at most three
times). What lies beyond the slowest wheel waits in its last slot and is placed anew from there.

Invariant: a timer never fires early, and fires within one tick of its time once `advance` is
called; within a tick, timers fire in the order in which they were set. Pure: `now` is passed in.
Leaves out: who calls `advance`, and running the callbacks (timers).
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any, Final

_BITS: Final = 8
_SLOTS: Final = 1 << _BITS
_MASK: Final = _SLOTS - 1
_LEVELS: Final = 4
_SPAN: Final = 1 << (_BITS * _LEVELS)


class Timer:
    """One entry. `cancelled` is True once `Wheel.cancel` has taken it back, also between the
    `advance` that returned it and the call of its callback."""

    __slots__ = ("_slot", "argument", "callback", "cancelled", "order", "tick")

    def __init__(
        self, tick: int, order: int, callback: Callable[[Any], None], argument: Any
    ) -> None:
        self.tick = tick
        self.order = order
        self.callback = callback
        self.argument = argument
        self.cancelled = False
        self._slot: dict[Timer, None] | None = None


class Wheel:
    """Timers by tick. Times are seconds on the clock that `now` comes from."""

    def __init__(self, now: float, tick_seconds: float = 0.01) -> None:
        self._tick_seconds = tick_seconds
        self._start = now
        self._current = 0
        """The last tick that was fired."""
        self._levels: list[list[dict[Timer, None]]] = [
            [{} for _ in range(_SLOTS)] for _ in range(_LEVELS)
        ]
        self._counts = [0] * _LEVELS
        self._order = 0

    def __len__(self) -> int:
        return sum(self._counts)

    def schedule(self, at: float, callback: Callable[[Any], None], argument: Any) -> Timer:
        """Set a timer; it fires at the first `advance` whose `now` is at or past `at`, rounded up
        to a tick. A time that has passed fires at the next `advance` that reaches a new tick."""
        tick = ceil((at - self._start) / self._tick_seconds)
        if tick <= self._current:
            tick = self._current + 1
        self._order += 1
        timer = Timer(tick, self._order, callback, argument)
        self._place(timer)
        return timer

    def cancel(self, timer: Timer) -> bool:
        """Take a timer back. False when it had been cancelled before; True also when `advance` has
        returned it already, in which case the caller of `advance` must heed `cancelled`."""
        if timer.cancelled:
            return False
        timer.cancelled = True
        slot = timer._slot
        if slot is None:
            return True
        del slot[timer]
        timer._slot = None
        self._counts[self._level(timer.tick)] -= 1
        return True

    def advance(self, now: float) -> list[Timer]:
        """Take out every timer that is due, in tick order and, within a tick, in setting order.

        After a long gap the work is bounded by the timers and the slots, not by the ticks passed.
        A `now` that runs backwards is ignored.
        """
        target = int((now - self._start) / self._tick_seconds + 1e-9)
        due: list[Timer] = []
        while self._current < target:
            if not self._counts[0]:
                # Nothing in the fastest wheel: on to where the next one turns (or to the end).
                following = self._next_turn()
                if following > target:
                    self._current = target
                    break
                self._current = following - 1
            self._current += 1
            tick = self._current
            if tick & _MASK == 0:
                self._turn(tick)
            slot = self._levels[0][tick & _MASK]
            if slot:
                self._counts[0] -= len(slot)
                fired = sorted(slot, key=_by_order) if len(slot) > 1 else list(slot)
                slot.clear()
                for timer in fired:
                    timer._slot = None
                due.extend(fired)
        return due

    def next_at(self) -> float | None:
        """A lower bound of the time of the next firing; None when no timer is set."""
        if not len(self):
            return None
        if not self._counts[0]:
            return self._start + self._next_turn() * self._tick_seconds
        levels = self._levels[0]
        for distance in range(1, _SLOTS + 1):
            if levels[(self._current + distance) & _MASK]:
                return self._start + (self._current + distance) * self._tick_seconds
        raise AssertionError("a timer is counted that lies in no slot")

    def _level(self, tick: int) -> int:
        """The level a timer lies in: that of the highest digit in which it differs from now."""
        ahead = tick ^ self._current
        for level in range(_LEVELS - 1):
            if ahead < 1 << (_BITS * (level + 1)):
                return level
        return _LEVELS - 1

    def _place(self, timer: Timer) -> None:
        tick = timer.tick
        if tick - self._current >= _SPAN - (1 << (_BITS * (_LEVELS - 1))):
            # Beyond the slowest wheel: wait in the slot that it reaches last.
            level = _LEVELS - 1
            index = ((self._current >> (_BITS * level)) - 1) & _MASK
        else:
            level = self._level(tick)
            index = (tick >> (_BITS * level)) & _MASK
        slot = self._levels[level][index]
        slot[timer] = None
        timer._slot = slot
        self._counts[level] += 1

    def _next_turn(self) -> int:
        """The next tick at which a wheel that holds timers turns, the fastest being empty."""
        for level in range(1, _LEVELS):
            if self._counts[level]:
                width = _BITS * level
                return ((self._current >> width) + 1) << width
        return 1 << 62

    def _turn(self, tick: int) -> None:
        """The fastest wheel has come round: bring down what the slower ones hold for this time."""
        for level in range(1, _LEVELS):
            slot = self._levels[level][(tick >> (_BITS * level)) & _MASK]
            if slot:
                timers = list(slot)
                slot.clear()
                self._counts[level] -= len(timers)
                for timer in timers:
                    self._place(timer)
            if (tick >> (_BITS * level)) & _MASK:
                break


def _by_order(timer: Timer) -> int:
    return timer.order
