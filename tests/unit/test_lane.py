"""One endpoint's queue: its caps, what makes a batch, and that neither kind starves the other."""

from __future__ import annotations

import pytest

from dispatcherd.batch import encode
from dispatcherd.delivery import ANY_COMPANY, Claim, Delivery, Shape, Stage
from dispatcherd.lane import Lane
from tests.unit.nouns import BIG, make_delivery, make_event, make_lane

OTHER_CLAIM = Claim("orders", 1, 1, 1, b"k" * 16)


def fill(lane: Lane, count: int, entered_at: float = 0.0, size: int = 0) -> list[Delivery]:
    made = [make_delivery(offset, size, entered_at) for offset in range(count)]
    for delivery in made:
        lane.offer(delivery)
    return made


def fill_due(lane: Lane, count: int, size: int = 0) -> list[Delivery]:
    made = [make_delivery(1_000 + offset, size, owed=True) for offset in range(count)]
    for delivery in made:
        lane.offer_due(delivery)
    return made


# --- room ----------------------------------------------------------------------------------


def test_fresh_deliveries_may_fill_the_lane_while_nothing_is_owed() -> None:
    lane = make_lane(10)
    fill(lane, 9)
    assert lane.has_room(0)
    fill(lane, 1)
    assert not lane.has_room(0)


@pytest.mark.parametrize("where", ["queued", "in Postgres"])
def test_half_of_the_lane_is_kept_for_due_rows_while_any_are_owed(where: str) -> None:
    lane = make_lane(10)
    if where == "queued":
        fill_due(lane, 1)
    else:
        lane.next_due = 1_000.0
    fill(lane, 4)
    assert lane.has_room(0)
    fill(lane, 1)
    assert not lane.has_room(0)
    assert lane.due_room() >= 4
    assert lane.due_room() + len(lane.due) == 5


def test_due_rows_take_half_of_the_lane_at_most() -> None:
    lane = make_lane(10)
    fill_due(lane, 3)
    lane.waiting = 1
    assert lane.due_room() == 1
    fill_due(lane, 1)
    assert lane.due_room() == 0


def test_a_lane_full_of_fresh_deliveries_takes_due_rows_as_it_empties() -> None:
    lane = make_lane(10)
    fill(lane, 10)
    lane.next_due = 0.0
    rooms = []
    while lane.fresh:
        rooms.append(lane.due_room())
        lane.take(1.0)
    assert rooms == [0, 1, 2, 3, 4, 5, 5, 5, 5, 5]


def test_retries_on_the_wheel_count_as_long_as_they_wait_there() -> None:
    lane = make_lane(10)
    lane.waiting = 3
    fill(lane, 7)
    assert not lane.has_room(0)


def test_the_smallest_lane_holds_one_of_each_kind() -> None:
    lane = make_lane(1)
    lane.next_due = 0.0
    fill(lane, 1)
    assert not lane.has_room(0)
    assert lane.due_room() == 1
    fill_due(lane, 1)
    assert lane.due_room() == 0


def test_the_cap_in_bytes_holds_for_fresh_deliveries() -> None:
    size = make_delivery(size=744).event.size  # 1,000
    lane = make_lane(1_000, max_bytes=10 * size)
    fill(lane, 9, size=744)
    assert lane.has_room(size)
    assert not lane.has_room(size + 1)
    fill(lane, 1, size=744)
    assert not lane.has_room(1)


def test_half_of_the_bytes_is_kept_for_due_rows_while_any_are_owed() -> None:
    lane = make_lane(1_000, max_bytes=10_000)
    lane.next_due = 0.0
    fill(lane, 5, size=744)
    assert not lane.has_room(1)
    taken = 0
    while lane.due_room():
        fill_due(lane, 1, size=744)
        taken += 1
    assert taken == 5


def test_due_rows_take_half_of_the_bytes_at_most() -> None:
    lane = make_lane(1_000, max_bytes=10_000)
    for _ in range(5):
        assert lane.due_room()
        fill_due(lane, 1, size=744)
    assert not lane.due_room()


def test_a_lane_whose_bytes_are_taken_by_fresh_deliveries_takes_one_due_row() -> None:
    lane = make_lane(1_000, max_bytes=10_000)
    fill(lane, 10, size=744)
    assert lane.due_room()
    fill_due(lane, 1, size=744)
    assert not lane.due_room()


def test_a_lane_whose_bytes_are_taken_by_due_rows_takes_one_fresh_delivery() -> None:
    lane = make_lane(1_000, max_bytes=10_000)
    fill_due(lane, 1, size=9_000)
    assert lane.has_room(1_000)
    fill(lane, 1, size=744)
    assert not lane.has_room(1_000)


def test_an_event_larger_than_the_lane_is_taken_when_no_other_of_its_kind_is_there() -> None:
    lane = make_lane(10, max_bytes=1_000)
    assert lane.has_room(BIG)
    fill(lane, 1, size=5_000)
    assert not lane.has_room(1)
    assert lane.due_room() > 0
    fill_due(lane, 1, size=5_000)
    assert lane.due_room() == 0


def test_headers_count_as_bytes() -> None:
    event = make_event(headers=(("trace", b"x" * 16_000),))
    assert event.size > 16_000


# --- batches -------------------------------------------------------------------------------


def test_an_endpoint_without_batches_gets_one_delivery_at_once() -> None:
    lane = make_lane()
    first, second = fill(lane, 2, entered_at=5.0)
    assert lane.ready_at(5.0) == 5.0
    assert lane.take(5.0) == [first]
    assert first.stage is Stage.AIR
    assert lane.take(5.0) == [second]
    assert lane.take(5.0) == []
    assert lane.ready_at(5.0) is None


def test_a_batch_is_taken_when_it_is_full() -> None:
    lane = make_lane(max_events=3, wait=60.0)
    made = fill(lane, 2, entered_at=10.0)
    assert lane.ready_at(11.0) == 70.0
    assert lane.take(11.0) == []
    made += fill(lane, 2, entered_at=10.0)
    assert lane.ready_at(11.0) == 11.0
    assert lane.take(11.0) == made[:3]
    assert lane.take(11.0) == []


def test_a_batch_is_taken_when_its_oldest_has_waited() -> None:
    lane = make_lane(max_events=100, wait=2.0)
    made = fill(lane, 1, entered_at=10.0) + fill(lane, 1, entered_at=11.9)
    assert lane.take(11.99) == []
    assert lane.ready_at(11.99) == 12.0
    assert lane.take(12.0) == made


def test_a_batch_is_taken_when_its_bytes_are_full_and_does_not_exceed_them() -> None:
    lane = make_lane(1_000, max_events=100, batch_bytes=10_000, wait=60.0)
    made = fill(lane, 5, size=1_000)
    assert lane.take(1.0) == []
    made += fill(lane, 10, size=1_000)
    batch = lane.take(1.0)
    assert 1 < len(batch) < 10
    assert batch == made[: len(batch)]
    assert len(encode([d.event for d in batch])) <= 10_000


@pytest.mark.parametrize("shape", list(Shape))
def test_an_array_is_never_longer_than_its_cap_whatever_the_ids(shape: Shape) -> None:
    lane = make_lane(1_000, max_events=1_000, batch_bytes=20_000)
    for offset in range(200):
        event = make_event(offset, b'{"type":"x"}', id_="i" * 256, shape=shape)
        event.type, event.version, event.timestamp = "t" * 128, "v" * 32, '"' * 64
        lane.offer(Delivery(event, 1, 0.0))
    while batch := lane.take(1.0):
        assert len(encode([d.event for d in batch])) <= 20_000


def test_a_delivery_larger_than_a_batch_goes_alone() -> None:
    lane = make_lane(max_events=10, batch_bytes=1_000)
    made = fill(lane, 1, size=5_000) + fill(lane, 1, size=5_000)
    assert lane.take(1.0) == made[:1]
    assert lane.take(1.0) == made[1:]


def test_due_rows_do_not_wait_for_a_batch_to_fill() -> None:
    lane = make_lane(max_events=10, wait=60.0)
    made = fill_due(lane, 2)
    assert lane.ready_at(1.0) == 1.0
    assert lane.take(1.0) == made


def test_who_may_share_with_few_is_in_no_larger_batch() -> None:
    lane = make_lane(max_events=10)
    made = fill_due(lane, 9)
    for delivery, company in zip(
        made, (ANY_COMPANY, 4, 4, 4, 1, 2, 2, 2, ANY_COMPANY), strict=True
    ):
        delivery.company = company
    taken = [lane.take(1.0) for _ in range(4)]
    assert taken == [made[:4], made[4:5], made[5:7], made[7:9]]


def test_a_batch_is_of_one_kind() -> None:
    lane = make_lane(max_events=10)
    fresh, due = fill(lane, 2), fill_due(lane, 2)
    assert [lane.take(1.0), lane.take(1.0), lane.take(1.0)] == [due, fresh, []]


# --- fairness ------------------------------------------------------------------------------


def test_due_and_fresh_take_turns_while_both_are_there() -> None:
    lane = make_lane(20)
    fill(lane, 5)
    fill_due(lane, 5)
    kinds = [lane.take(1.0)[0].owed for _ in range(10)]
    assert kinds == [True, False] * 5


def test_fresh_deliveries_that_wait_for_their_batch_do_not_hold_due_ones_up() -> None:
    lane = make_lane(max_events=3, wait=60.0)
    fill(lane, 2)
    due = fill_due(lane, 4)
    assert [lane.take(1.0), lane.take(1.0)] == [due[:3], due[3:]]
    assert lane.take(1.0) == []


@pytest.mark.parametrize("full", ["count", "bytes"])
def test_a_full_batch_of_fresh_ones_is_not_starved_by_due_rows(full: str) -> None:
    lane = make_lane(100, max_events=3, wait=60.0, batch_bytes=BIG if full == "count" else 2_000)
    fresh = fill(lane, 3 if full == "count" else 2, size=0 if full == "count" else 1_000)
    for _ in range(2):
        fill_due(lane, 3)
        if lane.take(1.0)[0] is fresh[0]:
            return
    raise AssertionError("two batches in a row were of due rows")


# --- taking back, taking out ---------------------------------------------------------------


@pytest.mark.parametrize("kind", ["fresh", "due"])
def test_a_batch_that_was_put_back_is_the_next_again(kind: str) -> None:
    lane = make_lane(max_events=2)
    fill(lane, 4)
    fill_due(lane, 4)
    if kind == "fresh":
        lane.take(1.0)
    batch = lane.take(1.0)
    before = len(lane)
    for _ in range(3):
        lane.put_back(batch)
        assert [d.stage for d in batch] == [Stage.QUEUED] * 2
        assert lane.take(1.0) == batch
    assert len(lane) == before


def test_withdrawing_claims_takes_theirs_in_order_and_nothing_else() -> None:
    lane = make_lane(20)
    mine = [make_delivery(n, 100, claim=OTHER_CLAIM, owed=n < 2) for n in range(4)]
    rest = fill(lane, 2, size=50) + fill_due(lane, 1)
    for delivery in mine:
        (lane.offer_due if delivery.owed else lane.offer)(delivery)
    rest += [make_delivery(77)]
    lane.offer(rest[-1])
    assert lane.withdraw({OTHER_CLAIM}) == mine
    assert {*lane.fresh, *lane.due} == set(rest)
    assert lane.withdraw({OTHER_CLAIM}) == []


def test_a_delivery_is_removed_once() -> None:
    lane = make_lane()
    first, second = fill(lane, 2, size=10)
    assert lane.remove(first)
    assert not lane.remove(first)
    assert lane.take(1.0) == [second]
    assert (lane.fresh_bytes, lane.due_bytes) == (0, 0)


def test_the_age_of_the_head_is_that_of_the_oldest_fresh_delivery() -> None:
    lane = make_lane()
    assert lane.head_age(7.0) == 0.0
    fill_due(lane, 1)
    assert lane.head_age(7.0) == 0.0
    fill(lane, 1, entered_at=2.0)
    fill(lane, 1, entered_at=5.0)
    assert lane.head_age(7.0) == 5.0
