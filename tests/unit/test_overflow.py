"""A full lane's overflow: what waits in Kafka, and what is parked."""

from __future__ import annotations

import pytest

from dispatcherd.lane import Lane
from dispatcherd.overflow import Overflow
from tests.unit.nouns import make_delivery, make_lane

HOLD, PATIENCE = 1.0, 5.0


def full_lane(entered_at: float, asked_at: float) -> Lane:
    lane = make_lane(2)
    for offset in range(2):
        lane.offer(make_delivery(offset, 0, entered_at))
    lane.asked_at = asked_at
    return lane


def offered(now: float, *lanes: Lane) -> Overflow:
    overflow = Overflow(HOLD, PATIENCE)
    for lane in lanes:
        overflow.offered(lane, now)
    return overflow


def test_a_lane_that_moves_and_has_the_stream_to_itself_waits() -> None:
    lane = full_lane(entered_at=9.5, asked_at=9.99)
    assert offered(10.0, lane).waits(lane, 10.0, late=False)


def test_nobody_runs_dry_for_the_sake_of_a_full_lane() -> None:
    lane, dry = full_lane(entered_at=9.5, asked_at=9.99), make_lane(2)
    overflow = offered(10.0, lane, dry)
    assert not overflow.waits(lane, 10.0, late=False)
    dry.offer(make_delivery(7))
    assert overflow.waits(lane, 10.0, late=False), "it has work again, in the same turn"


def test_a_lane_without_traffic_for_seconds_is_not_waited_for() -> None:
    lane, dry = full_lane(entered_at=19.5, asked_at=19.99), make_lane(2)
    overflow = offered(10.0, lane, dry)
    overflow.offered(lane, 20.0)
    assert overflow.waits(lane, 20.0, late=False)


@pytest.mark.parametrize("late", [False, True])
def test_a_lane_that_gives_nothing_up_is_parked_after_the_hold(late: bool) -> None:
    lane = full_lane(entered_at=8.9, asked_at=8.9)
    assert not offered(10.0, lane).waits(lane, 10.0, late)


@pytest.mark.parametrize("late", [False, True])
def test_a_slow_lane_that_moves_is_parked_unless_it_is_we_who_are_slow(late: bool) -> None:
    lane = full_lane(entered_at=8.0, asked_at=9.95)
    assert offered(10.0, lane).waits(lane, 10.0, late) is late


def test_no_lane_holds_intake_for_longer_than_patience_however_late_we_are() -> None:
    lane = full_lane(entered_at=4.9, asked_at=9.99)
    assert not offered(10.0, lane).waits(lane, 10.0, late=True)


def hanging_lane(count: int, entered_at: float, asked_at: float) -> Lane:
    lane = make_lane(1_000)
    for offset in range(count):
        lane.offer(make_delivery(offset, 0, entered_at))
    lane.asked_at = asked_at
    lane.in_air = lane.allowed
    return lane


def test_a_lane_that_gives_nothing_up_takes_little_memory() -> None:
    overflow = Overflow(HOLD, PATIENCE)
    enough = make_lane(1).endpoint.concurrency
    assert overflow.stuck(hanging_lane(enough, 8.5, 8.6), 10.0)
    assert not overflow.stuck(hanging_lane(enough - 1, 8.5, 8.6), 10.0), "it has too little work"


def test_a_lane_that_moves_or_has_just_got_its_work_is_not_stuck() -> None:
    overflow = Overflow(HOLD, PATIENCE)
    assert not overflow.stuck(hanging_lane(500, 8.5, 9.5), 10.0)
    assert not overflow.stuck(hanging_lane(500, 10.0, float("-inf")), 10.0)


def test_a_lane_whose_batch_waits_to_fill_is_not_stuck() -> None:
    lane = hanging_lane(500, 8.5, 8.6)
    lane.in_air = 0
    assert not Overflow(HOLD, PATIENCE).stuck(lane, 10.0)


def test_a_lane_that_waits_for_a_slot_of_its_host_is_stuck() -> None:
    lane = hanging_lane(500, 8.5, 8.6)
    lane.in_air, lane.queued = 0, True
    assert Overflow(HOLD, PATIENCE).stuck(lane, 10.0)
