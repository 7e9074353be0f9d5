"""What is told to the log and the counters.

One line per occurrence at DEBUG; what an operator should see at WARNING, at most once a minute per
cause, with the number of those in between: a flood of bad requests must not become a flood of log.
Invariant: no body, no secret and no signature is logged; ids and types are cut. Leaves out: the
format of metrics (metrics).
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from dispatcherd.receiver.dispatch import Handlers
from dispatcherd.receiver.errors import Refusal
from dispatcherd.receiver.event import Event, Message
from dispatcherd.receiver.metrics import Metrics
from dispatcherd.receiver.results import Outcome, Result

log = logging.getLogger("dispatcherd.receiver")

_QUIET_SECONDS = 60.0
_RECENT_SIGNATURES = 10_000
_UNUSUAL = {
    "no_matching_signature": "bad_signature",
    "missing_header": "unsigned",
    "malformed_header": "malformed",
    "stale_timestamp": "stale",
    "future_timestamp": "future",
    "unknown_sender": "unknown_sender",
    "not_https": "not_https",
}


class _Quiet:
    """Lets one in a minute through per cause. Causes come from a fixed set."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._state: dict[str, tuple[float, int]] = {}

    def speak(self, cause: str) -> int | None:
        """How many were kept quiet since the last one let through; None: this one too."""
        with self._lock:
            at, quiet = self._state.get(cause, (float("-inf"), 0))
            now = self._now()
            if now - at < _QUIET_SECONDS:
                self._state[cause] = (at, quiet + 1)
                return None
            self._state[cause] = (now, 0)
            return quiet


class Reporter:
    """Counts and logs for one receiver."""

    def __init__(
        self,
        name: str,
        metrics: Metrics,
        handlers: Handlers,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.metrics = metrics
        self._name = name
        self._handlers = handlers
        self._quiet = _Quiet(now)
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()

    def refused(self, refusal: Refusal, peer: str | None) -> None:
        """A request was turned away."""
        self.metrics.count("refused_total", receiver=self._name, cause=refusal.cause)
        kind = _UNUSUAL.get(refusal.cause)
        if kind is not None:
            self.metrics.count("unusual_total", receiver=self._name, kind=kind)
        self.warn(
            refusal.cause, f"refused a request from {peer or 'an unknown address'}: {refusal}"
        )

    def admitted(self, message: Message) -> None:
        """A request is genuine. The very same one again is a replay: a retry is signed anew."""
        digest = hashlib.sha256(f"{message.id} {message.signature}".encode("utf-8", "replace"))
        key = digest.digest()[:16]
        with self._lock:
            again = key in self._seen
            self._seen[key] = None
            if len(self._seen) > _RECENT_SIGNATURES:
                self._seen.popitem(last=False)
        if again and message.signed_at is not None:
            self.metrics.count("unusual_total", receiver=self._name, kind="replay")
            self.warn("replay", f"the same signed request came again: {message.id[:80]!r}")

    def settled(self, event: Event, outcome: Outcome) -> None:
        """What the sender is told about an event was decided."""
        type_, word = self._handlers.label(event), outcome.result.word
        self.metrics.count("events_total", receiver=self._name, type=type_, result=word)
        log.debug("%s %r %r %s: %s", self._name, event.id[:80], event.type, event.version, word)
        if outcome.result in (Result.UNHANDLED, Result.UNKNOWN):
            self.metrics.count("unusual_total", receiver=self._name, kind="unknown_event")
            verb = "accepted and ignored" if outcome.result is Result.UNHANDLED else "refused"
            self.warn(
                f"unknown {type_}",
                f"{verb} {event.type!r} version {event.version!r}: no handler for it",
            )
        elif outcome.result is Result.UNAVAILABLE:
            self.warn("unavailable", f"cannot take events in: {outcome.error!r}")

    def ran(self, event: Event, outcome: Outcome, seconds: float) -> None:
        """A handler ended."""
        type_ = self._handlers.label(event)
        word = outcome.result.word
        self.metrics.count("handler_runs_total", receiver=self._name, type=type_, result=word)
        self.metrics.observe("handler_seconds", seconds, receiver=self._name, type=type_)
        if outcome.result is Result.FAILED:
            log.error(
                "%s: the handler failed for %r (%s %s)",
                self._name, event.id[:80], event.type, event.version, exc_info=outcome.error,
            )  # fmt: skip

    def overran(self, event: Event, timeout_seconds: float | None) -> None:
        """A handler did not end in time."""
        type_ = self._handlers.label(event)
        self.metrics.count("handler_runs_total", receiver=self._name, type=type_, result="timeout")
        self.warn(f"timeout {type_}", f"a handler for {event.type!r} took over {timeout_seconds} s")

    def lease_lost(self, event: Event) -> None:
        """The work took longer than its lease and may have been done twice."""
        self.warn("lease_lost", f"{event.id[:80]!r} outlived its lease; raise lease_seconds")

    def buried(self, event: Event, error: str) -> None:
        """An event of the backlog was given up."""
        text = "%s: gave up on %r (%s %s), kept as dead in the backlog: %s"
        log.error(text, self._name, event.id[:80], event.type, event.version, error[:300])

    def answered(self, status: int, seconds: float) -> None:
        """A request was answered."""
        self.metrics.count("requests_total", receiver=self._name, status=str(status))
        self.metrics.observe("response_seconds", seconds, receiver=self._name)

    def warn(self, cause: str, text: str) -> None:
        """A warning, unless this cause had one within the minute."""
        quiet = self._quiet.speak(cause)
        if quiet is not None:
            more = f" ({quiet} more like it since the last such line)" if quiet else ""
            log.warning("%s: %s%s", self._name, text, more)
