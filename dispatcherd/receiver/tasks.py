"""Tasks that work the backlog off on an event loop.

The same invariant as `workers`. Leaves out: what a job is (asynchronous), the file (backlog).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from dispatcherd.receiver.backlog import Backlog, Job
from dispatcherd.receiver.workers import POLL_SECONDS

log = logging.getLogger("dispatcherd.receiver")


class Tasks:
    """`count` tasks, which end in `drain`."""

    def __init__(
        self,
        backlog: Backlog,
        work: Callable[[Job], Awaitable[None]],
        blocking: Callable[..., Awaitable[Any]],
        count: int,
        lease_seconds: float,
    ) -> None:
        self._backlog = backlog
        self._work = work
        self._blocking = blocking
        self._count = count
        self._lease = lease_seconds
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._stopping = False

    def start(self) -> None:
        """Start them; does nothing where they run already."""
        if self._tasks:
            return
        loop = asyncio.get_running_loop()

        def notify() -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._wake_all)

        self._backlog.on_put = notify
        self._tasks = {loop.create_task(self._loop()) for _ in range(self._count)}

    async def drain(self, timeout_seconds: float) -> int:
        """Take nothing more; wait for what runs, then cancel it. How many were cancelled."""
        self._stopping = True
        self._wake_all()
        if not self._tasks:
            return 0
        _, late = await asyncio.wait(self._tasks, timeout=timeout_seconds)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=5)
        return len(late)

    def _wake_all(self) -> None:
        woken, self._wake = self._wake, asyncio.Event()
        woken.set()

    async def _loop(self) -> None:
        while not self._stopping:
            wake = self._wake
            try:
                job = await self._blocking(self._backlog.take, self._lease)
                if job is None:
                    await self._rest(wake, await self._blocking(self._backlog.next_due))
                    continue
                await self._work(job)
            except Exception:
                # The file cannot be read, or worse: nothing is lost, the lease runs out.
                log.exception("a worker of the webhook backlog failed; it goes on")
                await asyncio.sleep(POLL_SECONDS)

    async def _rest(self, wake: asyncio.Event, due_seconds: float | None) -> None:
        """Until the next put, the next job that becomes ready, or a while."""
        if self._stopping:
            return
        seconds = POLL_SECONDS if due_seconds is None else min(POLL_SECONDS, due_seconds)
        with suppress(TimeoutError):  # a while has passed: look whether there is work
            async with asyncio.timeout(seconds):
                await wake.wait()
