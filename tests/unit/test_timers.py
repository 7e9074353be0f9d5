"""The ticker: what is due at one moment does not hold up everything else."""

from __future__ import annotations

import asyncio

from dispatcherd.metrics import Metrics
from dispatcherd.timers import Timers


async def test_many_timers_due_at_one_moment_let_the_loop_come_round_in_between() -> None:
    timers = Timers(Metrics(), tick_seconds=0.001)
    clock, turns, fired = timers.now(), 0, []

    def now() -> float:
        return clock

    def takes_a_millisecond(number: int) -> None:
        nonlocal clock
        clock += 0.001
        fired.append((number, turns))

    timers.now = now
    for number in range(100):
        timers.schedule(clock + 0.001, takes_a_millisecond, number)
    running = asyncio.create_task(timers.run())
    async with asyncio.timeout(30):
        while len(fired) < 100:
            await asyncio.sleep(0)
            turns += 1
            if not fired:
                clock += 0.001  # until the ticker has slept its tick
    running.cancel()
    assert [number for number, _ in fired] == list(range(100))
    first, last = fired[0][1], fired[-1][1]
    assert last - first >= 30, "the loop came round for every few of them"


async def test_a_timer_taken_back_while_those_before_it_run_does_not_fire() -> None:
    timers = Timers(Metrics(), tick_seconds=0.001)
    fired: list[int] = []

    def first(number: int) -> None:
        fired.append(number)
        timers.cancel(second)

    at = timers.now() + 0.001
    timers.schedule(at, first, 1)
    second = timers.schedule(at, fired.append, 2)
    timers.schedule(at, fired.append, 3)
    running = asyncio.create_task(timers.run())
    async with asyncio.timeout(30):
        while len(fired) < 2:  # noqa: ASYNC110 (it has no event)
            await asyncio.sleep(0)
    running.cancel()
    assert fired == [1, 3]
