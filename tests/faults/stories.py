"""Faults that need more than a stroke: a story from its beginning to its end, with its own figures.

What a story itself has to show is asserted here, by conditions; the promises are the checker's.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from tests.faults.gathering import read_journal
from tests.faults.ledger import Arrival
from tests.faults.stand import Setting, Stand
from tests.rig.waiting import wait_for

_NEWCOMER = "newcomer"

# --- row 10 ------------------------------------------------------------------------------------

_POST_SECONDS = 30.0
SLOW = Setting(timeout_seconds=45.0, rebalance_seconds=60.0)
"""The group would wait for whoever waited for a POST."""


def revoked_while_slow(stand: Stand, chance: random.Random, end: float) -> None:
    """POSTs to one receiver take 30 s. A member joins while some are in the air: it has to get its
    partitions and to deliver of them before any of these is answered."""
    stand.receivers.manner("moody", "slow", seconds=_POST_SECONDS)
    longest = 0.0
    while time.monotonic() < end and not stand.broken:
        longest = max(longest, _joins(stand))
        stand.wait_work()
    stand.figures["s from a member's start to its first delivery, at most"] = longest


def _joins(stand: Stand) -> float:
    """Seconds from a member's start to its first delivery; then it leaves."""
    wait_for(lambda: len(_in_the_air(stand)) >= 10, 60, "POSTs in the air")
    joined = time.time()
    with stand.fault("joins while POSTs take 30 s", "member", _NEWCOMER):
        stand.members[_NEWCOMER].start(wait=False)
        first = wait_for(lambda: _first_of(stand, joined), 90, "a delivery by the newcomer")
    young = [a for a in _journal(stand, "moody") if joined - _POST_SECONDS / 2 < a.at < joined]
    in_the_air = [a for a in young if a.ended is None or a.ended > joined]
    assert in_the_air, "no POST was in the air"
    answered = [a for a in in_the_air if a.ended is not None and a.ended < first.at]
    assert not answered, f"the rebalance waited for POSTs: {answered[:3]}"
    stand.members[_NEWCOMER].stop()
    return first.at - joined


def _journal(stand: Stand, name: str) -> list[Arrival]:
    return [arrival for arrival in read_journal(stand.journal) if arrival.endpoint == name]


def _in_the_air(stand: Stand) -> list[Arrival]:
    """Young ones, so that they are there for long."""
    young = time.time() - _POST_SECONDS / 2
    return [a for a in _journal(stand, "moody") if a.ended is None and a.at > young]


def _first_of(stand: Stand, since: float) -> Arrival | None:
    of_it = (
        a
        for a in _journal(stand, stand.bystander)
        if a.process.startswith(_NEWCOMER) and a.at > since and a.accepted
    )
    return next(of_it, None)


# --- row 31 ------------------------------------------------------------------------------------

_AN_HOUR_OF_EVENTS = 3_600 * 100
_FAILING = "moody-batch"
_ENOUGH_TO_COMPARE = 600
_ANSWER_SECONDS = 0.03
"""Of one that has recovered: long enough for requests to meet there."""
HOUR = Setting(
    endpoints=("steady-batch", _FAILING), batch=20, schedule_seconds=(0, 5, 10, 20),
    settle_seconds=180.0, unrecorded_rows=20_000,
)  # fmt: skip


def hour_of_503(stand: Stand, chance: random.Random, end: float) -> None:
    """What is published in an hour at 100 a second, published at once. One receiver answers 503
    to all of it, and is owed it in the end; the one beside it gets all of it meanwhile. Then it
    recovers and is drained, by no more requests at once than its lanes have."""
    publisher, receivers, figures = stand.publisher, stand.receivers, stand.figures
    healthy = stand.bystander
    quiet = _while_accepting(stand, _ENOUGH_TO_COMPARE)
    with stand.fault("answers 503", "receiver", _FAILING):
        receivers.manner(_FAILING, "status", status=503)
        began = time.monotonic()
        before = len(publisher.published)
        publisher.burst(_AN_HOUR_OF_EVENTS)
        wait_for(
            lambda: len(publisher.published) >= before + _AN_HOUR_OF_EVENTS,
            200, "all to be published",
        )  # fmt: skip
        figures["s to publish them"] = time.monotonic() - began
        count = len(publisher.published)
        _until(stand, lambda: receivers.accepted(healthy) >= count, "the healthy one to have all")
        figures["s until the healthy endpoint had all"] = time.monotonic() - began
        _until(stand, lambda: _owed(stand) >= _AN_HOUR_OF_EVENTS, "all to be owed")
        figures["owed to the failing one"] = _owed(stand)
        failing = _while_accepting(stand, _ENOUGH_TO_COMPARE)
        figures["requests answered 503"] = receivers.summary()[_FAILING][0]
    began, struck = time.monotonic(), time.time()
    receivers.manner(_FAILING, "slow", seconds=_ANSWER_SECONDS)
    _until(stand, lambda: receivers.accepted(_FAILING) >= count, "the backlog to drain")
    figures["s to drain it"] = time.monotonic() - began
    phases = {"quiet": quiet, "failing": failing, "draining": (struck, time.time())}
    for phase, seconds in _p99_by_phase(stand, phases).items():
        figures[f"ms p99 to the healthy one, {phase}"] = 1_000 * seconds
    _no_herd(stand)


def _no_herd(stand: Stand) -> None:
    most = stand.receivers.ledger(_FAILING).most_at_once
    stand.figures["requests at once to it, at most"] = most
    lanes = len(stand.setting.members) * HOUR.concurrency
    assert 1 < most <= lanes, f"{most} requests at once; its lanes have {lanes}"


def _until(stand: Stand, condition: Callable[[], bool], what: str) -> None:
    wait_for(lambda: stand.broken or condition(), 300, what)


def _owed(stand: Stand) -> int:
    return int(stand.database.value("SELECT count(*) FROM deliveries"))


def _while_accepting(stand: Stand, count: int) -> tuple[float, float]:
    """From when until when the bystander has accepted so many events more."""
    before, began = stand.accepted(), time.time()
    _until(stand, lambda: stand.accepted() >= before + count, "events of the steady flow")
    return began, time.time()


def _p99_by_phase(stand: Stand, phases: dict[str, tuple[float, float]]) -> dict[str, float]:
    """Seconds from publication to arrival at the bystander, of what was published in each phase."""
    arrived: dict[str, float] = {}
    for arrival in _journal(stand, stand.bystander):
        for id_ in arrival.ids:
            arrived.setdefault(id_, arrival.at)
    found = {}
    for phase, (began, ended) in phases.items():
        took = sorted(
            arrived[one.id] - one.at
            for one in list(stand.publisher.published)
            if began <= one.at <= ended and one.id in arrived
        )
        found[phase] = took[int(0.99 * len(took))]
    return found
