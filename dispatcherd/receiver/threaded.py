"""The receiver for threaded applications: WSGI, Flask, Django.

Without a backlog handlers run before the answer, under a claim on the event's id; with one the
event is durable before the answer and handlers run in worker threads. Invariant: 2xx is answered
only for events that are done, were done, or are durable; a claim ends with the work it stands for.
Leaves out: HTTP frameworks (wsgi, flask, django), asyncio (asynchronous), worker threads (workers).
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import TracebackType

from dispatcherd.receiver.backlog import Backlog, BacklogFull, Job
from dispatcherd.receiver.errors import Behind, Refusal
from dispatcherd.receiver.event import Event, Message
from dispatcherd.receiver.front import FULL_RETRY_AFTER_SECONDS, LEAST_LEFT_SECONDS, Front
from dispatcherd.receiver.results import Answer, Outcome, Request, Result
from dispatcherd.receiver.running import Runner
from dispatcherd.receiver.store import Claim, State
from dispatcherd.receiver.workers import Workers


class Receiver(Front):
    """Verifies, deduplicates, runs handlers, answers. See `Options`.

    `handle` may be called from any thread. With a backlog call `start` when the application
    starts (else the first request does), and `close` when it ends.
    """

    def _prepare(self) -> None:
        self._runner = Runner(self.max_concurrent, self.around)
        self._workers = None
        if self.backlog is not None:
            self._workers = Workers(self.backlog, self._work, self.workers, self._lease)

    # --- one request -------------------------------------------------------------------------

    def handle(self, request: Request) -> Answer:
        """The answer to a request. Raises nothing that a request could cause."""
        started = time.monotonic()
        try:
            message = self._admit(request)
            answer = self._answer(message, self._take_in(message, started))
        except Refusal as refusal:
            answer = self.refuse(refusal, request.peer)
        self._report.answered(answer.status, time.monotonic() - started)
        return answer

    def _take_in(self, message: Message, started: float) -> list[Outcome]:
        if self.backlog is not None:
            return self._accept(self.backlog, message)
        deadline = None if self.timeout_seconds is None else started + self.timeout_seconds
        return [self._process(event, deadline) for event in message.events]

    def _process(self, event: Event, deadline: float | None) -> Outcome:
        """Run the handler now, unless the event was or is being worked on."""
        handler = self.handlers.find(event)
        if handler is None:
            return self._no_handler()
        left = None if deadline is None else deadline - time.monotonic()
        if (left is not None and left <= LEAST_LEFT_SECONDS) or not self._runner.enter():
            return Outcome(Result.LATER, FULL_RETRY_AFTER_SECONDS)
        claim = self._claim(event)
        if not isinstance(claim, Claim):
            self._runner.leave()
            return claim
        event = replace(event, claim=claim)
        finished = partial(self._settle, claim, event, time.monotonic())
        outcome = self._runner.run(handler, event, left, finished)
        if outcome.result is Result.TIMEOUT:
            self._report.overran(event, self.timeout_seconds)
        return outcome

    def _claim(self, event: Event) -> Claim | Outcome:
        """A claim that was granted, or what to answer instead."""
        assert self.store is not None
        try:
            claim: Claim = self.store.claim(self._key(event), self._lease)
        except Exception as error:  # each store has its own; without one nothing is processed
            return Outcome(Result.UNAVAILABLE, FULL_RETRY_AFTER_SECONDS, error)
        if claim.state is State.GRANTED:
            return claim
        return self._not_granted(claim)

    def _settle(self, claim: Claim, event: Event, started: float, outcome: Outcome) -> Outcome:
        """The handler ended: its claim ends too."""
        assert self.store is not None
        self._report.ran(event, outcome, time.monotonic() - started)
        try:
            if outcome.result is not Result.DONE:
                self.store.release(claim)
            elif not self.store.complete(claim):
                self._report.lease_lost(event)
        except Exception as error:  # the work may be repeated when the lease has run out
            return Outcome(Result.UNAVAILABLE, FULL_RETRY_AFTER_SECONDS, error)
        return outcome

    # --- in the background -------------------------------------------------------------------

    def _accept(self, backlog: Backlog, message: Message) -> list[Outcome]:
        """Put what is new and wanted into the backlog, all of it or none."""
        self.start()
        outcomes: dict[int, Outcome] = {}
        claims: dict[int, Claim] = {}
        wanted: dict[int, Event] = {}
        self._look(backlog)
        for place, event in enumerate(message.events):
            if self.handlers.find(event) is None:
                outcomes[place] = self._no_handler()
                continue
            if self.store is not None:
                claim = self._claim(event)
                if not isinstance(claim, Claim):
                    outcomes[place] = claim
                    continue
                claims[place] = claim
            wanted[place] = event
        try:
            added = backlog.put(list(wanted.values())) if wanted else []
        except (BacklogFull, sqlite3.Error) as error:
            self._end_claims(claims, done=False)
            return [outcomes.get(n, self._not_put(error)) for n in range(len(message.events))]
        self._end_claims(claims, done=True)
        for place, is_new in zip(wanted, added, strict=True):
            outcomes[place] = Outcome(Result.QUEUED if is_new else Result.DUPLICATE)
        return [outcomes[place] for place in range(len(message.events))]

    def _look(self, backlog: Backlog) -> None:
        """Raises Behind while the backlog is over its mark."""
        assert self._shedder is not None
        now = time.monotonic()
        if self._shedder.wants_depth(now):
            try:
                self._shedder.look(backlog.depth(), now)
            except sqlite3.Error as error:
                raise Behind(f"the backlog cannot be read: {error}", 1.0) from error
        self._shed()

    def _end_claims(self, claims: dict[int, Claim], done: bool) -> None:
        """The claims of events that are in the backlog, or are not. Failing here loses nothing:
        the lease runs out, and the backlog knows its ids too."""
        assert self.store is not None or not claims
        for claim in claims.values():
            with suppress(Exception):
                self.store.complete(claim) if done else self.store.release(claim)

    def _work(self, job: Job) -> None:
        """One job, in a worker thread."""
        assert self.backlog is not None
        handler = self.handlers.find(job.event)
        if handler is None or job.attempts > self.retry.max_attempts:
            self._give_up(self.backlog, job, handler is not None)
            return
        if not self._runner.enter(wait_seconds=self._lease / 2):
            self.backlog.give_back(job)
            return
        finished = partial(self._settle_taken, self.backlog, job, time.monotonic())
        outcome = self._runner.run(handler, job.event, self.timeout_seconds, finished)
        if outcome.result is Result.TIMEOUT:
            self._report.overran(job.event, self.timeout_seconds)

    # --- start and end -----------------------------------------------------------------------

    def start(self) -> None:
        """Start the workers of the backlog, once per process.

        A server that forks must do so first: call this in the child (gunicorn's `post_fork`), or
        leave it to the child's first request.
        """
        if self._workers is not None and not self._closing:
            self._workers.start()

    def close(self, timeout_seconds: float = 30.0) -> int:
        """Take nothing more in, let running jobs end; how many did not in time.

        What waits stays in the backlog's file for the next start. New requests are told to come
        again.
        """
        self._closing = True
        return self._workers.drain(timeout_seconds) if self._workers is not None else 0

    def __enter__(self) -> Receiver:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
