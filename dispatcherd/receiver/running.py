"""Running one handler: with a time limit, in bounded number, and with its end always heard of.

A thread cannot be stopped. A handler in a thread that overruns its time is reported as a timeout
and runs on; its claim is kept until it ends, so that the sender's next attempt does not start it a
second time beside itself. A coroutine is cancelled.

Invariant: `finished` is called exactly once per run, with what the handler itself came to, also
after an overrun. Leaves out: which handler (dispatch), and what the end means (processing).
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

from dispatcherd.receiver.dispatch import Handler
from dispatcherd.receiver.event import Event
from dispatcherd.receiver.results import Outcome, Result, RetryLater

OVERRUN_RETRY_AFTER_SECONDS = 30.0

Around: TypeAlias = Callable[[], AbstractContextManager[Any]]
Finished: TypeAlias = Callable[[Outcome], Outcome]
AsyncFinished: TypeAlias = Callable[[Outcome], Awaitable[Outcome]]

DONE = Outcome(Result.DONE)


def outcome_of(error: Exception) -> Outcome:
    """What a handler's exception comes to."""
    if isinstance(error, RetryLater):
        return Outcome(Result.LATER, max(0.0, error.seconds), error)
    return Outcome(Result.FAILED, error=error)


def is_async(handler: Handler) -> bool:
    """Whether it must be awaited."""
    call = type(handler).__call__  # of an object with `async def __call__`
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(call)


class Runner:
    """Runs plain functions in threads of their own; in the caller's where there is no limit."""

    def __init__(self, max_concurrent: int, around: Around = nullcontext) -> None:
        self._slots = threading.BoundedSemaphore(max_concurrent)
        self._around = around

    def enter(self, wait_seconds: float = 0.0) -> bool:
        """Take a slot for one run; False when none came free in time."""
        return self._slots.acquire(timeout=wait_seconds)

    def leave(self) -> None:
        """Give a slot back unused."""
        self._slots.release()

    def run(
        self, handler: Handler, event: Event, timeout_seconds: float | None, finished: Finished
    ) -> Outcome:
        """Run in the slot taken by `enter`, which is given back when the handler ends."""
        if timeout_seconds is None:
            outcome = Outcome(Result.FAILED)
            try:
                outcome = self._call(handler, event)
            finally:  # also when the process is told to exit
                outcome = self._end(outcome, finished)
            return outcome
        ended: list[Outcome] = []
        context = contextvars.copy_context()

        def work() -> None:
            outcome = Outcome(Result.FAILED)
            try:
                outcome = context.run(self._call, handler, event)
            except BaseException as error:  # sys.exit() in a handler ends the handler only
                outcome = Outcome(Result.FAILED, error=error)
            ended.append(self._end(outcome, finished))

        # A daemon: a handler that never ends does not keep the process from ending.
        thread = threading.Thread(target=work, name=f"webhook {event.id[:40]}", daemon=True)
        thread.start()
        thread.join(timeout_seconds)
        if ended:
            return ended[0]
        return Outcome(Result.TIMEOUT, OVERRUN_RETRY_AFTER_SECONDS)

    def _call(self, handler: Handler, event: Event) -> Outcome:
        try:
            with self._around():
                handler(event)
        except Exception as error:
            return outcome_of(error)
        return DONE

    def _end(self, outcome: Outcome, finished: Finished) -> Outcome:
        try:
            return finished(outcome)
        finally:
            self._slots.release()


class AsyncRunner:
    """Runs coroutine functions on the loop, and plain functions in threads of their own."""

    def __init__(self, max_concurrent: int, around: Around = nullcontext) -> None:
        self._free = max_concurrent
        self._around = around
        self._tasks: set[asyncio.Task[Outcome]] = set()

    def enter(self) -> bool:
        """Take a slot for one run; False when there is none."""
        if self._free == 0:
            return False
        self._free -= 1
        return True

    def leave(self) -> None:
        """Give a slot back unused."""
        self._free += 1

    async def run(
        self, handler: Handler, event: Event, timeout_seconds: float | None, finished: AsyncFinished
    ) -> Outcome:
        """Run in the slot taken by `enter`, which is given back when the handler ends."""
        if is_async(handler):
            return await self._end(self._await(handler, event, timeout_seconds), finished)
        task = asyncio.create_task(self._end(self._in_thread(handler, event), finished))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        done, _ = await asyncio.wait({task}, timeout=timeout_seconds)
        if done:
            return task.result()
        return Outcome(Result.TIMEOUT, OVERRUN_RETRY_AFTER_SECONDS)

    async def _end(self, call: Awaitable[Outcome], finished: AsyncFinished) -> Outcome:
        outcome = Outcome(Result.FAILED)
        try:
            outcome = await call
        finally:
            # Also when the request was cancelled: the claim must not outlive the work.
            self._free += 1
            outcome = await asyncio.shield(asyncio.ensure_future(finished(outcome)))
        return outcome

    async def _await(
        self, handler: Handler, event: Event, timeout_seconds: float | None
    ) -> Outcome:
        try:
            async with asyncio.timeout(timeout_seconds) as limit:
                with self._around():
                    await handler(event)
        except TimeoutError as error:
            if limit.expired():
                return Outcome(Result.TIMEOUT, 1.0, error)
            return outcome_of(error)
        except Exception as error:
            return outcome_of(error)
        return DONE

    async def _in_thread(self, handler: Handler, event: Event) -> Outcome:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Outcome] = loop.create_future()
        context = contextvars.copy_context()

        def call() -> Outcome:
            try:
                with self._around():
                    handler(event)
            except Exception as error:
                return outcome_of(error)
            except BaseException as error:  # sys.exit() in a handler ends the handler only
                return Outcome(Result.FAILED, error=error)
            return DONE

        def tell(outcome: Outcome) -> None:
            if not ended.done():
                ended.set_result(outcome)

        def work() -> None:
            outcome = context.run(call)
            try:
                loop.call_soon_threadsafe(tell, outcome)
            except RuntimeError:  # the loop is closed: nobody is left to hear it
                return

        threading.Thread(target=work, name=f"webhook {event.id[:40]}", daemon=True).start()
        return await ended
