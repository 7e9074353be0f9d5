"""The invariants: L nothing lost, W the watermark, M memory, I isolation, O recorded once.

Pure: a ledger in, violations out, the earliest first. `E` stands beside them: processes end when
they are told to, in time and with exit code 0, and never by themselves. Leaves out: how a violation
is told (story) and why repeats are allowed (repeats).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from tests.faults.ledger import FROZEN, End, Ledger, Life, Place
from tests.faults.matching import Exchange, Matched
from tests.faults.repeats import Cause, Repeat, crashed

_ORDER_SECONDS = 1.0
"""Outcomes are written in the order in which the process learned of them, which may differ by this
from the order in which they happened."""
_RECONNECT_SECONDS = 5.0
"""From Postgres' return to the first flush: a pause of up to 2 s, a connect of up to 3."""
_MARGIN_SECONDS = 5.0
"""What a loaded machine may add to the time that a stop takes."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One promise broken: `invariant` is one of L, W, M, I, O, E."""

    invariant: str
    at: float
    text: str
    place: Place | None = None
    """The record that it is about."""
    endpoint: str | None = None
    partition: int | None = None
    process: str | None = None


def check(ledger: Ledger, matched: Matched, repeated: list[Repeat]) -> list[Violation]:
    """Everything that does not hold, in the order of time."""
    found = [
        *_lost(ledger, matched),
        *_false_success(matched),
        *_quarantine(ledger, matched),
        *_watermark(ledger),
        *_group_offsets(ledger),
        *_memory(ledger),
        *_recorded_once(ledger, matched),
        *_repeats(repeated),
        *_ends(ledger),
    ]
    return sorted(found, key=lambda violation: violation.at)


# --- L -----------------------------------------------------------------------------------------


def _lost(ledger: Ledger, matched: Matched) -> Iterator[Violation]:
    if not ledger.complete:
        return
    accepted = {
        (e.endpoint, e.place) for e in matched.exchanges if e.arrival and e.arrival.accepted
    }
    owed = {(row.endpoint, (row.partition, row.offset)): row for row in ledger.owed}
    for record in ledger.published:
        if record.bad:
            continue
        for endpoint in ledger.endpoints:
            key = (endpoint, record.place)
            if key in accepted:
                continue
            row = owed.get(key)
            where = "nobody has it: it is lost"
            if row is not None:
                state = "a dead letter" if row.dead else "still owed"
                where = f"it is {state} ({row.reason}, {row.attempts} attempts)"
            text = f"event {record.id} never reached {endpoint}; {where}"
            yield Violation("L", record.at, text, record.place, endpoint)


def _false_success(matched: Matched) -> Iterator[Violation]:
    for exchange in matched.exchanges:
        row = exchange.row
        if row is not None and row.delivered and exchange.arrival is None:
            text = f"recorded as delivered to {row.endpoint}, which gave no such answer"
            yield Violation("L", row.at, text, row.place, row.endpoint, process=row.process)


def _quarantine(ledger: Ledger, matched: Matched) -> Iterator[Violation]:
    for record in ledger.published:
        if ledger.complete and record.bad and record.place not in ledger.quarantined:
            text = f"record {record.id} is no event and is not in the quarantine"
            yield Violation("L", record.at, text, record.place)
        if not record.bad and record.place in ledger.quarantined:
            at = ledger.quarantined[record.place]
            text = f"event {record.id} was put into the quarantine"
            yield Violation("L", at, text, record.place)
    bad = {record.place: record for record in ledger.published if record.bad}
    for exchange in matched.exchanges:
        if exchange.place in bad:
            text = f"record {bad[exchange.place].id} is no event and was sent"
            yield Violation("L", exchange.at, text, exchange.place, exchange.endpoint)
    for arrival in matched.strangers:
        unknown = [id_ for id_ in arrival.ids if id_ not in ledger.unsure]
        if unknown:
            text = f"{arrival.endpoint} was sent {unknown[0]}, which nobody published"
            yield Violation("L", arrival.at, text, endpoint=arrival.endpoint)


# --- W -----------------------------------------------------------------------------------------


def _watermark(ledger: Ledger) -> Iterator[Violation]:
    highest: dict[int, tuple[int, int]] = {}
    for step in ledger.steps:
        epoch, mark = highest.get(step.partition, (0, -1))
        now = -1 if step.watermark is None else step.watermark
        if now < mark or step.epoch < epoch:
            text = (
                f"partition {step.partition} went back: watermark {mark} to {step.watermark}, "
                f"epoch {epoch} to {step.epoch}, by {step.process}"
            )
            yield Violation("W", step.at, text, partition=step.partition, process=step.process)
        highest[step.partition] = max(step.epoch, epoch), max(now, mark)
    for seen in ledger.unsettled:
        text = (
            f"offset {seen.offset} of partition {seen.partition} lies below the watermark "
            f"{seen.watermark} and is not settled for {seen.endpoint}"
        )
        place = (seen.partition, seen.offset)
        yield Violation("W", seen.at, text, place, seen.endpoint, seen.partition)
    if not ledger.complete:
        return
    for partition, end in ledger.ends.items():
        mark = highest.get(partition, (0, -1))[1]
        if mark != end:
            text = f"partition {partition} ends at {end}, and its watermark stands at {mark}"
            yield Violation("W", ledger.ended, text, partition=partition)


def _group_offsets(ledger: Ledger) -> Iterator[Violation]:
    for seen in ledger.group:
        if seen.watermark is None or seen.committed > seen.watermark:
            text = (
                f"the group's offset of partition {seen.partition} is {seen.committed}, past the "
                f"watermark {seen.watermark}"
            )
            yield Violation("W", seen.at, text, partition=seen.partition)


# --- M -----------------------------------------------------------------------------------------


def _memory(ledger: Ledger) -> Iterator[Violation]:
    for seen in ledger.memory:
        if seen.bytes > ledger.memory_bytes:
            text = (
                f"{seen.process} has {seen.bytes / 1e6:.0f} MB resident, above its bound of "
                f"{ledger.memory_bytes / 1e6:.0f} MB"
            )
            yield Violation("M", seen.at, text, process=seen.process)


# --- O -----------------------------------------------------------------------------------------


def _recorded_once(ledger: Ledger, matched: Matched) -> Iterator[Violation]:
    times = Counter((r.exchange, r.endpoint, r.place) for r in ledger.recorded)
    for row in ledger.recorded:
        if times[row.exchange, row.endpoint, row.place] > 1:
            text = f"exchange {row.exchange} with {row.endpoint} is recorded twice"
            yield Violation("O", row.at, text, row.place, row.endpoint, process=row.process)
    lives = {life.process: life for life in ledger.lives}
    latest: dict[str, float] = {}
    for row in ledger.recorded:
        latest[row.process] = max(row.ended, latest.get(row.process, 0.0))
    for exchange in matched.exchanges:
        process = exchange.process
        yield from _one_row(ledger, exchange, lives.get(process), latest.get(process, 0.0))


def _one_row(
    ledger: Ledger, exchange: Exchange, life: Life | None, latest: float
) -> Iterator[Violation]:
    """`latest`: the end of the last exchange that its process has recorded."""
    arrival, row, process = exchange.arrival, exchange.row, exchange.process
    about = (exchange.place, exchange.endpoint)
    if row is not None:
        if arrival is None and row.status != 0 and not row.delivered:
            text = f"a row says that {exchange.endpoint} answered {row.status}; it did not"
            yield Violation("O", row.at, text, *about, process=process)
        return
    assert arrival is not None
    if not crashed(life):
        text = f"an attempt of {process} at {exchange.endpoint} is not recorded; {process} lived on"
        yield Violation("O", arrival.at, text, *about, process=process)
        return
    over = arrival.at + ledger.timeout_seconds
    if arrival.status and arrival.ended is not None:
        over = arrival.ended
    member = process.rpartition(".")[0]
    frozen = [
        fault
        for fault in ledger.overlapping(arrival.at, over + _ORDER_SECONDS, ("member",))
        if fault.name == FROZEN and fault.target == member
    ]
    if latest > over + _ORDER_SECONDS and not frozen:
        text = (
            f"an attempt of {process} at {exchange.endpoint} is not recorded, although {process} "
            f"recorded one that ended {latest - over:.1f} s later"
        )
        yield Violation("O", arrival.at, text, *about, process=process)


def _repeats(repeated: list[Repeat]) -> Iterator[Violation]:
    for repeat in repeated:
        if repeat.cause is not Cause.NONE:
            continue
        first, again = repeat.first, repeat.again
        text = (
            f"{first.endpoint} was sent again by {again.process} what it had accepted from "
            f"{first.process}, and that was recorded while the partition was {first.process}'s"
        )
        yield Violation("O", again.at, text, first.place, first.endpoint, process=again.process)


# --- E -----------------------------------------------------------------------------------------


def _ends(ledger: Ledger) -> Iterator[Violation]:
    for life in ledger.lives:
        if life.end is End.ITSELF:
            at = life.ended or ledger.ended
            text = f"{life.process} ended by itself with code {life.code}: {life.last_words}"
            yield Violation("E", at, text, process=life.process)
        if life.end is not End.STOPPED or life.asked is None or life.ended is None:
            continue
        near = ledger.overlapping(life.asked - _RECONNECT_SECONDS, life.ended, ("postgres",))
        if not life.recorded and not near:
            text = f"{life.process} stopped with outcomes unrecorded, and Postgres was there"
            yield Violation("E", life.ended, text, process=life.process)
        took = life.ended - life.asked
        if life.code != 0:
            text = f"{life.process} was asked to stop and ended with code {life.code}"
            yield Violation("E", life.ended, f"{text}: {life.last_words}", process=life.process)
        if took > ledger.stop_seconds + _MARGIN_SECONDS:
            text = (
                f"{life.process} took {took:.1f} s to stop; its deadline is "
                f"{ledger.stop_seconds:.0f} s"
            )
            yield Violation("E", life.ended, text, process=life.process)


# --- I -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Isolation:
    """How long events took to reach an endpoint that nothing was done to: p99, in seconds."""

    quiet: float
    hit: float
    """While a fault struck another endpoint, and nothing else."""
    quiet_events: int
    hit_events: int

    @property
    def ratio(self) -> float:
        return self.hit / self.quiet


def isolation(ledger: Ledger, bystander: str, settle_seconds: float = 2.0) -> Isolation | None:
    """Compare quiet times with times in which only receivers were struck. None: too little of one.

    `settle_seconds` after any other fault count neither way.
    """
    times: dict[bool, list[float]] = defaultdict(list)
    first = {record.id: record for record in ledger.published if not record.bad}
    for arrival in sorted(ledger.arrivals, key=lambda arrival: arrival.at):
        if arrival.endpoint != bystander:
            continue
        for id_ in arrival.ids:
            record = first.pop(id_, None)
            if record is None:
                continue
            struck = ledger.overlapping(record.at - settle_seconds, arrival.at)
            if all(f.part == "receiver" and f.target != bystander for f in struck):
                times[bool(struck)].append(arrival.at - record.at)
    if min(len(times[False]), len(times[True])) < 200:
        return None
    quiet, hit = (_p99(times[key]) for key in (False, True))
    return Isolation(quiet, hit, len(times[False]), len(times[True]))


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


def not_isolated(found: Isolation, most: float, at: float) -> Violation | None:
    """A violation of I where the ratio is above `most`."""
    if found.ratio <= most:
        return None
    text = (
        f"p99 went from {found.quiet * 1000:.0f} ms to {found.hit * 1000:.0f} ms "
        f"({found.ratio:.2f} times) while a fault struck another endpoint"
    )
    return Violation("I", at, text)
