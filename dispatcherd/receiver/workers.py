"""Threads that work the backlog off.

Invariant: a job is taken only by a thread that will work on it at once; what ends a thread's work
on one job does not end the thread. Leaves out: what a job is (threaded), the file (backlog).
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

from dispatcherd.receiver.backlog import Backlog, Job

log = logging.getLogger("dispatcherd.receiver")

POLL_SECONDS = 1.0
"""How soon a put by another process is seen, at the latest."""


class Workers:
    """`count` daemon threads, which end in `drain`."""

    def __init__(
        self, backlog: Backlog, work: Callable[[Job], None], count: int, lease_seconds: float
    ) -> None:
        self._backlog = backlog
        self._work = work
        self._count = count
        self._lease = lease_seconds
        self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._threads: list[threading.Thread] = []
        self._stopping = False
        self._puts = 0

    def start(self) -> None:
        """Start them; does nothing where they run already. Threads do not survive a fork."""
        if self._threads and self._pid == os.getpid():
            return
        if self._pid != os.getpid():
            self._forget()
        with self._lock:
            if self._threads:
                return
            self._backlog.on_put = self._notify
            self._threads = [
                threading.Thread(target=self._loop, name=f"webhook worker {n}", daemon=True)
                for n in range(self._count)
            ]
        for thread in self._threads:
            thread.start()

    def drain(self, timeout_seconds: float) -> int:
        """Take nothing more; wait for what runs. How many threads are still at work."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        deadline = time.monotonic() + timeout_seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return sum(thread.is_alive() for thread in self._threads)

    def _notify(self) -> None:
        with self._wake:
            self._puts += 1
            self._wake.notify_all()

    def _loop(self) -> None:
        while not self._stopping:
            puts = self._puts
            try:
                job = self._backlog.take(self._lease)
                if job is None:
                    self._rest(puts, self._backlog.next_due())
                    continue
                self._work(job)
            except Exception:
                # The file cannot be read, or worse: nothing is lost, the lease runs out.
                log.exception("a worker of the webhook backlog failed; it goes on")
                self._rest(self._puts, POLL_SECONDS)

    def _rest(self, puts: int, due_seconds: float | None) -> None:
        """Until the next put, the next job that becomes ready, or a while."""
        seconds = POLL_SECONDS if due_seconds is None else min(POLL_SECONDS, due_seconds)
        with self._wake:
            if not self._stopping and puts == self._puts:
                self._wake.wait(seconds)
