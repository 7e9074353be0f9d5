"""Shedding starts high, stops low, and asks for waits that are bounded and spread."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcherd.receiver.backlog import Depth
from dispatcherd.receiver.shedding import MAX_RETRY_AFTER_SECONDS, Pace, Shedder, ShedPolicy

depths = st.builds(Depth, st.integers(0, 200), st.just(0), st.floats(0, 2_000))


def test_between_the_marks_it_goes_on_as_before() -> None:
    shedder = Shedder(ShedPolicy(0.9, 0.7), 100)
    seen = []
    for items in (0, 80, 89, 90, 80, 71, 70, 80):
        shedder.look(Depth(items, 0, 0.0), 0.0)
        seen.append(shedder.retry_after(0.0, 0.0) is not None)
    assert seen == [False, False, False, True, True, True, False, False]


def test_a_backlog_that_stands_still_sheds_however_short_it_is() -> None:
    shedder = Shedder(ShedPolicy(max_lag_seconds=60), 100)
    shedder.look(Depth(1, 0, 61.0), 0.0)
    assert shedder.retry_after(0.0, 0.0) is not None
    shedder.look(Depth(1, 0, 10.0), 1.0)
    assert shedder.retry_after(1.0, 0.0) is None


@given(st.lists(depths, min_size=1), st.lists(st.floats(0, 1_000)), st.floats(0, 0.999))
def test_the_wait_is_between_one_second_and_the_most(
    looks: list[Depth], ticks: list[float], draw: float
) -> None:
    shedder = Shedder(ShedPolicy(), 100)
    for at in sorted(ticks):
        shedder.pace.tick(at)
    for depth in looks:
        shedder.look(depth, 1_000.0)
        assert 1.0 <= shedder.estimate(1_000.0, draw) <= MAX_RETRY_AFTER_SECONDS


def test_the_wait_is_what_the_excess_takes_at_the_present_pace() -> None:
    shedder = Shedder(ShedPolicy(0.9, 0.5), 100)
    shedder.look(Depth(100, 0, 0.0), 0.0)
    for n in range(10_001):
        shedder.pace.tick(n / 10)  # ten a second
        if n in (50, 1_000, 10_000):
            assert shedder.estimate(n / 10, 0.0) == pytest.approx(5.0, rel=0.1)
            assert shedder.estimate(n / 10, 0.8) == pytest.approx(7.0, rel=0.1)


def test_pace_fades_when_nothing_gets_done() -> None:
    pace = Pace()
    assert pace.per_second(0.0) == 0.0
    for n in range(1_001):
        pace.tick(n)
    assert pace.per_second(1_000.0) == pytest.approx(1.0, rel=0.05)
    assert pace.per_second(1_030.0) == pytest.approx(0.5, rel=0.05)
    assert pace.per_second(1e9) == 0.0


def test_marks_that_cannot_be_are_refused() -> None:
    for high, low in ((0.5, 0.6), (1.1, 0.5), (0.5, 0.0)):
        with pytest.raises(ValueError):
            ShedPolicy(high, low)
