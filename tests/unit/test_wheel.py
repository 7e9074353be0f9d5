"""The timing wheel against a sorted list: the same timers, in the same order, never early.

Ticks are powers of two here, so that every time is exact in binary and nothing is excused by
rounding; one test takes the daemon's own tick of 0.01 s and says what rounding may do.
"""

from __future__ import annotations

import heapq
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from dispatcherd.wheel import Timer, Wheel

TICK = 2.0**-7
"""Seconds; 256**4 of these are 388 days."""
PART = TICK / 8
"""The grain of the times set: eight of them are a tick."""
SPAN = 256**4
"""Ticks that four wheels of 256 slots tell apart."""


def nothing(_: Any) -> None:
    """What the timers call."""


def set_at(wheel: Wheel, parts: int, argument: Any = None) -> Timer:
    return wheel.schedule(parts * PART, nothing, argument)


def fired(wheel: Wheel, parts: int) -> list[Any]:
    return [timer.argument for timer in wheel.advance(parts * PART)]


# --- one claim at a time -------------------------------------------------------------------


@pytest.mark.parametrize(
    "ticks",
    [1, 2, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, 256**3 - 1, 256**3, 256**3 + 1,
     SPAN - 256**3 - 1, SPAN - 256**3, SPAN - 1, SPAN, SPAN + 1, 3 * SPAN + 7],
)  # fmt: skip
def test_a_timer_fires_at_its_tick_and_not_one_before(ticks: int) -> None:
    wheel = Wheel(0.0, TICK)
    set_at(wheel, ticks * 8, "a")
    assert fired(wheel, ticks * 8 - 1) == []
    assert len(wheel) == 1
    assert fired(wheel, ticks * 8) == ["a"]
    assert len(wheel) == 0


@pytest.mark.parametrize("start", [0, 1, 200, 255, 256, 65_535, 256**3 - 1, SPAN - 1, SPAN])
@pytest.mark.parametrize("ahead", [1, 56, 255, 256, 65_535, 256**3, SPAN - 256**3, SPAN])
def test_a_timer_fires_at_its_tick_wherever_the_wheel_stands(start: int, ahead: int) -> None:
    wheel = Wheel(0.0, TICK)
    wheel.advance(start * TICK)
    set_at(wheel, (start + ahead) * 8, "a")
    assert fired(wheel, (start + ahead) * 8 - 1) == []
    assert fired(wheel, (start + ahead) * 8) == ["a"]


def test_a_time_between_two_ticks_is_rounded_up() -> None:
    wheel = Wheel(0.0, TICK)
    set_at(wheel, 8 * 8 + 1, "a")
    assert fired(wheel, 9 * 8 - 1) == []
    assert fired(wheel, 9 * 8) == ["a"]


def test_a_time_that_has_passed_fires_at_the_next_new_tick() -> None:
    wheel = Wheel(0.0, TICK)
    wheel.advance(100 * TICK)
    set_at(wheel, 3, "long ago")
    set_at(wheel, -1_000_000, "before the wheel was made")
    set_at(wheel, 800, "now")
    assert fired(wheel, 807) == []
    assert fired(wheel, 808) == ["long ago", "before the wheel was made", "now"]


def test_a_timer_does_not_fire_a_hundred_thousandth_of_a_tick_early() -> None:
    wheel = Wheel(0.0, TICK)
    set_at(wheel, 800, "a")
    assert wheel.advance(100 * TICK - TICK * 1e-5) == []
    assert fired(wheel, 800) == ["a"]


@pytest.mark.parametrize("tick", [300, 65_536 + 300, 256**3 + 300, SPAN, SPAN + 300, 2 * SPAN])
def test_within_a_tick_timers_fire_in_the_order_in_which_they_were_set(tick: int) -> None:
    wheel = Wheel(0.0, TICK)
    names = []
    steps = {0, 1, 256, 65_536, 2 * 256**3, 200 * 256**3, SPAN - 256, tick - 300, tick - 2}
    for step in sorted(step for step in steps if step < tick):
        wheel.advance(step * TICK)  # each is placed in another wheel, and brought down with others
        set_at(wheel, tick * 8 - step % 2, step)
        names.append(step)
    assert fired(wheel, tick * 8) == names


def test_a_clock_that_runs_backwards_fires_nothing_and_breaks_nothing() -> None:
    wheel = Wheel(0.0, TICK)
    wheel.advance(1_000 * TICK)
    set_at(wheel, 1_001 * 8, "a")
    assert fired(wheel, 5) == []
    assert fired(wheel, -5_000) == []
    assert fired(wheel, 1_001 * 8) == ["a"]


def test_a_timer_is_cancelled_once() -> None:
    wheel = Wheel(0.0, TICK)
    timer = set_at(wheel, 800)
    assert wheel.cancel(timer)
    assert not wheel.cancel(timer)
    assert timer.cancelled
    assert len(wheel) == 0
    assert fired(wheel, 10_000) == []


def test_a_timer_that_advance_has_returned_can_still_be_cancelled_before_its_call() -> None:
    wheel = Wheel(0.0, TICK)
    first, second = set_at(wheel, 8), set_at(wheel, 8)
    assert wheel.advance(TICK) == [first, second]
    assert wheel.cancel(second)
    assert second.cancelled
    assert not first.cancelled
    assert not wheel.cancel(second)
    assert len(wheel) == 0


def test_an_empty_wheel_has_no_next_firing() -> None:
    wheel = Wheel(0.0, TICK)
    assert wheel.next_at() is None
    timer = set_at(wheel, 8_000)
    assert wheel.next_at() is not None
    wheel.cancel(timer)
    assert wheel.next_at() is None


@given(
    times=st.lists(st.floats(0, 1e6, allow_nan=False), min_size=1, max_size=30),
    steps=st.lists(st.floats(1e-3, 1e5, allow_nan=False), min_size=1, max_size=30),
    start=st.floats(0, 1e7, allow_nan=False),
)
def test_with_the_daemons_tick_rounding_makes_nothing_early_by_a_millionth_of_a_tick(
    times: list[float], steps: list[float], start: float
) -> None:
    tick = 0.01
    wheel = Wheel(start, tick)
    waiting = {wheel.schedule(start + t, nothing, None): start + t for t in times}
    now = start
    for step in steps:
        now += step
        for timer in wheel.advance(now):
            assert now > waiting.pop(timer) - tick * 1e-6
        assert all(at > now - tick * (1 + 1e-6) for at in waiting.values())


# --- against a sorted list -----------------------------------------------------------------


class SortedList:
    """The model: entries (tick, order) in a heap, the cancelled ones left out when popped."""

    def __init__(self) -> None:
        self.current = 0
        self.order = 0
        self.live: dict[int, Timer] = {}
        self._heap: list[tuple[int, int]] = []

    def set(self, parts: int, timer: Timer) -> int:
        self.order += 1
        tick = max(-(-parts // 8), self.current + 1)
        heapq.heappush(self._heap, (tick, self.order))
        self.live[self.order] = timer
        return self.order

    def advance(self, parts: int) -> list[Timer]:
        self.current = max(self.current, parts // 8)
        due = []
        while self._heap and self._heap[0][0] <= self.current:
            _, order = heapq.heappop(self._heap)
            if order in self.live:
                due.append(self.live.pop(order))
        return due

    def earliest(self) -> int | None:
        while self._heap and self._heap[0][1] not in self.live:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None


AHEAD = (8, 100, 2_048, 80_000, 600_000, 8 * 256**3, 8 * SPAN, 40 * SPAN)
"""Parts of a tick: how far ahead a timer is set, at most; one for each wheel, and beyond."""
GAPS = (1, 8, 8, 60, 2_048, 50_000, 600_000)
HUGE_GAPS = (8 * 256**3, 8 * SPAN, 100 * SPAN)


def run_against_a_sorted_list(seed: int, operations: int) -> int:
    """At least so many random operations on both; returns how many there were."""
    rng = random.Random(seed)
    draw, below = rng.random, rng.randrange
    wheel, model = Wheel(0.0, TICK), SortedList()
    now = done = fired = 0
    while done < operations:
        for _ in range(below(60)):
            reach = AHEAD[int(draw() * draw() * len(AHEAD))]
            at = now + int(draw() * reach) - (100 if draw() < 0.05 else 0)
            model.set(at, wheel.schedule(at * PART, nothing, at))
            done += 1
        for _ in range(below(20)):
            timer = model.live.pop(1 + below(model.order), None) if model.order else None
            if timer is not None:
                assert wheel.cancel(timer)
                done += 1
        huge = draw() < 0.0002
        now += HUGE_GAPS[below(3)] if huge else 1 + below(GAPS[below(len(GAPS))])
        due = wheel.advance(now * PART)
        assert due == model.advance(now)
        assert all(timer.argument <= now for timer in due)  # never early
        assert len(wheel) == len(model.live)
        fired += len(due)
        done += 1
    assert fired > operations // 4
    return done + fired


def test_the_wheel_is_a_sorted_list_over_millions_of_operations() -> None:
    assert sum(run_against_a_sorted_list(seed, 400_000) for seed in range(3)) > 2_000_000


_near_a_turn = st.builds(
    lambda power, near: 8 * 256**power + near, st.integers(1, 5), st.integers(-20, 20)
)


class WheelBesideList(RuleBasedStateMachine):
    """Any order of operations that hypothesis thinks of; it shrinks what the long run cannot."""

    timers: Bundle[tuple[int, Timer]] = Bundle("timers")

    def __init__(self) -> None:
        super().__init__()
        self.wheel = Wheel(0.0, TICK)
        self.model = SortedList()
        self.now = 0

    @rule(
        target=timers,
        ahead=st.one_of(
            st.integers(-3_000, 3_000), st.integers(0, 600_000), st.integers(0, 20 * SPAN),
            _near_a_turn,
        ),
    )  # fmt: skip
    def set(self, ahead: int) -> tuple[int, Timer]:
        at = self.now + ahead
        timer = set_at(self.wheel, at, max(at, self.now + 1))
        return self.model.set(at, timer), timer

    @rule(entry=consumes(timers))
    def cancel(self, entry: tuple[int, Timer]) -> None:
        order, timer = entry
        before = len(self.wheel)
        lay_there = self.model.live.pop(order, None) is not None
        assert self.wheel.cancel(timer)  # True also when it has fired: the caller heeds `cancelled`
        assert before - len(self.wheel) == lay_there
        assert timer.cancelled
        assert not self.wheel.cancel(timer)

    @rule(
        gap=st.one_of(
            st.integers(-100, 10), st.integers(1, 5_000), st.integers(1, 10 * SPAN), _near_a_turn
        )
    )
    def advance(self, gap: int) -> None:
        due = self.wheel.advance((self.now + gap) * PART)
        self.now = max(self.now, self.now + gap)
        assert due == self.model.advance(self.now)
        assert all(timer.argument <= self.now for timer in due)
        assert all(t.argument > self.now - 8 for t in self.model.live.values())  # within a tick

    @invariant()
    def counts(self) -> None:
        assert len(self.wheel) == len(self.model.live)

    @invariant()
    def next_is_a_lower_bound(self) -> None:
        at, earliest = self.wheel.next_at(), self.model.earliest()
        if earliest is None:
            assert at is None
        else:
            assert at is not None
            assert self.model.current < at / TICK <= earliest


TestWheelBesideList = WheelBesideList.TestCase
TestWheelBesideList.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
