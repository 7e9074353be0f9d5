"""What becomes of an event whose lane is full: does it wait in Kafka, or is it parked?

Parking keeps a slow endpoint from setting the pace of all; but it costs more than sending, so a
lane that moves and has the stream to itself is best left to Kafka's backpressure, and so is one
that is slow only because this process is: parking would make it slower still.

Invariant: a lane that gives nothing up to be sent holds intake no longer than `hold_seconds`, and
takes little memory from then on; none holds intake for longer than `patience_seconds`. Pure. Leaves
out: whether there is room (lane), and parking itself (parking).
"""

from __future__ import annotations

from typing import Final

from dispatcherd.lane import Lane

_RECENT_SECONDS: Final = 5.0
_NOTED_SECONDS: Final = 0.5
"""So exact is the time of a lane's last traffic."""
_SCAN_EVERY_SECONDS: Final = 0.02
_MOVING_SECONDS: Final = 0.1


class Overflow:
    """Decides for the lanes of one process."""

    def __init__(self, hold_seconds: float, patience_seconds: float) -> None:
        self._hold = hold_seconds
        self._patience = patience_seconds
        self._recent: dict[Lane, None] = {}
        """Lanes that had fresh traffic lately."""
        self._dry: list[Lane] = []
        """Of those, the ones that had nothing left to send when last looked at."""
        self._scanned_at = float("-inf")

    def offered(self, lane: Lane, now: float) -> None:
        """A fresh delivery went into a lane."""
        if now - lane.last_offer > _NOTED_SECONDS:
            self._recent[lane] = None
            lane.last_offer = now

    def stuck(self, lane: Lane, now: float) -> bool:
        """Whether a lane has work enough and gives none of it up: more in it would only take the
        memory that others need."""
        return (
            len(lane.fresh) >= lane.endpoint.concurrency
            and (lane.in_air >= lane.allowed or lane.queued)  # not one whose batch waits to fill
            and now - lane.asked_at > self._hold
            and lane.head_age(now) > self._hold
        )

    def waits(self, lane: Lane, now: float, late: bool) -> bool:
        """Whether the overflow of a full lane waits in Kafka. `late`: this process is what is slow
        (see `concurrency`)."""
        age = lane.head_age(now)
        if age > self._hold:
            moves = now - lane.asked_at < _MOVING_SECONDS
            if not (late and moves) or age > self._patience:
                return False
        if now - self._scanned_at > _SCAN_EVERY_SECONDS:
            self._scanned_at = now
            self._scan(now)
        # Asked anew: one turn of intake may have filled since what was dry then.
        return not any(not len(lane) for lane in self._dry)

    def _scan(self, now: float) -> None:
        """Which lanes that had traffic lately have run dry? Only those with traffic are looked at:
        there may be a hundred thousand others."""
        recently = now - _RECENT_SECONDS
        for lane in [lane for lane in self._recent if lane.last_offer < recently or lane.removed]:
            del self._recent[lane]
        self._dry = [lane for lane in self._recent if not len(lane)]
