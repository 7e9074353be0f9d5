"""What came of an attempt, member by member: recorded, and then done, owed or a dead letter.

Invariant: each member of the batch is recorded once, whatever became of its partition; what an
operator asked of it meanwhile is done now. Leaves out: which answer means what (outcome), when a
retry is due on the wheel (retry), and what is sent next (send).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from dispatcherd import log
from dispatcherd.batch import failed_members
from dispatcherd.delivery import (
    Delivery,
    Hold,
    Outcome,
    OutcomeKind,
    Reason,
    Request,
    Response,
    Stage,
)
from dispatcherd.lane import Lane
from dispatcherd.metrics import EndpointMetrics
from dispatcherd.outcome import OK, company, decide, failed
from dispatcherd.record.buffer import Buffer

logger = log.get(__name__)

# Looking up a member of an enum costs Python 3.11 70 ns each time.
_INTERRUPTED: Final = Reason.INTERRUPTED
_FENCED: Final = Hold.FENCED
_GONE: Final = Stage.GONE
_PARTIAL: Final = Reason.PARTIAL_FAILURE
_RESOURCES: Final = Reason.RESOURCES


class Attempt:
    """One request: what was sent, when and for whom."""

    __slots__ = ("at", "batch", "id", "lane", "metrics", "started")

    def __init__(self, lane: Lane, metrics: EndpointMetrics) -> None:
        self.lane = lane
        self.metrics = metrics
        self.batch: list[Delivery] = []
        self.id = 0
        """Shared by the members' rows."""
        self.at = 0.0
        """Unix seconds at which it began."""
        self.started = 0.0
        """The same moment, monotonic."""


class Completion:
    """Tells the recorder, and whoever keeps retries, what attempts came to."""

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        self._failing: dict[Lane, set[Reason]] = {}
        """Lanes whose last exchange got no answer, and what has been said of it since."""
        self.on_retry: Callable[[Delivery, float], None] = lambda delivery, due: None
        """Told of each delivery that is to be tried again, and when (monotonic)."""

    def forget(self, lane: Lane) -> None:
        """The lane's endpoint is gone."""
        self._failing.pop(lane, None)

    def complete(self, attempt: Attempt, response: Response, now: float) -> None:
        """Record what came of each member: all are delivered, or none, or not those that the
        receiver names."""
        lane, batch = attempt.lane, attempt.batch
        if response.failure is not None or lane in self._failing:
            self._note(lane, response)
        if not response.succeeded:
            self._not_delivered(attempt, batch, response, None, now)
            return
        refused: frozenset[str] | None = frozenset()
        if lane.endpoint.batch.max_events > 1:
            refused = failed_members(response.body)
        if refused is None:
            self._not_delivered(attempt, batch, response, _PARTIAL, now)
        elif not refused:
            self._delivered(attempt, batch, response.status, now)
        else:
            taken = [d for d in batch if d.event.id not in refused]
            left = [d for d in batch if d.event.id in refused]
            self._delivered(attempt, taken, response.status, now)
            self._not_delivered(attempt, left, response, _PARTIAL, now)

    def _delivered(
        self, attempt: Attempt, members: list[Delivery], status: int, now: float
    ) -> None:
        """The hot path's end."""
        at, took = attempt.at, now - attempt.started
        metrics, buffer = attempt.metrics, self._buffer
        metrics.attempted(OK, took, len(members))
        for delivery in members:
            delivery.attempts += 1
            event = delivery.event
            if event.appended_at:
                metrics.latencies.observe(at + took - event.appended_at)
            buffer.attempt(delivery, attempt.id, at, took, status, OK, True)
            if event.claim.hold is _FENCED:
                delivery.stage = _GONE
            else:
                buffer.delivered(delivery)

    def _not_delivered(
        self,
        attempt: Attempt,
        members: list[Delivery],
        response: Response,
        reason: Reason | None,
        now: float,
    ) -> None:
        """`reason`: known otherwise than from the response."""
        lane = attempt.lane
        policy, max_events = lane.endpoint.retry, lane.endpoint.batch.max_events
        at, took = attempt.at, now - attempt.started
        draw = random.random()  # one for the batch: what failed together is due together
        for delivery in members:
            delivery.attempts += 1
            number = delivery.attempts - delivery.cycle_start
            if reason is None:
                outcome = decide(response, number, policy, at + took, draw)
            else:
                outcome = failed(response, reason, number, policy, at + took, draw)
            if outcome.reason is _INTERRUPTED or outcome.reason is _RESOURCES:
                delivery.cycle_start += 1  # ours to answer for: it does not count
            if len(attempt.batch) > 1:
                delivery.company = company(outcome.reason, number, max_events)
            attempt.metrics.attempted(outcome, took)
            self._buffer.attempt(
                delivery, attempt.id, at, took, response.status, outcome, response.sent
            )
            self._keep(lane, delivery, outcome, response.status, now)

    def _keep(
        self, lane: Lane, delivery: Delivery, outcome: Outcome, status: int, now: float
    ) -> None:
        """What a failed attempt means for the delivery, with what an operator asked meanwhile."""
        if delivery.event.claim.hold is _FENCED:
            delivery.stage = _GONE
            return
        buffer = self._buffer
        if delivery.request is Request.DISCARD:
            buffer.discard(delivery, delivery.request_no)
            return
        due = now + outcome.delay_seconds
        if delivery.request is Request.RETRY:
            delivery.cycle_start = delivery.attempts
            due = now
        elif outcome.kind is not OutcomeKind.RETRY or lane.removed:
            reason = Reason.ENDPOINT_REMOVED if lane.removed else outcome.reason
            buffer.bury(delivery, reason, status)
            lane.owed[delivery.key] = delivery
            return
        buffer.owe(delivery, due, outcome.reason, status)
        delivery.request = None
        lane.owed[delivery.key] = delivery
        self.on_retry(delivery, due)

    def _note(self, lane: Lane, response: Response) -> None:
        """Log each way in which an endpoint cannot be reached once, and once that it can again."""
        if response.failure is None:
            del self._failing[lane]
            logger.info("endpoint_reached_again", endpoint=lane.endpoint.name)
        elif response.failure is not _INTERRUPTED:
            said = self._failing.setdefault(lane, set())
            if response.failure not in said:
                said.add(response.failure)
                logger.warning(
                    "endpoint_not_reached",
                    endpoint=lane.endpoint.name,
                    reason=response.failure.word,
                    detail=response.detail,
                )
