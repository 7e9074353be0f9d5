"""The memory that all lanes share: bounded, fair, and never empty for who has nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dispatcherd.budget import SharedBudget

PLENTY = 1 << 40


def fill(budget: SharedBudget, lanes: int, size: int = 1) -> list[int]:
    """Every lane takes what it may, by turns, until none may take more."""
    held = [0] * lanes
    moved = True
    while moved:
        moved = False
        for lane in range(lanes):
            if budget.fits(held[lane], held[lane] * size, size):
                budget.take(size)
                held[lane] += 1
                moved = True
    return held


def test_one_lane_alone_gets_half() -> None:
    assert fill(SharedBudget(100, PLENTY), 1) == [50]


def test_many_lanes_get_the_same_and_leave_as_much_for_the_next_one() -> None:
    budget = SharedBudget(20_000, PLENTY)
    held = fill(budget, 1_000)
    assert max(held) - min(held) <= 1
    assert 18 <= min(held) <= 20
    assert budget.fits(0, 0, 1)


def test_more_lanes_than_places_get_one_each_as_far_as_it_goes() -> None:
    assert sum(fill(SharedBudget(10, PLENTY), 50)) == 10


def test_a_single_delivery_larger_than_the_budget_is_taken_alone() -> None:
    budget = SharedBudget(10, 1_000)
    assert budget.fits(0, 0, 5_000)
    budget.take(5_000)
    assert not budget.fits(0, 0, 1)


@given(
    st.integers(1, 50),
    st.integers(1, 5_000),
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 900), st.booleans()), max_size=300),
)
def test_the_budget_is_exceeded_by_one_delivery_at_most(
    most: int, most_bytes: int, steps: list[tuple[int, int, bool]]
) -> None:
    budget = SharedBudget(most, most_bytes)
    lanes: list[list[int]] = [[] for _ in range(10)]
    for lane, size, leaves in steps:
        held = lanes[lane]
        if leaves and held:
            budget.held -= 1
            budget.held_bytes -= held.pop()
        elif budget.fits(len(held), sum(held), size):
            count, _ = budget.room(len(held), sum(held))
            assert count >= 1
            held.append(size)
            budget.take(size)
        assert budget.held == sum(map(len, lanes)) <= most
        assert budget.held_bytes < most_bytes + 900
        if not budget.held:
            assert budget.fits(0, 0, 900), "nothing is held, and nothing may be taken"
