"""What happens to deliveries in memory as partitions begin, are suspended, and are lost.

Invariant: nothing of a suspended partition is sent, nor forgotten: what waits in lanes is set aside
until the partition comes back, or somebody else's claim ends ours. Leaves out: whose a partition is
(claim).
"""

from __future__ import annotations

from dispatcherd.claim import Tenure
from dispatcherd.delivery import Delivery, Reason
from dispatcherd.endpoints import Endpoints
from dispatcherd.intake import Intake
from dispatcherd.record.buffer import Buffer
from dispatcherd.retry import Retries
from dispatcherd.send import Sender
from dispatcherd.timers import Timers


class Handover:
    """Told by `claim.Ownership`."""

    def __init__(
        self,
        endpoints: Endpoints,
        intake: Intake,
        sender: Sender,
        retries: Retries,
        buffer: Buffer,
        timers: Timers,
    ) -> None:
        self._endpoints = endpoints
        self._intake = intake
        self._sender = sender
        self._retries = retries
        self._buffer = buffer
        self._timers = timers

    def begun(self, tenures: list[Tenure]) -> None:
        """These may be worked on: what was set aside is the lanes' again, what is owed is looked
        for."""
        for tenure in tenures:
            aside, tenure.window.aside = tenure.window.aside, []
            for delivery in aside:
                lane = self._endpoints.lane(delivery.endpoint_id)
                if lane is None:
                    self._buffer.bury(delivery, Reason.ENDPOINT_REMOVED)
                    continue
                lane.offer(delivery)
        self._retries.look_again()
        for lane in list(self._endpoints.lanes.values()):
            self._sender.poke(lane)

    def suspended(self, tenures: list[Tenure]) -> None:
        """Revoked, and nobody else's yet: out of the lanes, kept."""
        self._intake.forget([tenure.tp for tenure in tenures])
        windows = {claim: t.window for t in tenures for claim in t.claims}
        now = self._timers.now()
        for lane in self._endpoints.lanes.values():
            for delivery in lane.withdraw(set(windows)):
                self._set_aside(delivery, windows[delivery.event.claim].aside, now)

    def _set_aside(self, delivery: Delivery, aside: list[Delivery], now: float) -> None:
        if delivery.owed:
            self._retries.leave(delivery, now)
        else:
            aside.append(delivery)

    def dropped(self, tenure: Tenure) -> None:
        """Somebody else's: forgotten. What is in the air still records its attempt."""
        self._intake.forget([tenure.tp])
        for lane in self._endpoints.lanes.values():
            lane.withdraw(set(tenure.claims))
        self._retries.dropped(tenure)
