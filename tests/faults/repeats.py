"""Why an event that a receiver had accepted came to it again: allowed causes, and none.

Pure. Allowed (HOSTILE, the head of the page): the accepted attempt was unrecorded at a crash, or in
the air at a rebalance, or it timed out on our side (its answer did not reach us).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

from tests.faults.ledger import End, Ledger, Life, Step
from tests.faults.matching import Exchange, Matched

_FLUSH_SECONDS = 1.0
"""From the COPY of a row to the lock on its partition's progress, in one transaction."""


class Cause(Enum):
    """Why it was sent again."""

    CRASH = "unrecorded when its process was killed"
    REBALANCE = "recorded after its partition had moved"
    LOST_ANSWER = "its answer did not reach the daemon"
    NONE = "no reason"


@dataclass(frozen=True, slots=True)
class Repeat:
    """An accepted exchange, the one that followed it, and why."""

    first: Exchange
    again: Exchange
    cause: Cause


def repeats(ledger: Ledger, matched: Matched) -> list[Repeat]:
    """Every repeat, in the order of time."""
    judge = _Judge(ledger)
    found = []
    for _, exchanges in matched.deliveries():
        arrived = [e for e in exchanges if e.arrival is not None]
        for first, again in pairwise(arrived):
            if first.arrival is not None and first.arrival.accepted:
                found.append(Repeat(first, again, judge.cause(first)))
    return sorted(found, key=lambda repeat: repeat.again.at)


class _Judge:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lives = {life.process: life for life in ledger.lives}
        self._claims: dict[int, list[Step]] = defaultdict(list)
        for step in ledger.steps:
            claims = self._claims[step.partition]
            if not claims or claims[-1].epoch != step.epoch:
                claims.append(step)

    def cause(self, first: Exchange) -> Cause:
        row = first.row
        if row is None:
            return Cause.CRASH if crashed(self._life(first)) else Cause.NONE
        if not row.delivered:
            return Cause.LOST_ANSWER
        if self._moved(first.place[0], first.process, row.begun, row.recorded):
            return Cause.REBALANCE
        return Cause.NONE

    def _life(self, exchange: Exchange) -> Life | None:
        return self._lives.get(exchange.process)

    def _moved(self, partition: int, process: str, begun: float, recorded: float) -> bool:
        """Whether somebody claimed the partition since the attempt began, or held it already."""
        claims = self._claims[partition]
        latest = recorded + _FLUSH_SECONDS
        for fault in self._ledger.overlapping(recorded, latest, ("postgres",)):
            latest = max(latest, (fault.ended or recorded) + _FLUSH_SECONDS)
        times = [claim.at for claim in claims]
        before, after = bisect_right(times, begun), bisect_right(times, latest)
        # A process that claims anew what it held has dropped what was in the air as well.
        return before < after or before == 0 or claims[before - 1].process != process


def crashed(life: Life | None) -> bool:
    """Whether this life may have left requests unrecorded: killed, or stopped without Postgres."""
    if life is None or life.end is End.ALIVE:
        return False
    return life.end is not End.STOPPED or not life.recorded
