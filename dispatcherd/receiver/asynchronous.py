"""The receiver for asyncio applications: ASGI (FastAPI, Starlette), aiohttp.

The same flow and invariant as `threaded`; what blocks (SQLite, a store with a blocking client) runs
in a few threads of its own, handlers that are plain functions in threads too. One receiver belongs
to one event loop. Leaves out: HTTP frameworks (asgi, aiohttp), worker tasks (tasks).
"""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from dispatcherd.receiver.backlog import Backlog, BacklogFull, Job
from dispatcherd.receiver.errors import Behind, Refusal
from dispatcherd.receiver.event import Event, Message
from dispatcherd.receiver.front import FULL_RETRY_AFTER_SECONDS, LEAST_LEFT_SECONDS, Front
from dispatcherd.receiver.results import Answer, Outcome, Request, Result
from dispatcherd.receiver.running import AsyncRunner
from dispatcherd.receiver.store import Claim, State
from dispatcherd.receiver.store.memory import MemoryStore
from dispatcherd.receiver.tasks import Tasks

T = TypeVar("T")

_BLOCKING_THREADS = 4


class AsyncReceiver(Front):
    """Verifies, deduplicates, runs handlers, answers. See `Options`.

    Handlers may be coroutine functions or plain functions; `store` may be a Store or an AsyncStore.
    With a backlog `await start()` when the application starts (else the first request does), and
    `await close()` when it ends.
    """

    def _prepare(self) -> None:
        self._runner = AsyncRunner(self.max_concurrent, self.around)
        self._threads = ThreadPoolExecutor(_BLOCKING_THREADS, "webhook-receiver")
        self._closed = False
        self._tasks = None
        if self.backlog is not None:
            self._tasks = Tasks(self.backlog, self._work, self._blocking, self.workers,
                                self._lease)  # fmt: skip

    def _check_handler(self, handler: Any) -> None:
        """Both kinds are run."""

    # --- one request -------------------------------------------------------------------------

    async def handle(self, request: Request) -> Answer:
        """The answer to a request. Raises nothing that a request could cause."""
        started = time.monotonic()
        try:
            message = self._admit(request)
            answer = self._answer(message, await self._take_in(message, started))
        except Refusal as refusal:
            answer = self.refuse(refusal, request.peer)
        self._report.answered(answer.status, time.monotonic() - started)
        return answer

    async def _take_in(self, message: Message, started: float) -> list[Outcome]:
        if self.backlog is not None:
            return await self._accept(self.backlog, message)
        deadline = None if self.timeout_seconds is None else started + self.timeout_seconds
        return [await self._process(event, deadline) for event in message.events]

    async def _process(self, event: Event, deadline: float | None) -> Outcome:
        """Run the handler now, unless the event was or is being worked on."""
        handler = self.handlers.find(event)
        if handler is None:
            return self._no_handler()
        left = None if deadline is None else deadline - time.monotonic()
        if (left is not None and left <= LEAST_LEFT_SECONDS) or not self._runner.enter():
            return Outcome(Result.LATER, FULL_RETRY_AFTER_SECONDS)
        try:
            claim = await self._claim(event)
        except BaseException:
            self._runner.leave()
            raise
        if not isinstance(claim, Claim):
            self._runner.leave()
            return claim
        event = replace(event, claim=claim)
        finished = partial(self._settle, claim, event, time.monotonic())
        outcome = await self._runner.run(handler, event, left, finished)
        if outcome.result is Result.TIMEOUT:
            self._report.overran(event, self.timeout_seconds)
        return outcome

    async def _claim(self, event: Event) -> Claim | Outcome:
        """A claim that was granted, or what to answer instead."""
        assert self.store is not None
        try:
            claim: Claim = await self._ask(self.store.claim, self._key(event), self._lease)
        except Exception as error:  # each store has its own; without one nothing is processed
            return Outcome(Result.UNAVAILABLE, FULL_RETRY_AFTER_SECONDS, error)
        if claim.state is State.GRANTED:
            return claim
        return self._not_granted(claim)

    async def _settle(
        self, claim: Claim, event: Event, started: float, outcome: Outcome
    ) -> Outcome:
        """The handler ended: its claim ends too."""
        assert self.store is not None
        self._report.ran(event, outcome, time.monotonic() - started)
        try:
            if outcome.result is not Result.DONE:
                await self._ask(self.store.release, claim)
            elif not await self._ask(self.store.complete, claim):
                self._report.lease_lost(event)
        except Exception as error:  # the work may be repeated when the lease has run out
            return Outcome(Result.UNAVAILABLE, FULL_RETRY_AFTER_SECONDS, error)
        return outcome

    # --- in the background -------------------------------------------------------------------

    async def _accept(self, backlog: Backlog, message: Message) -> list[Outcome]:
        """Put what is new and wanted into the backlog, all of it or none."""
        await self.start()
        outcomes: dict[int, Outcome] = {}
        claims: dict[int, Claim] = {}
        wanted: dict[int, Event] = {}
        await self._look(backlog)
        for place, event in enumerate(message.events):
            if self.handlers.find(event) is None:
                outcomes[place] = self._no_handler()
                continue
            if self.store is not None:
                claim = await self._claim(event)
                if not isinstance(claim, Claim):
                    outcomes[place] = claim
                    continue
                claims[place] = claim
            wanted[place] = event
        try:
            events = list(wanted.values())
            added = await self._blocking(backlog.put, events) if events else []
        except (BacklogFull, sqlite3.Error) as error:
            await self._end_claims(claims, done=False)
            return [outcomes.get(n, self._not_put(error)) for n in range(len(message.events))]
        await self._end_claims(claims, done=True)
        for place, is_new in zip(wanted, added, strict=True):
            outcomes[place] = Outcome(Result.QUEUED if is_new else Result.DUPLICATE)
        return [outcomes[place] for place in range(len(message.events))]

    async def _look(self, backlog: Backlog) -> None:
        """Raises Behind while the backlog is over its mark."""
        assert self._shedder is not None
        now = time.monotonic()
        if self._shedder.wants_depth(now):
            try:
                self._shedder.look(await self._blocking(backlog.depth), now)
            except sqlite3.Error as error:
                raise Behind(f"the backlog cannot be read: {error}", 1.0) from error
        self._shed()

    async def _end_claims(self, claims: dict[int, Claim], done: bool) -> None:
        """The claims of events that are in the backlog, or are not. Failing here loses nothing:
        the lease runs out, and the backlog knows its ids too."""
        for claim in claims.values():
            assert self.store is not None
            with suppress(Exception):
                await self._ask(self.store.complete if done else self.store.release, claim)

    async def _work(self, job: Job) -> None:
        """One job, in a worker task."""
        assert self.backlog is not None
        handler = self.handlers.find(job.event)
        if handler is None or job.attempts > self.retry.max_attempts:
            await self._blocking(self._give_up, self.backlog, job, handler is not None)
            return
        if not self._runner.enter():  # all held by handlers that overran
            await self._blocking(self.backlog.give_back, job)
            await asyncio.sleep(FULL_RETRY_AFTER_SECONDS)
            return
        finished = partial(self._settle_job, job, time.monotonic())
        outcome = await self._runner.run(handler, job.event, self.timeout_seconds, finished)
        if outcome.result is Result.TIMEOUT:
            self._report.overran(job.event, self.timeout_seconds)

    async def _settle_job(self, job: Job, started: float, outcome: Outcome) -> Outcome:
        """The handler ended: the job is done, waits for its next run, or is dead."""
        assert self.backlog is not None
        return await self._blocking(self._settle_taken, self.backlog, job, started, outcome)

    # --- what blocks -------------------------------------------------------------------------

    async def _blocking(self, call: Callable[..., T], *arguments: Any) -> T:
        if self._closed:  # a handler in a thread ended after `close`
            return call(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)

    async def _ask(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Ask a store of either kind."""
        if inspect.iscoroutinefunction(call):
            return await call(*arguments)
        if isinstance(self.store, MemoryStore):
            return call(*arguments)
        return await self._blocking(call, *arguments)

    # --- start and end -----------------------------------------------------------------------

    async def start(self) -> None:
        """Start the workers of the backlog, once."""
        if self._tasks is not None and not self._closing:
            self._tasks.start()

    async def close(self, timeout_seconds: float = 30.0) -> int:
        """Take nothing more in, let running jobs end; how many did not in time.

        Those are cancelled and run again later; what waits stays in the backlog's file for the next
        start. New requests are told to come again.
        """
        self._closing = True
        left = await self._tasks.drain(timeout_seconds) if self._tasks is not None else 0
        self._closed = True
        self._threads.shutdown(wait=False)
        return left

    async def __aenter__(self) -> AsyncReceiver:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
