"""What was put is waiting, taken, done or dead, and never less; places and bytes are bounded."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dispatcherd.receiver import Backlog, BacklogFull
from dispatcherd.receiver.backlog import Job
from dispatcherd.receiver.event import Event


@dataclass
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def backlog(tmp_path: Path, clock: Clock) -> Iterator[Backlog]:
    one = Backlog(tmp_path / "b.db", max_items=5, max_bytes=1_000, retention_seconds=50, now=clock)
    yield one
    one.close()


def event(id_: str, body: bytes = b'{"type": "a.b", "data": [1]}') -> Event:
    return Event(id_, "a.b", "2", "T", body, None, 3)


def take(backlog: Backlog, lease_seconds: float = 10.0) -> Job:
    job = backlog.take(lease_seconds)
    assert job is not None
    return job


def test_an_event_comes_back_as_it_went_in(backlog: Backlog) -> None:
    assert backlog.put([event("e1")]) == [True]
    job = take(backlog)
    one = job.event
    assert (one.id, one.type, one.version, one.timestamp, one.attempt) == ("e1", "a.b", "2", "T", 3)
    assert (one.body, one.data, job.attempts) == (event("x").body, [1], 1)


def test_the_commits_of_a_put_reach_the_disk_before_it_returns(backlog: Backlog) -> None:
    backlog.put([event("e1")])
    backlog.take(1)
    modes = {name: db.execute("PRAGMA synchronous").fetchone()[0]
             for name, db in backlog._connections.items()}  # fmt: skip
    assert modes == {"FULL": 2, "NORMAL": 1}


def test_an_id_is_taken_once_while_it_is_here_and_while_it_is_remembered(
    backlog: Backlog, clock: Clock
) -> None:
    assert backlog.put([event("e1"), event("e2"), event("e1")]) == [True, True, False]
    assert backlog.put([event("e1")]) == [False]
    backlog.done(take(backlog))
    assert backlog.put([event("e1"), event("e2")]) == [False, False]
    clock.now += 51
    assert backlog.put([event("e1")]) == [True]


def test_what_does_not_fit_is_refused_whole(backlog: Backlog) -> None:
    backlog.put([event(f"e{n}") for n in range(4)])
    with pytest.raises(BacklogFull, match="4 of 5 events"):
        backlog.put([event("e4"), event("e5")])
    assert backlog.depth().items == 4
    assert backlog.put([event("e4")]) == [True]
    assert backlog.put([event("e1")]) == [False]  # full, and yet it knows this one
    for _ in range(5):
        backlog.done(take(backlog))
    with pytest.raises(BacklogFull, match="of 1000 bytes"):
        backlog.put([event("big", b"x" * 1_001)])


def test_a_repeat_is_recognised_even_by_a_backlog_that_is_over_full(tmp_path: Path) -> None:
    Backlog(tmp_path / "b.db").put([event("e1"), event("e2")])
    smaller = Backlog(tmp_path / "b.db", max_items=1)
    assert smaller.put([event("e1")]) == [False]
    with pytest.raises(BacklogFull, match="2 of 1 events"):
        smaller.put([event("e3")])


def test_a_job_is_one_workers_until_its_lease_ends(backlog: Backlog, clock: Clock) -> None:
    backlog.put([event("e1")])
    first = take(backlog)
    assert backlog.take(10) is None
    clock.now += 10
    second = take(backlog)
    assert (second.event.id, second.attempts) == ("e1", 2)
    # The first worker was only slow: what it says counts no more.
    assert not backlog.done(first)
    assert not backlog.retry(first, 0, "x")
    assert not backlog.bury(first, "x")
    assert backlog.done(second)


def test_a_retry_waits_for_its_time(backlog: Backlog, clock: Clock) -> None:
    backlog.put([event("e1")])
    backlog.retry(take(backlog), 30, "ValueError('x')")
    assert backlog.take(10) is None
    assert backlog.next_due() == 30
    clock.now += 30
    assert backlog.next_due() == 0
    job = take(backlog)
    assert (job.attempts, job.error) == (2, "ValueError('x')")


def test_what_was_given_back_is_next_and_its_attempt_does_not_count(backlog: Backlog) -> None:
    backlog.put([event("e1")])
    backlog.put([event("e2")])
    backlog.give_back(take(backlog))
    job = take(backlog)
    assert (job.event.id, job.attempts) == ("e1", 1)


def test_the_dead_keep_their_place_until_someone_decides(backlog: Backlog) -> None:
    backlog.put([event("e1"), event("e2"), event("e3")])
    for _ in range(3):
        backlog.bury(take(backlog), "x" * 10_000)
    assert (backlog.depth().items, backlog.depth().dead) == (3, 3)
    assert [len(job.error) for job in backlog.dead()] == [500] * 3
    assert backlog.take(10) is None
    assert backlog.revive("e1") and not backlog.revive("e1")
    assert backlog.discard("e2") and not backlog.discard("e2") and not backlog.discard("e1")
    assert backlog.put([event("e3")]) == [True]  # the sender sends a dead one again: taken anew
    assert (backlog.depth().items, backlog.depth().dead) == (2, 0)
    assert {take(backlog).event.id, take(backlog).event.id} == {"e1", "e3"}


def test_lag_is_how_long_the_first_ready_job_has_waited(backlog: Backlog, clock: Clock) -> None:
    assert backlog.depth().lag_seconds == 0
    backlog.put([event("e1")])
    clock.now += 7
    assert backlog.depth().lag_seconds == 7
    backlog.retry(take(backlog), 100, "")
    assert backlog.depth().lag_seconds == 0


def test_ids_that_are_done_are_bounded(tmp_path: Path, clock: Clock) -> None:
    backlog = Backlog(tmp_path / "b.db", max_done_ids=10, now=clock)
    for n in range(600):
        backlog.put([event(f"e{n}")])
        backlog.done(take(backlog))
        clock.now += 0.001
    count = sqlite3.connect(tmp_path / "b.db").execute("SELECT count(*) FROM jobs").fetchone()[0]
    assert count <= 10 + 250
    assert backlog.put([event("e599"), event("e0")]) == [False, True]
    backlog.close()


def test_two_processes_worth_of_connections_share_a_file(tmp_path: Path) -> None:
    one, other = Backlog(tmp_path / "b.db"), Backlog(tmp_path / "b.db")
    one.put([event("e1")])
    assert other.put([event("e1")]) == [False]
    assert take(other).event.id == "e1"
    assert one.take(10) is None
    one.close()
    other.close()


def test_a_forked_child_uses_connections_of_its_own(backlog: Backlog) -> None:
    backlog.put([event("e1")])
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if backlog.put([event("e2")]) == [True] and take(backlog) else 1
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert take(backlog).event.id == "e2"


class Model(RuleBasedStateMachine):
    """The backlog against a dict."""

    @initialize()
    def start(self) -> None:
        self.clock = Clock()
        self.backlog = Backlog(":memory:", max_items=4, retention_seconds=20, now=self.clock)
        # Both connections of a file in memory must be one.
        self.backlog._connections["FULL"] = self.backlog._connections["NORMAL"]
        self.open: dict[str, tuple[float, int]] = {}  # id → (due, attempts)
        self.done: dict[str, float] = {}
        self.dead: set[str] = set()
        self.jobs: dict[str, Job] = {}

    @rule(ids=st.lists(st.sampled_from("abcdef"), min_size=1, max_size=3))
    def put(self, ids: list[str]) -> None:
        now = self.clock.now
        new = []
        for id_ in ids:
            known = id_ in self.open or self.done.get(id_, 0) > now or id_ in new
            new.append(id_ if not known else "")
        fresh = {id_ for id_ in new if id_}
        if fresh and len(self.open) + len(self.dead - fresh) + len(fresh) > 4:
            with pytest.raises(BacklogFull):
                self.backlog.put([event(id_) for id_ in ids])
            return
        assert self.backlog.put([event(id_) for id_ in ids]) == [bool(id_) for id_ in new]
        self.dead -= fresh
        self.open |= dict.fromkeys(fresh, (now, 0))

    @rule(lease=st.integers(1, 10))
    def take(self, lease: int) -> None:
        now = self.clock.now
        ready = {id_ for id_, (due, _) in self.open.items() if due <= now}
        job = self.backlog.take(lease)
        assert (job is not None) == bool(ready)
        if job is not None:
            id_ = job.event.id
            assert self.open[id_][0] == min(self.open[r][0] for r in ready)
            assert job.attempts == self.open[id_][1] + 1
            self.open[id_] = (now + lease, job.attempts)
            self.jobs[id_] = job

    @rule(id_=st.sampled_from("abcdef"), way=st.sampled_from(["done", "retry", "bury"]))
    def settle(self, id_: str, way: str) -> None:
        job = self.jobs.pop(id_, None)
        if job is None:
            return
        if way == "done":
            assert self.backlog.done(job)
            self.done[id_] = self.clock.now + 20
        elif way == "retry":
            assert self.backlog.retry(job, 5, "")
            self.open[id_] = (self.clock.now + 5, job.attempts)
            return
        else:
            assert self.backlog.bury(job, "")
            self.dead.add(id_)
        del self.open[id_]

    @rule(id_=st.sampled_from("abcdef"), revive=st.booleans())
    def decide(self, id_: str, revive: bool) -> None:
        ask = self.backlog.revive if revive else self.backlog.discard
        assert ask(id_) == (id_ in self.dead)
        if id_ in self.dead:
            self.dead.discard(id_)
            if revive:
                self.open[id_] = (self.clock.now, 0)

    @rule(seconds=st.integers(1, 12))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @invariant()
    def counts_agree(self) -> None:
        depth = self.backlog.depth()
        assert (depth.items, depth.dead) == (len(self.open) + len(self.dead), len(self.dead))

    def teardown(self) -> None:
        self.backlog.close()


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
