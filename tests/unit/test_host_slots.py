"""Slots per host and in all: never too many, nobody waits beside a free one, first come first."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dispatcherd.slots import HostSlots


class Lane:
    """Takes what it wants as a lane does: as often as it can, and again when it is called."""

    def __init__(self, slots: HostSlots, host: str, wanted: int, calls: list[Lane]) -> None:
        self.slots = slots
        self.host = host
        self.wanted = wanted
        """How many slots it would use now; a lane may have lost its work while it waited."""
        self.held = 0
        self.returns = False
        """It gives back at once what it takes, as a lane whose outcomes cannot be recorded."""
        self.waits_since: int | None = None
        self.calls = calls
        self.on_call: Callable[[Lane], None] = lambda lane: None

    def poke(self) -> None:
        while self.wanted:
            if not self.slots.take(self.host, self.called):
                if self.waits_since is None:
                    self.waits_since = len(self.calls) + 1
                    self.calls.append(self)
                return
            if self.returns:
                self.wanted = 0
                self.slots.give(self.host)
                return
            self.wanted -= 1
            self.held += 1

    def called(self) -> None:
        self.on_call(self)
        self.waits_since = None
        self.poke()

    def give(self) -> None:
        self.held -= 1
        self.slots.give(self.host)


def lanes_of(slots: HostSlots, *hosts: str, wanted: int = 1) -> list[Lane]:
    calls: list[Lane] = []
    return [Lane(slots, host, wanted, calls) for host in hosts]


def test_a_host_has_its_limit_and_no_more() -> None:
    slots = HostSlots(limit=2, total=10)
    lanes = lanes_of(slots, "a", "a", "a", "b")
    for lane in lanes:
        lane.poke()
    assert [lane.held for lane in lanes] == [1, 1, 0, 1]
    assert slots.contended("a")
    assert not slots.contended("b")
    lanes[0].give()
    assert [lane.held for lane in lanes] == [0, 1, 1, 1]
    assert not slots.contended("a")


def test_those_who_wait_for_a_host_are_served_in_the_order_in_which_they_came() -> None:
    slots = HostSlots(limit=1, total=10)
    lanes = lanes_of(slots, *"aaaa")
    for index in (0, 2, 1, 3):
        lanes[index].poke()
        lanes[index].poke()  # asking again gains nothing
    served = []
    for _ in range(4):
        (holder,) = [lane for lane in lanes if lane.held]
        served.append(lanes.index(holder))
        holder.give()
    assert served == [0, 2, 1, 3]


def test_a_slot_that_the_first_one_called_does_not_want_goes_to_the_next() -> None:
    slots = HostSlots(limit=1, total=10)
    lanes = lanes_of(slots, *"aaa")
    for lane in lanes:
        lane.poke()
    lanes[1].wanted = 0
    lanes[0].give()
    assert [lane.held for lane in lanes] == [0, 0, 1]


def test_a_free_slot_reaches_the_next_host_when_the_first_ones_host_is_full() -> None:
    slots = HostSlots(limit=1, total=2)
    first, full, other, last = lanes_of(slots, "a", "b", "b", "c")
    for lane in (first, full, other, last):
        lane.poke()
    first.give()
    assert (other.held, last.held) == (0, 1)


def test_a_busy_host_does_not_keep_the_last_slots_for_itself() -> None:
    slots = HostSlots(limit=2, total=2)
    (busy,) = lanes_of(slots, "a", wanted=1_000)
    (other,) = lanes_of(slots, "b")
    busy.poke()
    other.poke()
    busy.give()  # its own next one came before
    assert (busy.held, other.held) == (2, 0)
    busy.give()
    assert (busy.held, other.held) == (1, 1)
    other.give()
    assert busy.held == 2


def test_who_waits_for_a_host_is_called_when_only_the_total_stood_in_the_way() -> None:
    slots = HostSlots(limit=1, total=1)
    first, other, again = lanes_of(slots, "a", "b", "a")
    for lane in (first, other, again):
        lane.poke()
    first.give()
    assert (other.held, again.held) == (1, 0)
    other.give()  # nothing of host a is under way that could end
    assert again.held == 1


def test_a_thousand_who_give_back_at_once_do_not_nest() -> None:
    slots = HostSlots(limit=1, total=10)
    first, *rest = lanes_of(slots, *"a" * 5_000)
    for lane in (first, *rest):
        lane.poke()
    for lane in rest:
        lane.returns = True
    first.give()
    assert all(lane.waits_since is None for lane in rest)
    assert not slots.contended("a")


def test_what_is_kept_of_those_who_wait_is_bounded_by_their_number() -> None:
    slots = HostSlots(limit=1, total=2)
    lanes = lanes_of(slots, *"aabbccdd", wanted=10_000)
    for lane in lanes:
        lane.poke()
    for _ in range(5_000):
        next(lane for lane in lanes if lane.held).give()
    assert len(slots._heads) + len(slots._listed) + len(slots._waiting) <= 3 * len(lanes)


class SlotsBesideModel(RuleBasedStateMachine):
    """Lanes of a few hosts that want, take, give, lose their work, and fail to use a slot."""

    @initialize(limit=st.integers(1, 3), total=st.integers(1, 5), hosts=st.text("abc", min_size=8))
    def begin(self, limit: int, total: int, hosts: str) -> None:
        self.limit, self.total = limit, total
        self.slots = HostSlots(limit, total)
        self.lanes = lanes_of(self.slots, *hosts[:8], wanted=0)
        for lane in self.lanes:
            lane.on_call = self.called

    def called(self, lane: Lane) -> None:
        """Nobody who may have a slot has waited longer than the one who is called."""
        assert lane.waits_since is not None
        assert self.may_have(lane)
        for other in self.lanes:
            if other.waits_since is not None and self.may_have(other):
                assert lane.waits_since <= other.waits_since

    def taken(self, host: str) -> int:
        return sum(lane.held for lane in self.lanes if lane.host == host)

    def may_have(self, lane: Lane) -> bool:
        everything = sum(lane.held for lane in self.lanes)
        return self.taken(lane.host) < self.limit and everything < self.total

    @rule(index=st.integers(0, 7), wanted=st.integers(1, 3), returns=st.booleans())
    def want(self, index: int, wanted: int, returns: bool) -> None:
        self.lanes[index].wanted = wanted
        self.lanes[index].returns = returns
        self.lanes[index].poke()

    @rule(index=st.integers(0, 7))
    def lose_work(self, index: int) -> None:
        self.lanes[index].wanted = 0

    @precondition(lambda self: any(lane.held for lane in self.lanes))
    @rule(data=st.data())
    def give(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from([lane for lane in self.lanes if lane.held])).give()

    @invariant()
    def the_limits_hold(self) -> None:
        assert sum(lane.held for lane in self.lanes) <= self.total
        for host in "abc":
            assert self.taken(host) <= self.limit

    @invariant()
    def nobody_waits_beside_a_free_slot(self) -> None:
        for lane in self.lanes:
            if lane.waits_since is not None:
                assert not self.may_have(lane)
                assert self.slots.contended(lane.host)


TestSlotsBesideModel = SlotsBesideModel.TestCase
TestSlotsBesideModel.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
