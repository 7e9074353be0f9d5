"""Parking: a delivery leaves memory for Postgres, so that it holds up neither lane nor watermark.

Invariant: a place in the recorder is reserved before a delivery is parked; what is in the air is
parked too, and its attempt still records its outcome. Leaves out: when there is no room (intake),
and bringing it back (retry).
"""

from __future__ import annotations

from typing import Final

from dispatcherd.config.model import LimitsConfig
from dispatcherd.delivery import Delivery, Reason, Stage
from dispatcherd.endpoints import Endpoints
from dispatcherd.lane import Lane
from dispatcherd.metrics import Metrics
from dispatcherd.offsets import Window
from dispatcherd.record.buffer import Buffer

_RELIEF_AT_ONCE: Final = 200


class Parking:
    """Parks deliveries of full lanes, full windows, and records that have waited too long."""

    def __init__(
        self, endpoints: Endpoints, buffer: Buffer, limits: LimitsConfig, metrics: Metrics
    ) -> None:
        self._endpoints = endpoints
        self._buffer = buffer
        self._limits = limits
        self._metrics = metrics

    def park(self, lane: Lane, delivery: Delivery, reason: Reason, now: float) -> None:
        """Into Postgres, due at once; the place was reserved."""
        self._buffer.park(delivery, now, reason)
        self._metrics.endpoint(lane.endpoint.name).parked(reason)
        lane.owed[delivery.key] = delivery
        if delivery.stage is not Stage.AIR:
            delivery.stage = Stage.GONE
            lane.expect(now)

    def relieve(
        self, window: Window, tight: bool, short_of_memory: bool, turnover: float, now: float
    ) -> None:
        """Let a window's watermark move on: what is old is parked, sooner when room is short.

        `turnover`: seconds in which what is in memory is settled at the present rate. What is no
        older than twice that is not stuck: it only stands in a long queue that moves.
        """
        limits = self._limits
        self._half_settled(window, now)
        patience, reason = limits.park_after_seconds, Reason.TOO_SLOW
        if short_of_memory or (tight and window.deliveries > limits.window_deliveries // 2):
            reason = Reason.WINDOW_FULL
            patience = min(patience, max(limits.hold_seconds, 2 * turnover))
        self._oldest(window, now - patience, reason, now)

    def _oldest(self, window: Window, entered_before: float, reason: Reason, now: float) -> None:
        stuck: list[Delivery] = []
        for _, record in window.oldest(entered_before):
            stuck.extend([d for d in record.deliveries() if not d.owed])
            if len(stuck) >= _RELIEF_AT_ONCE:
                break
        for delivery in stuck:
            lane = self._endpoints.lanes.get(delivery.endpoint_id)
            if lane is None or delivery.stage not in (Stage.QUEUED, Stage.AIR):
                continue
            if not self._buffer.try_reserve(1, delivery.event.size):
                break
            if delivery.stage is Stage.QUEUED:
                lane.remove(delivery)
            self.park(lane, delivery, reason, now)

    def _half_settled(self, window: Window, now: float) -> None:
        """Park the rest of records whose list of settled endpoints has grown past its cap."""
        for offset in window.over_cap(self._limits.partial_endpoints):
            record = window.records[offset]
            for delivery in record.deliveries():
                if delivery.owed:
                    continue
                lane = self._endpoints.lanes.get(delivery.endpoint_id)
                if lane is None or not self._buffer.try_reserve(1, delivery.event.size):
                    continue
                lane.remove(delivery)
                self.park(lane, delivery, Reason.PARTIAL_CAP, now)
