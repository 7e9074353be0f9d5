"""Any history of a lane against two plain lists: order, caps, and turns."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dispatcherd.delivery import Claim, Delivery
from tests.unit.nouns import CLAIM, make_delivery, make_lane

OTHER_CLAIM = Claim("orders", 1, 1, 1, b"k" * 16)
NEVER = float("inf")

_sizes = st.one_of(st.just(0), st.integers(0, 2_000), st.just(30_000))


class LaneBesideLists(RuleBasedStateMachine):
    """Offers only where there is room, as intake and paging do; two plain lists as the model."""

    @initialize(
        cap=st.integers(1, 12),
        cap_bytes=st.integers(1, 20_000),
        max_events=st.integers(1, 5),
        batch_bytes=st.integers(1, 5_000),
        wait=st.sampled_from([0.0, 5.0]),
    )
    def begin(
        self, cap: int, cap_bytes: int, max_events: int, batch_bytes: int, wait: float
    ) -> None:
        self.lane = make_lane(cap, cap_bytes, max_events, batch_bytes, wait)
        self.fresh: list[Delivery] = []
        self.due: list[Delivery] = []
        self.wheel: list[Delivery] = []
        self.now = 0.0
        self.passed_over = {True: 0, False: 0}
        """How often in a row a kind was ready and the other one was taken, by `owed`."""

    @rule(size=_sizes, other=st.booleans())
    def offer(self, size: int, other: bool) -> None:
        delivery = make_delivery(1, size, self.now, claim=OTHER_CLAIM if other else CLAIM)
        if self.lane.has_room(delivery.event.size):
            self.lane.offer(delivery)
            self.fresh.append(delivery)
        else:
            assert self.fresh

    @rule(size=_sizes, other=st.booleans(), waits=st.booleans())
    def page_in(self, size: int, other: bool, waits: bool) -> None:
        delivery = make_delivery(1, size, self.now, True, OTHER_CLAIM if other else CLAIM)
        if self.lane.due_room() <= 0:
            return
        if waits:
            self.lane.waiting += 1
            self.wheel.append(delivery)
        else:
            self.lane.offer_due(delivery)
            self.due.append(delivery)

    @precondition(lambda self: self.wheel)
    @rule()
    def fire(self) -> None:
        delivery = self.wheel.pop(0)
        self.lane.waiting -= 1
        self.lane.offer_due(delivery)
        self.due.append(delivery)

    @rule(at=st.sampled_from([NEVER, 0.0]))
    def learn_of_rows_in_postgres(self, at: float) -> None:
        self.lane.next_due = at

    @rule(seconds=st.floats(0, 10))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(back=st.booleans())
    def take(self, back: bool) -> None:
        at = self.lane.ready_at(self.now)
        ready = at is not None and at <= self.now
        batch = self.lane.take(self.now)
        assert bool(batch) == ready
        if not batch:
            return
        owed = batch[0].owed
        queue = self.due if owed else self.fresh
        assert batch == queue[: len(batch)]
        assert len(batch) <= self.lane.endpoint.batch.max_events
        if back:
            self.lane.put_back(batch)
            return
        del queue[: len(batch)]
        self.passed_over[owed] = 0
        if not owed and self.due:
            self.passed_over[True] += 1
            assert self.passed_over[True] <= 1

    @precondition(lambda self: self.fresh or self.due)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        delivery = data.draw(st.sampled_from(self.fresh + self.due))
        assert self.lane.remove(delivery)
        (self.due if delivery.owed else self.fresh).remove(delivery)

    @rule()
    def withdraw(self) -> None:
        taken = self.lane.withdraw({OTHER_CLAIM})
        assert taken == [d for d in self.due + self.fresh if d.event.claim is OTHER_CLAIM]
        self.due = [d for d in self.due if d.event.claim is CLAIM]
        self.fresh = [d for d in self.fresh if d.event.claim is CLAIM]

    @invariant()
    def it_holds_what_was_offered_in_order(self) -> None:
        assert (list(self.lane.fresh), list(self.lane.due)) == (self.fresh, self.due)
        assert self.lane.fresh_bytes == sum(d.event.size for d in self.fresh)
        assert self.lane.due_bytes == sum(d.event.size for d in self.due)

    @invariant()
    def it_stays_within_its_caps(self) -> None:
        lane, most = self.lane, max(2, self.lane.max_deliveries)
        assert len(lane) + lane.waiting <= most
        assert len(lane.due) + lane.waiting <= max(1, lane.max_deliveries // 2)
        if len(self.fresh) > 1:
            assert lane.fresh_bytes <= lane.max_bytes


TestLaneBesideLists = LaneBesideLists.TestCase
TestLaneBesideLists.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
