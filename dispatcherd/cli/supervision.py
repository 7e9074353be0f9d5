"""What the service manager hears, and when: READY, watchdog pings, STATUS, more time where needed.

Invariant: READY is said once the group has been joined and outcomes can be recorded, and said again
until it was heard; a ping is sent only while the loop's ticker ticks; while starting and stopping,
systemd's patience is extended by a loop that runs, so that the unit's timeouts need not know the
configuration's. Leaves out: the protocol (notify), the words of the status line (status).

All of it runs on the one event loop that does the work: a blocked loop is silent, and systemd
kills what is silent for longer than TimeoutStartSec= (starting) or WatchdogSec= (running).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from dispatcherd import log
from dispatcherd.notify import Notifier

logger = log.get("dispatcherd.run")

_TURN_SECONDS = 0.1
_STATUS_SECONDS = 5.0
_CHANGING_STATUS_SECONDS = 1.0
"""While starting and stopping, when somebody is likely to be looking."""
_PATIENCE_SECONDS = 30.0
"""While starting, how long a silence may last; said again with each status."""
_EXIT_SECONDS = 10.0
"""After the drain: closing, and the interpreter's own end."""


class Supervision:
    """One process's side of the talk with its service manager."""

    def __init__(
        self,
        notifier: Notifier,
        missing: Callable[[], Mapping[str, str]],
        last_beat: Callable[[], float],
        describe: Callable[[float], str],
    ) -> None:
        """`missing`: what stands in the way of readiness. `last_beat`: when the ticker last came
        round, monotonic. `describe(now)`: the work in one line."""
        self._notifier = notifier
        self._missing = missing
        self._last_beat = last_beat
        self._describe = describe
        self.ready = False
        """Has been reached once; what goes wrong later is in the status line."""
        self._ready_unheard = False
        self._stopping = False
        self._note = ""
        self._pinged_at = self._said_at = float("-inf")
        self._said = ""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.turn(time.monotonic())
            await asyncio.sleep(_TURN_SECONDS)

    def turn(self, now: float) -> None:
        """Say what is due at a monotonic time."""
        if not self.ready and not self._stopping and not self._missing():
            self.ready = self._ready_unheard = True
            logger.info("ready", status=self._status(now))
        if self._ready_unheard:
            self._say_ready(now)
        watchdog = self._notifier.watchdog_seconds
        if (
            watchdog is not None
            and now - self._pinged_at >= watchdog / 4
            and now - self._last_beat() < watchdog / 2
            and self._notifier.watchdog()
        ):
            self._pinged_at = now
        steady = self.ready and not self._stopping
        if now - self._said_at >= (_STATUS_SECONDS if steady else _CHANGING_STATUS_SECONDS):
            self._tell_status(now)

    def _say_ready(self, now: float) -> None:
        status = self._status(now)
        if self._notifier.ready(status):
            self._ready_unheard = False
            self._said, self._said_at = status, now

    def _tell_status(self, now: float) -> None:
        status = self._status(now)
        if not self.ready and not self._stopping:
            self._notifier.starting(_PATIENCE_SECONDS, status)  # also when it is the same text
        elif status != self._said:
            self._notifier.status(status)
        self._said, self._said_at = status, now

    def _status(self, now: float) -> str:
        if self._stopping:
            return str(log.clean(f"stopping: {self._describe(now)}"))
        if not self.ready:
            missing = "; ".join(f"{part}: {why}" for part, why in self._missing().items())
            return str(log.clean(f"starting, waiting for {missing}"))
        return str(log.clean("; ".join(t for t in (self._describe(now), self._note) if t)))

    def reload_begun(self) -> None:
        """A reload is being carried out. Before READY nothing is said: the READY that ends a reload
        would be taken for the first one."""
        if self.ready:
            self._notifier.reloading()

    def reload_ended(self, note: str = "") -> None:
        """It is over; `note` stays in the status line until the next one, e.g. why it failed."""
        self._note = note
        if self.ready and not self._stopping:
            self._ready_unheard = True
            self.turn(time.monotonic())

    def stopping(self, timeout_seconds: float) -> None:
        """The drain has begun, and takes at most so long."""
        self._stopping = True
        self._ready_unheard = False
        now = time.monotonic()
        self._said, self._said_at = self._status(now), now
        self._notifier.stopping(timeout_seconds + _EXIT_SECONDS, self._said)

    def failed(self, why: str) -> None:
        """The process is about to end with a failure: the last status line says which."""
        self._notifier.status(str(log.clean(f"failed: {why}")))
