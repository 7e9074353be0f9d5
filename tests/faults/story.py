"""A violation as a story: what happened to that record and partition, in the order of time.

Pure: facts in, lines out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from tests.faults.check import Violation
from tests.faults.ledger import Ledger, Place
from tests.faults.matching import Exchange, Matched

_AROUND_SECONDS = 10.0
_MOST_LINES = 80

Line = tuple[float, str]


def tell(ledger: Ledger, matched: Matched, violation: Violation) -> str:
    """The violation, then its timeline; seconds count from the run's begin."""
    lines = [*_faults(ledger, violation), *_lives(ledger, violation)]
    partition = violation.partition
    if violation.place is not None:
        lines += _record(ledger, matched, violation.place, violation.endpoint)
        partition = violation.place[0]
    if partition is not None:
        lines += _progress(ledger, partition, violation)
    if violation.invariant == "M":
        lines += [
            (m.at, f"{m.process} has {m.bytes / 1e6:.0f} MB")
            for m in ledger.memory
            if m.process == violation.process and abs(m.at - violation.at) < _AROUND_SECONDS
        ]
    begin = datetime.fromtimestamp(ledger.began, UTC)
    head = [
        f"{violation.invariant} violated: {violation.text}",
        f"(seconds since {begin:%Y-%m-%d %H:%M:%S} UTC; ! marks the moment of the violation)",
    ]
    return "\n".join([*head, *_shown(sorted(set(lines)), ledger.began, violation.at)])


def _shown(lines: list[Line], began: float, at: float) -> Iterator[str]:
    marked = False
    if len(lines) > _MOST_LINES:
        nearest = sorted(lines, key=lambda line: abs(line[0] - at))[:_MOST_LINES]
        yield f"  ({len(lines) - _MOST_LINES} lines further away are left out)"
        lines = sorted(nearest)
    for when, text in lines:
        if when >= at and not marked:
            marked = True
            yield f"! {at - began:9.3f}"
        yield f"  {when - began:9.3f}  {text}"


def _span(ledger: Ledger, violation: Violation) -> tuple[float, float]:
    """From the record's publication, or some seconds before the violation, to some after it."""
    start = violation.at - _AROUND_SECONDS
    if violation.place is not None:
        published = [r.at for r in ledger.published if r.place == violation.place]
        start = min([start, *(at - 1.0 for at in published)])
    end = ledger.ended if violation.invariant == "L" else violation.at + _AROUND_SECONDS
    return start, end


def _faults(ledger: Ledger, violation: Violation) -> Iterator[Line]:
    start, end = _span(ledger, violation)
    for fault in ledger.overlapping(start, end):
        yield fault.began, f"fault begins: {fault.part}: {fault}"
        if fault.ended is not None:
            yield fault.ended, f"fault ends:   {fault.part}: {fault}"


def _lives(ledger: Ledger, violation: Violation) -> Iterator[Line]:
    start, end = _span(ledger, violation)
    for life in ledger.lives:
        if start <= life.started <= end:
            yield life.started, f"{life.process} starts (pid {life.pid})"
        if life.ended is not None and start <= life.ended <= end:
            yield life.ended, f"{life.process} {life.end.value}, code {life.code}"


def _record(ledger: Ledger, matched: Matched, place: Place, endpoint: str | None) -> Iterator[Line]:
    where = f"partition {place[0]}, offset {place[1]}"
    for record in ledger.published:
        if record.place == place:
            yield record.at, f"published {record.id} at {where}"
    if place in ledger.quarantined:
        yield ledger.quarantined[place], f"{where} goes into the quarantine"
    for exchange in matched.exchanges:
        if exchange.place == place and endpoint in (None, exchange.endpoint):
            yield from _exchange(exchange)
    for row in ledger.owed:
        if (row.partition, row.offset) == place and endpoint in (None, row.endpoint):
            state = "a dead letter" if row.dead else "owed"
            said = f"{row.attempts} attempts, {row.reason}, due {row.due - ledger.ended:+.1f} s"
            yield ledger.ended, f"at the end: {state} to {row.endpoint}: {said}"


def _exchange(exchange: Exchange) -> Iterator[Line]:
    arrival, row = exchange.arrival, exchange.row
    if arrival is not None:
        yield arrival.at, f"{exchange.process} asks {arrival.endpoint}, attempt {arrival.attempt}"
        if arrival.ended is not None:
            said = arrival.status or "nothing"
            yield arrival.ended, f"{arrival.endpoint} answers {exchange.process}: {said}"
    if row is not None:
        said = f"exchange {row.exchange}, {row.status} {row.reason}"
        yield row.recorded, f"row of {row.process}: attempt {row.number}, {said}"


def _progress(ledger: Ledger, partition: int, violation: Violation) -> Iterable[Line]:
    start, end = _span(ledger, violation)
    before: tuple[int, int | None] | None = None
    offset = None if violation.place is None else violation.place[1]
    for step in ledger.steps:
        if step.partition != partition:
            continue
        now = step.epoch, step.watermark
        claimed = before is None or before[0] != step.epoch
        back = before is not None and (step.watermark or 0) < (before[1] or 0)
        passed = (
            offset is not None
            and step.watermark is not None
            and step.watermark > offset
            and (before is None or before[1] is None or before[1] <= offset)
        )
        before = now
        if start <= step.at <= end and (claimed or back or passed):
            what = "claims" if claimed else "moves"
            yield (
                step.at,
                (
                    f"{step.process} {what} partition {partition}: epoch {step.epoch}, "
                    f"watermark {step.watermark}"
                ),
            )
    for seen in ledger.group:
        odd = seen.watermark is None or seen.committed > seen.watermark
        if seen.partition == partition and odd and start <= seen.at <= end:
            yield seen.at, f"group offset {seen.committed}, watermark {seen.watermark}"
