"""What a timer costs on the wheel and on a heap, in nanoseconds of wall time per operation.

Run: python bench/wheel.py [timers]. The best of several rounds; nothing here is a pass mark. The
heap is `heapq` with lazy deletion (a cancelled entry stays until it comes to the top), which is
how event loops keep their timers.
"""

from __future__ import annotations

import gc
import heapq
import random
import sys
import tracemalloc
from collections.abc import Callable
from itertools import count
from time import perf_counter_ns
from typing import Any

from dispatcherd.wheel import Wheel

_ROUNDS = 5


class Entry:
    """A timer of the heap."""

    __slots__ = ("argument", "callback", "cancelled")

    def __init__(self, callback: Callable[[Any], None], argument: Any) -> None:
        self.callback = callback
        self.argument = argument
        self.cancelled = False


def nothing(_: Any) -> None:
    """What the timers call."""


def wheel_round(times: list[float], end: float) -> tuple[int, int, int]:
    """Nanoseconds to set all timers, to cancel half of them and to fire the others."""
    wheel = Wheel(0.0)
    began = perf_counter_ns()
    timers = [wheel.schedule(at, nothing, None) for at in times]
    was_set = perf_counter_ns()
    for timer in timers[::2]:
        wheel.cancel(timer)
    was_cancelled = perf_counter_ns()
    now = 0.0
    while now < end:
        now += 0.01
        for timer in wheel.advance(now):
            if not timer.cancelled:
                timer.callback(timer.argument)
    assert not len(wheel)
    return was_set - began, was_cancelled - was_set, perf_counter_ns() - was_cancelled


def heap_round(times: list[float], end: float) -> tuple[int, int, int]:
    """The same on a heap."""
    heap: list[tuple[float, int, Entry]] = []
    numbers = count()
    push, pop = heapq.heappush, heapq.heappop

    def schedule(at: float, callback: Callable[[Any], None], argument: Any) -> Entry:
        entry = Entry(callback, argument)
        push(heap, (at, next(numbers), entry))
        return entry

    def cancel(entry: Entry) -> None:
        entry.cancelled = True

    began = perf_counter_ns()
    entries = [schedule(at, nothing, None) for at in times]
    was_set = perf_counter_ns()
    for entry in entries[::2]:
        cancel(entry)
    was_cancelled = perf_counter_ns()
    now = 0.0
    while now < end:
        now += 0.01
        while heap and heap[0][0] <= now:
            entry = pop(heap)[2]
            if not entry.cancelled:
                entry.callback(entry.argument)
    assert not heap
    return was_set - began, was_cancelled - was_set, perf_counter_ns() - was_cancelled


def show(name: str, rounds: list[tuple[int, int, int]], number: int) -> None:
    inserting, cancelling, firing = (min(column) for column in zip(*rounds, strict=True))
    half = number // 2
    print(
        f"{name:6} insert {inserting / number:6.0f}   cancel {cancelling / half:6.0f}   "
        f"fire, with the empty ticks between {firing / half:6.0f}   ns"
    )


def show_steady(number: int) -> None:
    """A deadline 15 s ahead set and cancelled again, with `number` others always pending."""
    wheel = Wheel(0.0)
    pending = [wheel.schedule(15.0 + n * 1e-5, nothing, None) for n in range(number)]
    best = sys.maxsize
    for _ in range(_ROUNDS):
        began = perf_counter_ns()
        for n, timer in enumerate(pending):
            wheel.cancel(timer)
            pending[n] = wheel.schedule(15.0, nothing, None)
        best = min(best, perf_counter_ns() - began)
    print(f"wheel  cancel one and set one, {number:,} pending: {best / number:6.0f} ns")


def show_memory(times: list[float]) -> None:
    tracemalloc.start()
    empty = tracemalloc.get_traced_memory()[0]
    wheel = Wheel(0.0)
    base = tracemalloc.get_traced_memory()[0]
    for at in times:
        wheel.schedule(at, nothing, None)
    full = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    print(f"wheel  {base - empty:,} bytes empty, {(full - base) / len(times):.0f} bytes a timer")


def main(number: int) -> None:
    draw = random.Random(1)
    gc.disable()
    for end in (2.0, 60.0):
        times = [draw.uniform(0.0, end - 0.5) for _ in range(number)]
        print(f"{number:,} timers within {end:g} s, in random order")
        show("wheel", [wheel_round(times, end) for _ in range(_ROUNDS)], number)
        show("heap", [heap_round(times, end) for _ in range(_ROUNDS)], number)
    show_steady(number)
    show_memory(times)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
