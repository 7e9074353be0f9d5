"""What the threaded and the asyncio receiver have in common: verification and registration.

Invariant: nothing here waits or blocks, so both can call it anywhere. Leaves out: running handlers
(threaded, asynchronous).
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any

from dispatcherd.receiver.backlog import Backlog, BacklogFull, Depth, Job
from dispatcherd.receiver.dispatch import H, Handlers
from dispatcherd.receiver.errors import Behind, BodyTooLarge, MethodNotAllowed, Refusal
from dispatcherd.receiver.errors import UnexpectedBatch as _UnexpectedBatch
from dispatcherd.receiver.event import Event, Message, read_hints, unpack
from dispatcherd.receiver.headers import Headers, read
from dispatcherd.receiver.network import AllowList, Guard, Proxies
from dispatcherd.receiver.options import Options
from dispatcherd.receiver.reporting import Reporter
from dispatcherd.receiver.results import Answer, Outcome, Request, Result, answer, refusal_answer
from dispatcherd.receiver.running import is_async
from dispatcherd.receiver.shedding import Shedder
from dispatcherd.receiver.store import Claim, State
from dispatcherd.receiver.store.memory import MemoryStore
from dispatcherd.receiver.verify import Verifier

FULL_RETRY_AFTER_SECONDS = 1.0
LEAST_LEFT_SECONDS = 0.002
"""With less of its time left, a batch's next member is not begun: a timer may fire that early, and
a handler begun then would work for an answer that says it did not."""
BUSY_RETRY_AFTER_SECONDS = 30.0


def require(receiver: object, kind: type[Front], other: str) -> None:
    """Raises TypeError unless an adapter was given the kind of receiver that it can ask."""
    if not isinstance(receiver, kind):
        raise TypeError(
            f"this adapter needs {kind.__name__}, not {type(receiver).__name__};"
            f" for that one there is {other}"
        )


class Front(Options):
    """Verification and registration. Use `Receiver` or `AsyncReceiver`."""

    def __post_init__(self, secrets: Sequence[str | bytes]) -> None:
        """Raises SecretFormatError, ValueError."""
        self.handlers = Handlers(self.unknown)
        self.verifier = Verifier(
            secrets,
            tolerance_seconds=self.tolerance_seconds,
            prefix=self.prefix,
            hex_header=self.hex_header,
        )
        allowed = self.allowed
        if allowed is not None and not isinstance(allowed, AllowList):
            allowed = AllowList(allowed)
        self._guard = Guard(Proxies(self.trusted_proxies), allowed, self.https_only)
        self._lease = self.lease_seconds or max(300.0, 2 * (self.timeout_seconds or 0.0))
        self._report = Reporter(self.name, self.metrics, self.handlers)
        self._closing = False
        self._shedder = None
        if self.backlog is not None:
            self._shedder = Shedder(self.shed, self.backlog.max_items)
            self._add_gauges(self.backlog)
        elif self.store is None:
            self.store = MemoryStore()
        self._prepare()

    def _prepare(self) -> None:
        """Make what differs between the two receivers."""

    # --- the five lines ----------------------------------------------------------------------

    def verify(self, headers: Headers, body: bytes, now: float | None = None) -> Event:
        """The event of a genuine request; `body` is its raw bytes. Raises VerificationError.

        For requests that may be batches (UnexpectedBatch is raised): `verify_message`.
        """
        message = self.verify_message(headers, body, now)
        if message.is_batch:
            raise _UnexpectedBatch(len(message.events))
        return message.events[0]

    def verify_message(self, headers: Headers, body: bytes, now: float | None = None) -> Message:
        """All events of a genuine request, be it one event or a batch. Raises VerificationError."""
        fields = read(headers)
        verified = self.verifier.verify(fields, body, self.clock() if now is None else now)
        return unpack(verified, bytes(body), read_hints(fields, self.type_header))

    # --- registration ------------------------------------------------------------------------

    def on(self, *patterns: str, version: str | Sequence[str] | None = None) -> Callable[[H], H]:
        """Register the decorated function for event types, in one or several versions or any.

        `order.created`, `order.*` (every type below), `*`. The most exact registration wins.
        """
        versions = (version,) if version is None or isinstance(version, str) else tuple(version)
        if not patterns or not versions:
            raise ValueError('name at least one event type, such as @webhook.on("order.created")')

        def register(handler: H) -> H:
            self._check_handler(handler)
            for pattern in patterns:
                self.handlers.add(pattern, handler, versions)
            return handler

        return register

    def _check_handler(self, handler: Any) -> None:
        if is_async(handler):
            raise TypeError(f"{handler!r} is a coroutine function; AsyncReceiver runs those")

    # --- parts of answering ------------------------------------------------------------------

    def refuse(self, refusal: Refusal, peer: str | None) -> Answer:
        """The answer to a request that is turned away, counted and logged."""
        self._report.refused(refusal, peer)
        return refusal_answer(refusal)

    def _admit(self, request: Request) -> Message:
        """The genuine message in a request, or the Refusal that says why there is none."""
        if not self.handlers:
            raise RuntimeError('no handler is registered: @webhook.on("order.created")')
        if request.method != "POST":
            raise MethodNotAllowed("webhooks are POST requests")
        if len(request.body) > self.max_body_bytes:
            raise BodyTooLarge(self.max_body_bytes)
        headers = read(request.headers)
        self._guard.check(request.peer, request.scheme, headers)
        message = self.verify_message(headers, request.body)
        self._report.admitted(message)
        if self._closing:
            raise Behind("shutting down", FULL_RETRY_AFTER_SECONDS)
        return message

    def _shed(self) -> None:
        """Raises Behind while the backlog is over its mark."""
        assert self._shedder is not None
        wait = self._shedder.retry_after(time.monotonic(), random.random())
        if wait is not None:
            raise Behind("the backlog is behind", wait)

    def _not_put(self, error: Exception) -> Outcome:
        """For an event that the backlog did not take."""
        assert self._shedder is not None
        wait = self._shedder.estimate(time.monotonic(), random.random())
        full = isinstance(error, BacklogFull)
        return Outcome(Result.LATER if full else Result.UNAVAILABLE, wait, error)

    def _not_granted(self, claim: Claim) -> Outcome:
        """For an event that was or is being worked on. A short wait suffices: work is short."""
        if claim.state is State.DONE:
            return Outcome(Result.DUPLICATE)
        return Outcome(Result.BUSY, min(BUSY_RETRY_AFTER_SECONDS, claim.retry_after_seconds))

    def _no_handler(self) -> Outcome:
        refuse = self.handlers.unknown == "refuse"
        return Outcome(Result.UNKNOWN if refuse else Result.UNHANDLED)

    def _key(self, event: Event) -> str:
        return f"{self.name}:{event.id}"

    def _answer(self, message: Message, outcomes: Sequence[Outcome]) -> Answer:
        for event, outcome in zip(message.events, outcomes, strict=True):
            self._report.settled(event, outcome)
        named = [(e.id, outcome) for e, outcome in zip(message.events, outcomes, strict=True)]
        return answer(named, message.is_batch, self.partial_failures)

    # --- parts of working the backlog off (they block) -----------------------------------------

    def _give_up(self, backlog: Backlog, job: Job, known: bool) -> None:
        """A type that is handled no longer, or work that has ended the process each time."""
        if not known and self.handlers.unknown == "accept":
            self._report.settled(job.event, self._no_handler())
            backlog.done(job)
            return
        why = "its worker ended the process each time" if known else "no handler for it any more"
        backlog.bury(job, job.error or why)
        self._report.buried(job.event, job.error or why)

    def _settle_taken(
        self, backlog: Backlog, job: Job, started: float, outcome: Outcome
    ) -> Outcome:
        """The handler ended: the job is done, waits for its next run, or is dead."""
        assert self._shedder is not None
        self._report.ran(job.event, outcome, time.monotonic() - started)
        try:
            if outcome.result is Result.DONE:
                if not backlog.done(job):
                    self._report.lease_lost(job.event)
                self._shedder.pace.tick(time.monotonic())
            elif job.attempts < self.retry.max_attempts:
                delay = self.retry.delay(job.attempts, random.random())
                if outcome.result is Result.LATER:
                    delay = outcome.retry_after_seconds
                backlog.retry(job, delay, repr(outcome.error))
            elif backlog.bury(job, repr(outcome.error)):
                self._report.buried(job.event, repr(outcome.error))
        except sqlite3.Error as error:  # the lease runs out, and the job is taken again
            self._report.warn("backlog", f"cannot settle {job.event.id[:80]!r}: {error}")
        return outcome

    def _add_gauges(self, backlog: Backlog) -> None:
        def gauge(name: str, text: str, read: Callable[[Depth], float]) -> None:
            self.metrics.gauge(name, text, lambda: read(backlog.depth()), receiver=self.name)

        gauge("backlog_events", "Events accepted and not done, dead ones included",
              lambda depth: depth.items)  # fmt: skip
        gauge("backlog_dead", "Events given up, kept until revived or discarded",
              lambda depth: depth.dead)  # fmt: skip
        gauge("backlog_lag_seconds", "How long the first event has been ready and not taken",
              lambda depth: depth.lag_seconds)  # fmt: skip
