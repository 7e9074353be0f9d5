"""What an attempt came to: one function for every status, every failure, every Retry-After.

Sources: Standard Webhooks 1.0 (2xx alone is success, a redirect is a failure, 410 means stop,
429/502/504 mean slow down); RFC 9110, 10.2.3 for Retry-After. Invariant: any input gives an
outcome with a finite delay that is not negative. Leaves out: what is done about it (send).
"""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

from dispatcherd.delivery import (
    ANY_COMPANY,
    Outcome,
    OutcomeKind,
    Reason,
    Response,
    RetryPolicy,
)

OK: Final = Outcome(OutcomeKind.DELIVERED, Reason.OK)
"""What a status of 2xx comes to, however often it was tried."""
_RESOURCES_SECONDS: Final = 2.0
_GONE: Final = Outcome(OutcomeKind.REJECTED, Reason.GONE)


def decide(
    response: Response,
    attempt_in_cycle: int,
    policy: RetryPolicy,
    now_utc: float,
    draw: float,
) -> Outcome:
    """Decide from one attempt; the first of a cycle has number 1. `draw` is random in [0, 1).

    INTERRUPTED (our own shutdown) is a retry at once whatever the count, RESOURCES (we are out of
    descriptors) one in seconds: the caller lets neither count as one of the cycle's
    attempts.
    """
    if response.succeeded:
        return OK
    return failed(response, response.failure or _reason(response.status), attempt_in_cycle, policy,
                  now_utc, draw)  # fmt: skip


def failed(
    response: Response,
    reason: Reason,
    attempt_in_cycle: int,
    policy: RetryPolicy,
    now_utc: float,
    draw: float,
) -> Outcome:
    """What a failure comes to, for a reason that is known: see `decide`."""
    if reason is Reason.GONE:
        return _GONE
    if reason is Reason.INTERRUPTED:
        return Outcome(OutcomeKind.RETRY, reason, 0.0)
    if reason is Reason.RESOURCES:
        return Outcome(OutcomeKind.RETRY, reason, _RESOURCES_SECONDS * (1.0 + draw))
    if attempt_in_cycle >= policy.max_attempts:
        return Outcome(OutcomeKind.EXHAUSTED, reason)
    delay = _scheduled(policy, attempt_in_cycle) * (1.0 + policy.jitter * draw)
    if response.retry_after is not None:
        asked = retry_after_seconds(response.retry_after, now_utc)
        delay = max(delay, min(asked, policy.max_retry_after_seconds))
    return Outcome(OutcomeKind.RETRY, reason, delay)


def company(reason: Reason, attempt_in_cycle: int, max_events: int) -> int:
    """How many may share the next exchange of a delivery whose last attempt, in a batch of at most
    `max_events`, failed for this reason.

    Where the receiver answered for good and named no members, one of them may be what it cannot
    take: from attempt to attempt batches get smaller by a factor of four, until each member stands
    for itself. Where it could not be reached, or was overloaded, batches stay as they are.
    """
    if reason not in _REFUSALS:
        return ANY_COMPANY
    return max(1, max_events >> 2 * min(attempt_in_cycle, 15))


_REFUSALS: Final = frozenset({Reason.STATUS_CLIENT_ERROR, Reason.STATUS_SERVER_ERROR})


def _reason(status: int) -> Reason:
    if 200 <= status < 300:
        return Reason.OK
    if status == 410:
        return Reason.GONE
    if status == 429:
        return Reason.THROTTLED
    if status in (502, 503, 504):
        return Reason.UNAVAILABLE
    by_class = {
        1: Reason.STATUS_INFORMATIONAL,
        3: Reason.STATUS_REDIRECT,
        4: Reason.STATUS_CLIENT_ERROR,
        5: Reason.STATUS_SERVER_ERROR,
    }
    return by_class.get(status // 100, Reason.STATUS_UNKNOWN)


def _scheduled(policy: RetryPolicy, attempts_made: int) -> float:
    """The wait before attempt `attempts_made + 1`; past the schedule's end its last value."""
    schedule = policy.schedule_seconds
    if not schedule:
        return 0.0
    return schedule[min(attempts_made, len(schedule) - 1)]


def retry_after_seconds(value: str, now_utc: float) -> float:
    """Seconds that a Retry-After asks for; 0 for the past, and for what is neither form."""
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:18])
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:  # RFC 9110: an HTTP-date is UTC
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, moment.timestamp() - now_utc)
    except (ValueError, TypeError, OverflowError, IndexError, AttributeError):
        return 0.0
