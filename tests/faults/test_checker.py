"""The checker itself: each invariant against a ledger that keeps it and ledgers that break it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.faults.check import Violation, check, isolation, not_isolated
from tests.faults.ledger import (
    Arrival,
    End,
    Fault,
    GroupOffset,
    Ledger,
    Life,
    Memory,
    Owed,
    Published,
    Recorded,
    Step,
    Unsettled,
)
from tests.faults.matching import match
from tests.faults.repeats import Cause, repeats
from tests.faults.story import tell

Doctor = Callable[[Ledger], None]


def _arrival(offset: int, at: float, process: str = "first.1", status: int = 200) -> Arrival:
    return Arrival(at, "billing", process, 1, (f"e{offset}",), at + 0.01, status)


def _row(offset: int, at: float, process: str = "first.1", status: int = 200) -> Recorded:
    return Recorded(
        exchange=offset + (1000 if process == "first.1" else 2000), process=process,
        endpoint="billing", partition=0, offset=offset, at=at - 0.005, took=0.02,
        recorded=at + 0.06, number=1, status=status, reason="ok" if status == 200 else "timeout",
        delivered=status == 200, sent=True,
    )  # fmt: skip


def good() -> Ledger:
    """Five events to one endpoint; the first process is killed, the second sends e3 and e4.

    e3 was answered and unrecorded at the kill: it comes twice.
    """
    ledger = Ledger(("billing",), 0.0, 20.0, timeout_seconds=3.0, stop_seconds=10.0,
                    memory_bytes=250_000_000)  # fmt: skip
    ledger.published = [Published(f"e{n}", 0, n, 1.0 + n) for n in range(5)]
    ledger.published.append(Published("bad5", 0, 5, 6.0, bad=True))
    ledger.quarantined = {(0, 5): 8.0}
    ledger.arrivals = [_arrival(n, 1.5 + n) for n in range(4)]
    ledger.arrivals += [_arrival(3, 8.0, "first.2"), _arrival(4, 8.1, "first.2")]
    ledger.recorded = [_row(n, 1.5 + n) for n in range(3)]
    ledger.recorded += [_row(3, 8.0, "first.2"), _row(4, 8.1, "first.2")]
    ledger.steps = [Step(0.5, 0, 1, 0, "first.1")]
    ledger.steps += [Step(1.6 + n, 0, 1, n + 1, "first.1") for n in range(3)]
    ledger.steps += [Step(7.0, 0, 2, 3, "first.2"), Step(8.2, 0, 2, 6, "first.2")]
    ledger.group = [GroupOffset(5.0, 0, 3, 3), GroupOffset(9.0, 0, 6, 6)]
    ledger.memory = [Memory(3.0, "first.1", 100_000_000)]
    ledger.lives = [
        Life("first.1", 11, 0.0, 5.0, End.KILLED, code=-9),
        Life("first.2", 12, 6.0, 20.0, End.STOPPED, asked=19.0, code=0),
    ]
    ledger.faults = [Fault("kill", "member", "first", 5.0, 6.0)]
    ledger.ends = {0: 6}
    return ledger


def found(ledger: Ledger) -> list[Violation]:
    matched = match(ledger)
    return check(ledger, matched, repeats(ledger, matched))


def invariants(ledger: Ledger) -> set[str]:
    return {violation.invariant for violation in found(ledger)}


def test_a_run_that_kept_every_promise_has_no_violation() -> None:
    assert found(good()) == []


# --- each of these breaks one promise, and that one is named -------------------------------------


def never_arrived(ledger: Ledger) -> None:
    """An event that no receiver, no row and no dead letter knows."""
    ledger.arrivals = [a for a in ledger.arrivals if a.ids != ("e4",)]
    ledger.recorded = [r for r in ledger.recorded if r.offset != 4]


def refused_and_left_owed(ledger: Ledger) -> None:
    """An event that is still owed when everything should have arrived."""
    never_arrived(ledger)
    ledger.owed.append(Owed("billing", 0, 4, False, "unavailable", 3, 25.0))


def success_that_nobody_gave(ledger: Ledger) -> None:
    """A row says delivered; the receiver was never asked."""
    ledger.arrivals = [a for a in ledger.arrivals if a.ids != ("e4",)]


def success_that_was_a_refusal(ledger: Ledger) -> None:
    """A row says delivered; the receiver answered 503."""
    ledger.arrivals[-1] = replace(ledger.arrivals[-1], status=503)


def bad_record_forgotten(ledger: Ledger) -> None:
    """A record that is no event is in no quarantine."""
    ledger.quarantined.clear()


def event_in_quarantine(ledger: Ledger) -> None:
    """An event is in the quarantine."""
    ledger.quarantined[0, 1] = 3.0


def event_out_of_nowhere(ledger: Ledger) -> None:
    """A receiver is sent what nobody published."""
    ledger.arrivals.append(Arrival(9.0, "billing", "first.2", 1, ("ghost",), 9.1, 200))


def bad_record_sent(ledger: Ledger) -> None:
    """A record that is no event was put into the quarantine and sent all the same."""
    ledger.arrivals.append(Arrival(9.0, "billing", "first.2", 1, ("bad5",), 9.1, 200))


def watermark_back(ledger: Ledger) -> None:
    """The watermark goes back, and forward again."""
    ledger.steps.insert(3, Step(3.0, 0, 1, 1, "first.1"))


def epoch_back(ledger: Ledger) -> None:
    """A process that was fenced writes its progress."""
    ledger.steps.insert(5, Step(7.5, 0, 1, 3, "first.1"))


def watermark_over_a_gap(ledger: Ledger) -> None:
    """A snapshot shows an offset below the watermark that is not settled."""
    ledger.unsettled.append(Unsettled(4.0, 0, 1, "billing", 3))


def watermark_short_of_the_end(ledger: Ledger) -> None:
    """The run is over, and the watermark is not at the end."""
    ledger.steps.pop()


def group_past_the_watermark(ledger: Ledger) -> None:
    """Kafka was told more than Postgres has."""
    ledger.group.append(GroupOffset(5.5, 0, 4, 3))


def group_without_progress(ledger: Ledger) -> None:
    """Kafka was told an offset of a partition that Postgres does not know."""
    ledger.group.append(GroupOffset(5.5, 1, 0, None))


def memory_over_its_bound(ledger: Ledger) -> None:
    """A process outgrows its bound."""
    ledger.memory.append(Memory(9.0, "first.2", 251_000_000))


def recorded_twice(ledger: Ledger) -> None:
    """One exchange stands in two rows."""
    ledger.recorded.append(ledger.recorded[0])


def two_rows_for_one_request(ledger: Ledger) -> None:
    """Another exchange id, but the receiver was asked once."""
    ledger.recorded.append(replace(ledger.recorded[-1], exchange=7, status=503, delivered=False))


def unrecorded_while_alive(ledger: Ledger) -> None:
    """A process that lived on has not recorded an attempt."""
    ledger.arrivals.append(replace(ledger.arrivals[-1], at=8.05, ended=8.06, status=503))


def unrecorded_before_what_is_recorded(ledger: Ledger) -> None:
    """The process was killed, but it had recorded what came later."""
    del ledger.recorded[0]
    ledger.arrivals.append(_arrival(0, 8.3, "first.2"))
    ledger.recorded.append(_row(0, 8.3, "first.2"))


def sent_again_without_reason(ledger: Ledger) -> None:
    """What was recorded in good order is sent again."""
    ledger.arrivals.append(_arrival(1, 8.5, "first.2"))
    ledger.recorded.append(_row(1, 8.5, "first.2"))


def ended_by_itself(ledger: Ledger) -> None:
    """A process ends though nobody asked it."""
    ledger.lives[1] = replace(ledger.lives[1], end=End.ITSELF, code=1)


def ended_with_an_error(ledger: Ledger) -> None:
    """A process that was asked to stop ends with an error."""
    ledger.lives[1] = replace(ledger.lives[1], code=1)


def ended_too_late(ledger: Ledger) -> None:
    """A process that was asked to stop goes on past its deadline."""
    ledger.lives[1] = replace(ledger.lives[1], asked=1.0)


def ended_without_recording(ledger: Ledger) -> None:
    """A process that was asked to stop leaves outcomes unrecorded, and Postgres was there."""
    ledger.lives[1] = replace(ledger.lives[1], recorded=False)


BROKEN: list[tuple[str, Doctor]] = [
    ("L", never_arrived),
    ("L", refused_and_left_owed),
    ("L", success_that_nobody_gave),
    ("L", success_that_was_a_refusal),
    ("L", bad_record_forgotten),
    ("L", event_in_quarantine),
    ("L", event_out_of_nowhere),
    ("L", bad_record_sent),
    ("W", watermark_back),
    ("W", epoch_back),
    ("W", watermark_over_a_gap),
    ("W", watermark_short_of_the_end),
    ("W", group_past_the_watermark),
    ("W", group_without_progress),
    ("M", memory_over_its_bound),
    ("O", recorded_twice),
    ("O", two_rows_for_one_request),
    ("O", unrecorded_while_alive),
    ("O", unrecorded_before_what_is_recorded),
    ("O", sent_again_without_reason),
    ("E", ended_by_itself),
    ("E", ended_with_an_error),
    ("E", ended_too_late),
    ("E", ended_without_recording),
]


@pytest.mark.parametrize(("invariant", "doctor"), BROKEN, ids=[d.__name__ for _, d in BROKEN])
def test_a_broken_promise_is_found_and_told(invariant: str, doctor: Doctor) -> None:
    ledger = good()
    doctor(ledger)
    assert invariant in invariants(ledger), doctor.__doc__
    first = next(v for v in found(ledger) if v.invariant == invariant)
    told = tell(ledger, match(ledger), first)
    assert told.startswith(f"{invariant} violated: ")
    if first.place in {record.place for record in ledger.published}:
        assert "published" in told


# --- what is allowed is not called a violation ---------------------------------------------------


def test_an_attempt_whose_answer_did_not_reach_the_daemon_may_be_repeated() -> None:
    ledger = good()
    ledger.recorded[1] = replace(ledger.recorded[1], status=0, delivered=False, reason="timeout")
    ledger.arrivals.append(_arrival(1, 4.9))
    ledger.recorded.append(replace(_row(1, 4.9), exchange=5))
    assert found(ledger) == []
    assert [r.cause for r in repeats(ledger, match(ledger))] == [Cause.LOST_ANSWER, Cause.CRASH]


def test_what_was_in_the_air_as_its_partition_moved_may_be_repeated() -> None:
    ledger = good()
    # Begun under the first epoch, recorded under the second: the flush was fenced.
    ledger.lives[0] = Life("first.1", 11, 0.0)
    ledger.recorded.append(replace(_row(3, 4.5), recorded=7.2))
    assert found(ledger) == []
    assert [r.cause for r in repeats(ledger, match(ledger))] == [Cause.REBALANCE]


def test_what_a_process_sent_before_it_lost_and_regained_a_partition_may_be_repeated() -> None:
    ledger = good()
    ledger.lives[0] = Life("first.1", 11, 0.0)
    ledger.steps.append(Step(9.0, 0, 3, 6, "first.1"))
    ledger.recorded.append(replace(_row(3, 4.5), recorded=9.5))
    assert found(ledger) == []


def test_what_a_frozen_process_had_begun_may_arrive_after_another_has_sent_it() -> None:
    ledger = good()
    # Begun before the freeze, sent after it: the partition had moved, e4 was delivered meanwhile.
    ledger.lives[0] = Life("first.1", 11, 0.0)
    ledger.recorded.append(_row(3, 4.5))
    late = replace(_row(4, 5.9, status=0), recorded=9.2)
    ledger.arrivals.append(_arrival(4, 9.0))
    ledger.recorded.append(late)
    causes = [r.cause for r in repeats(ledger, match(ledger)) if r.first.place == (0, 4)]
    assert causes == [Cause.LOST_ANSWER]


def test_a_process_frozen_as_it_begins_an_attempt_has_begun_it_before() -> None:
    ledger = good()
    # Frozen from 5.9 to 9.0, between reading its clock and noting the time: the row says 9.0, but
    # that it took 3.2 s until 9.1.
    ledger.lives[0] = Life("first.1", 11, 0.0)
    ledger.recorded.append(_row(3, 4.5))
    ledger.arrivals.append(_arrival(4, 9.0))
    late = replace(_row(4, 9.0, status=0), took=3.2, recorded=9.15)
    ledger.recorded.append(late)
    assert late.begun == pytest.approx(5.95)
    causes = [r.cause for r in repeats(ledger, match(ledger)) if r.first.place == (0, 4)]
    assert causes == [Cause.LOST_ANSWER]


def test_what_came_last_may_be_unrecorded_at_a_kill_however_long_it_waited() -> None:
    ledger = good()
    # Postgres did not answer: what e2 and e3 came to waited until the process was killed.
    ledger.lives[0] = replace(ledger.lives[0], ended=6.9)
    del ledger.recorded[2]
    ledger.arrivals.append(_arrival(2, 8.05, "first.2"))
    ledger.recorded.append(_row(2, 8.05, "first.2"))
    assert found(ledger) == []


def test_a_process_that_says_it_could_not_record_may_have_left_something_unrecorded() -> None:
    ledger = good()
    ledger.lives[0] = Life("first.1", 11, 0.0, 5.0, End.STOPPED, asked=4.6, code=0, recorded=False)
    ledger.faults.append(Fault("frozen", "postgres", "", 3.0, 5.5))
    assert found(ledger) == []


def test_a_request_that_never_arrived_may_be_recorded_as_failed() -> None:
    ledger = good()
    ledger.recorded.append(replace(_row(4, 7.9, "first.2", status=0), exchange=5))
    assert found(ledger) == []


def test_a_record_whose_acknowledgement_was_lost_may_arrive_or_not() -> None:
    ledger = good()
    event_out_of_nowhere(ledger)
    ledger.unsure.add("ghost")
    assert found(ledger) == []


def test_what_has_not_arrived_when_a_run_is_broken_off_is_not_called_lost() -> None:
    ledger = good()
    never_arrived(ledger)
    watermark_short_of_the_end(ledger)
    watermark_over_a_gap(ledger)
    ledger.complete = False
    assert [v.invariant for v in found(ledger)] == ["W"]


def test_violations_come_in_the_order_of_time() -> None:
    ledger = good()
    memory_over_its_bound(ledger)
    watermark_back(ledger)
    assert [v.invariant for v in found(ledger)] == ["W", "M"]


# --- isolation -----------------------------------------------------------------------------------


def _two_times(seconds: float) -> Ledger:
    """A thousand events in quiet, then a thousand while another endpoint hangs."""
    ledger = copy.deepcopy(good())
    ledger.published, ledger.arrivals = [], []
    ledger.faults = [Fault("hangs", "receiver", "other", 1_000.0, 2_100.0)]
    for number in range(2_000):
        took = 0.010 if number < 1_000 else seconds
        at = float(number)
        ledger.published.append(Published(f"e{number}", 0, number, at))
        ids = (f"e{number}",)
        ledger.arrivals.append(Arrival(at + took, "billing", "first.1", 1, ids, at + took, 200))
    return ledger


def test_a_neighbour_that_is_held_up_is_seen() -> None:
    compared = isolation(_two_times(0.020), "billing")
    assert compared is not None and compared.ratio == pytest.approx(2.0, rel=0.01)
    assert not_isolated(compared, 1.5, 0.0) is not None


def test_a_neighbour_that_is_not_held_up_is_seen_too() -> None:
    compared = isolation(_two_times(0.012), "billing")
    assert compared is not None and not_isolated(compared, 1.5, 0.0) is None


def test_times_in_which_something_else_was_struck_do_not_count() -> None:
    ledger = _two_times(0.020)
    ledger.faults.append(Fault("frozen", "postgres", "", 900.0, 2_100.0))
    assert isolation(ledger, "billing") is None
