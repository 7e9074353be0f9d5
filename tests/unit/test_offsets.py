"""The window of a partition against a plain model: what is settled, and what a new claim does.

The model knows every offset by itself: which of them exist in the log (the others are gaps), and
which endpoints of each have settled. A claim that ends is followed by another one, built from the
last snapshot alone, as after a crash; it must want exactly what is not settled.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dispatcherd.delivery import Claim, Delivery
from dispatcherd.offsets import QUARANTINED, Progress, Window
from tests.unit.nouns import make_delivery

CLAIM = Claim("orders", 1, 0, 1, b"k" * 16)
_RANGE = re.compile(r"\[(\d+),(\d+)\)")


def ranges_of(progress: Progress) -> list[tuple[int, int]]:
    """As claims reads them back."""
    assert re.fullmatch(r"\{(\[\d+,\d+\)(,\[\d+,\d+\))*)?\}", progress.settled)
    return [(int(low), int(high)) for low, high in _RANGE.findall(progress.settled)]


def covered(ranges: Iterable[tuple[int, int]]) -> set[int]:
    return {offset for low, high in ranges for offset in range(low, high)}


def window_of(progress: Progress) -> Window:
    """What the next claim builds from what this one stored."""
    partial = {int(offset): ids for offset, ids in progress.partial.items()}
    return Window(CLAIM, progress.watermark, ranges_of(progress), partial)


def open_for(*endpoints: int) -> dict[int, Delivery | None]:
    return dict.fromkeys(endpoints)


# --- one claim at a time -------------------------------------------------------------------


def test_a_new_window_is_settled_up_to_its_watermark() -> None:
    window = Window(CLAIM, 100)
    assert (window.watermark, window.position, window.dirty) == (100, 100, False)
    assert not window.wanted(99)
    assert window.wanted(100)


def test_a_record_owed_to_one_endpoint_is_settled_by_that_one_alone() -> None:
    window = Window(CLAIM, 0)
    delivery = make_delivery(0, endpoint_id=7)
    window.add_single(0, delivery, 0.0, 10)
    assert window.records[0].deliveries() == [delivery]
    assert not window.settle(0, 8)
    assert (window.watermark, window.deliveries, window.bytes) == (0, 1, 10)
    assert window.settle(0, 7)
    assert not window.settle(0, 7)
    assert (window.watermark, window.deliveries, window.bytes) == (1, 0, 0)


def test_the_watermark_stays_below_the_oldest_open_delivery() -> None:
    window = Window(CLAIM, 0)
    for offset in range(3):
        window.add(offset, open_for(1, 2), 0.0, 10)
    for offset, endpoint in ((1, 1), (1, 2), (2, 1), (2, 2), (0, 1)):
        assert window.settle(offset, endpoint)
        assert window.watermark == 0
    assert window.settle(0, 2)
    assert window.watermark == 3
    assert (window.deliveries, window.bytes) == (0, 0)


def test_a_delivery_settles_once() -> None:
    window = Window(CLAIM, 0)
    window.add(0, open_for(1, 2), 0.0, 10)
    assert window.settle(0, 1)
    assert not window.settle(0, 1)
    assert not window.settle(0, 3)
    assert not window.settle(7, 1)
    assert (window.deliveries, window.bytes) == (1, 10)


def test_a_record_that_nobody_wants_is_settled_by_being_taken_in() -> None:
    window = Window(CLAIM, 0)
    window.add(0, {}, 0.0, 0)
    assert window.watermark == 1
    assert window.dirty


def test_a_gap_between_two_fetched_records_is_settled() -> None:
    window = Window(CLAIM, 0)
    window.add(3, open_for(1), 0.0, 1)
    window.add(9, open_for(1), 0.0, 1)
    progress = window.snapshot()
    assert progress.watermark == 3
    assert ranges_of(progress) == [(4, 9)]
    window.settle(3, 1)
    assert window.snapshot().watermark == 9


def test_what_was_skipped_is_settled_and_skipping_back_changes_nothing() -> None:
    window = Window(CLAIM, 0)
    window.add(0, open_for(1), 0.0, 1)
    window.skip_to(50)
    window.skip_to(20)
    assert window.position == 50
    assert not window.wanted(49)
    assert ranges_of(window.snapshot()) == [(1, 50)]
    window.settle(0, 1)
    assert window.watermark == 50


def test_a_record_is_not_taken_in_twice() -> None:
    window = Window(CLAIM, 0)
    window.add(5, open_for(1), 0.0, 1)
    assert not window.wanted(5)
    with pytest.raises(AssertionError):
        window.add(5, open_for(1), 0.0, 1)


def test_a_quarantined_record_is_open_until_its_row_is_durable() -> None:
    window = Window(CLAIM, 0)
    window.add(0, {QUARANTINED: None}, 0.0, 0)
    assert window.watermark == 0
    window.settle(0, QUARANTINED)
    assert window.watermark == 1


def test_what_an_earlier_claim_settled_further_on_is_kept_until_it_is_reached() -> None:
    window = Window(CLAIM, 10, [(12, 15), (20, 30)], {16: [1, 2], 31: [3]})
    progress = window.snapshot()
    assert (progress.watermark, ranges_of(progress)) == (10, [(12, 15), (20, 30)])
    assert progress.partial == {"16": [1, 2], "31": [3]}
    assert [offset for offset in range(9, 32) if window.wanted(offset)] == [
        10, 11, 15, 16, 17, 18, 19, 30, 31
    ]  # fmt: skip
    window.add(10, open_for(1), 0.0, 1)
    window.skip_to(25)
    progress = window.snapshot()
    assert (progress.watermark, ranges_of(progress)) == (10, [(11, 25), (25, 30)])
    assert progress.partial == {"31": [3]}


def test_endpoints_that_an_earlier_claim_settled_stay_in_the_list() -> None:
    window = Window(CLAIM, 0, [], {0: [7, 8]})
    assert window.settled_endpoints(0) == {7, 8}
    window.add(0, open_for(1, 2), 0.0, 1)
    assert window.snapshot().partial == {"0": [7, 8]}
    window.settle(0, 2)
    assert window.snapshot().partial == {"0": [2, 7, 8]}
    window.settle(0, 1)
    assert window.snapshot().partial == {}
    assert window.watermark == 1


def test_a_frozen_snapshot_does_not_change_with_the_window() -> None:
    window = Window(CLAIM, 0, [], {0: [9]})
    window.add(0, open_for(1, 2), 0.0, 1)
    window.settle(0, 1)
    progress = window.snapshot()
    window.settle(0, 2)
    window.add(1, open_for(1, 2), 0.0, 1)
    assert (progress.watermark, progress.settled, progress.partial) == (0, "{}", {"0": [1, 9]})


def test_lists_of_settled_endpoints_past_the_cap_are_named() -> None:
    window = Window(CLAIM, 0)
    for offset in range(3):
        window.add(offset, open_for(*range(1, 11)), 0.0, 1)
    for endpoint in range(1, 6):
        window.settle(1, endpoint)
    for endpoint in range(1, 5):
        window.settle(2, endpoint)
    assert window.over_cap(4) == [1]
    assert window.over_cap(3) == [1, 2]
    for endpoint in range(6, 11):
        window.settle(1, endpoint)
    assert window.over_cap(3) == [2]


def test_the_oldest_come_first_and_the_young_not_at_all() -> None:
    window = Window(CLAIM, 0)
    for offset in range(5):
        window.add(offset, open_for(1), float(offset), 1)
    window.settle(1, 1)
    assert [offset for offset, _ in window.oldest(entered_before=3.0)] == [0, 2]


def test_the_fingerprint_is_of_the_last_marked_record_below_the_watermark() -> None:
    window = Window(CLAIM, 0)
    for offset in range(10):
        window.add(offset, open_for(1), 0.0, 1)
        if offset % 3 == 0:
            window.mark(offset, b"%d" % offset)
    assert window.snapshot().fingerprint is None
    for offset in range(5):
        window.settle(offset, 1)
    progress = window.snapshot()
    assert (progress.watermark, progress.fingerprint_offset, progress.fingerprint) == (5, 3, b"3")
    assert window.snapshot().fingerprint is None  # stored before: nothing new to say
    for offset in range(5, 10):
        window.settle(offset, 1)
    assert window.snapshot().fingerprint_offset == 9


def test_marks_are_bounded_and_come_again_when_the_watermark_moves() -> None:
    window = Window(CLAIM, 0)
    for offset in range(1_000):
        window.add(offset, open_for(1), 0.0, 1)
        window.mark(offset, b"x")
    assert len(window.marks) <= 256
    for offset in range(1_000):
        window.settle(offset, 1)
    assert window.snapshot().fingerprint_offset == 255
    window.add(1_000, {}, 0.0, 1)
    window.mark(1_000, b"y")
    assert window.snapshot().fingerprint_offset == 1_000


# --- any history, over several claims ------------------------------------------------------

_routes = st.sets(st.integers(1, 4), max_size=4)


class WindowBesideModel(RuleBasedStateMachine):
    """A log with gaps, its records read in order, settled in any order, claims lost at any time,
    and registrations that change between two claims."""

    @initialize(
        gaps=st.lists(st.integers(1, 4), min_size=30, max_size=30),
        routes=st.lists(_routes, min_size=30, max_size=30),
        start=st.integers(0, 5),
    )
    def begin(self, gaps: list[int], routes: list[set[int]], start: int) -> None:
        offset = start - 1
        self.routes: dict[int, set[int]] = {}
        """Offset → the endpoints that want it now, for every record that exists."""
        for gap, endpoints in zip(gaps, routes, strict=True):
            offset += gap
            self.routes[offset] = endpoints
        self.offsets = list(self.routes)
        self.settled: dict[int, set[int]] = {offset: set() for offset in self.offsets}
        """The endpoints of each record that have settled, as this claim knows it."""
        self.finished: set[int] = set()
        """Records of which nothing is open."""
        self.window = Window(CLAIM, start)
        self.next = 0
        """Index of the next record that a fetch returns."""
        self.marks: list[tuple[int, bytes]] = []
        self.clock = 0.0
        self.stored = self.window.snapshot()
        self.keep()

    def keep(self) -> None:
        self.stored_settled = {offset: set(ids) for offset, ids in self.settled.items()}
        self.stored_finished = set(self.finished)

    @precondition(lambda self: self.next < len(self.offsets))
    @rule(mark=st.booleans())
    def fetch(self, mark: bool) -> None:
        offset = self.offsets[self.next]
        self.next += 1
        self.clock += 1
        wanted = self.window.wanted(offset)
        assert wanted == (offset not in self.finished)
        if not wanted:
            self.window.skip_to(offset + 1)
            return
        before = self.window.settled_endpoints(offset)
        assert before == self.settled[offset]
        left = self.routes[offset] - before
        if len(left) == 1 and not before:  # as intake does
            delivery = make_delivery(offset, endpoint_id=min(left))
            self.window.add_single(offset, delivery, self.clock, 10)
        else:
            self.window.add(offset, open_for(*left), self.clock, 10 * len(left))
        if not left:
            self.finished.add(offset)
        if mark:
            self.window.mark(offset, b"%d" % offset)
            self.marks.append((offset, b"%d" % offset))

    def open(self) -> list[tuple[int, int]]:
        return [
            (offset, endpoint)
            for offset in self.offsets[: self.next]
            if offset not in self.finished
            for endpoint in sorted(self.routes[offset] - self.settled[offset])
        ]

    @precondition(lambda self: self.open())
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        offset, endpoint = data.draw(st.sampled_from(self.open()))
        before = self.window.watermark
        assert not self.window.settle(offset, 99)  # nobody's
        assert self.window.settle(offset, endpoint)
        assert not self.window.settle(offset, endpoint)
        self.settled[offset].add(endpoint)
        if self.settled[offset] >= self.routes[offset]:
            self.finished.add(offset)
        assert self.window.watermark >= before

    @rule()
    def store(self) -> None:
        previous = self.stored.watermark
        self.stored = self.window.snapshot()
        assert not self.window.dirty
        assert self.stored.watermark >= previous
        self.keep()
        below = [mark for mark in self.marks if mark[0] < self.stored.watermark]
        self.marks = self.marks[len(below) :]
        seen = self.stored.fingerprint_offset, self.stored.fingerprint
        assert seen == (below[-1] if below else (None, None))

    @rule(changed=st.dictionaries(st.integers(0, 29), _routes, max_size=5))
    def crash_and_claim_again(self, changed: dict[int, set[int]]) -> None:
        """The next claim knows what was stored, and reads from the watermark on."""
        self.window = window_of(self.stored)
        self.settled = {offset: set(ids) for offset, ids in self.stored_settled.items()}
        self.finished = set(self.stored_finished)
        self.next = sum(offset < self.window.position for offset in self.offsets)
        self.marks = []
        for index, endpoints in changed.items():
            self.routes[self.offsets[index]] = endpoints

    @invariant()
    def the_watermark_is_contiguous(self) -> None:
        unsettled = [o for o in self.offsets[: self.next] if o not in self.finished]
        assert self.window.watermark == (unsettled[0] if unsettled else self.window.position)

    @invariant()
    def what_is_open_is_counted(self) -> None:
        assert self.window.deliveries == len(self.open())
        assert self.window.bytes <= 40 * len(self.window.records)
        assert list(self.window.records) == sorted({offset for offset, _ in self.open()})

    @invariant()
    def a_snapshot_says_exactly_what_is_settled(self) -> None:
        dirty, marks = self.window.dirty, self.window.marks.copy()
        progress = self.window.snapshot()
        self.window.dirty, self.window.marks = dirty, marks
        settled = covered(ranges_of(progress))
        assert all(offset >= progress.watermark for offset in settled)
        for offset in self.offsets:
            if offset < progress.watermark:
                assert offset in self.finished
                continue
            assert (offset in settled) == (offset in self.finished)
            listed = set(progress.partial.get(str(offset), []))
            assert listed == (set() if offset in self.finished else self.settled[offset])


TestWindowBesideModel = WindowBesideModel.TestCase
TestWindowBesideModel.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
