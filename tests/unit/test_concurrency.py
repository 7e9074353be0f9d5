"""How many exchanges may be under way: while the loop is late, and while descriptors are short."""

from __future__ import annotations

from dispatcherd.concurrency import ConcurrencyLimit

TICK_SECONDS = 0.01


def adjusted(limit: ConcurrencyLimit, seconds: float, lag: float = 0.0) -> int:
    for _ in range(int(seconds / TICK_SECONDS)):
        found = limit.adjust(lag, 0)
    return found


def test_out_of_descriptors_the_limit_is_what_is_under_way_but_for_a_few() -> None:
    limit = ConcurrencyLimit(2_000)
    adjusted(limit, 10)
    assert limit.starved(46) == 40
    assert limit.starved(60) == 40, "a later failure does not raise it"
    assert limit.starved(0) == 0


def test_it_is_regained_slowly_so_that_few_exchanges_find_out_and_then_wholly() -> None:
    limit = ConcurrencyLimit(2_000)
    adjusted(limit, 10)
    limit.starved(46)
    assert 40 <= adjusted(limit, 1) <= 55
    assert adjusted(limit, 60) == 2_000


def test_from_nothing_it_comes_back_too() -> None:
    limit = ConcurrencyLimit(2_000)
    limit.starved(0)
    assert adjusted(limit, 0.1) == 0
    assert adjusted(limit, 1) >= 1
