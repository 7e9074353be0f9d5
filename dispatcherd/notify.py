"""Talking to systemd: sd_notify(3) over its datagram socket, no library needed for one sendto.

Invariant: never raises and never blocks; without NOTIFY_SOCKET it does nothing; what it is told to
say is one line, so that a text from outside can never become an assignment of its own. Leaves out:
when to say what (cli.supervision).
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

_MOST_CHARACTERS = 500


class Notifier:
    """The service manager's ear. Each method says whether it was heard (True where nobody listens):
    a full socket buffer loses a datagram, and some of them must be said again."""

    def __init__(self, address: str | None, watchdog_seconds: float | None) -> None:
        self._address = address
        self.watchdog_seconds = watchdog_seconds
        """How long systemd waits for a ping before it kills; None when it does not watch."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Notifier:
        """From NOTIFY_SOCKET (a path, or `@` and an abstract name), WATCHDOG_USEC, WATCHDOG_PID."""
        named = environ.get("NOTIFY_SOCKET", "")
        address = None  # sd_notify(3): other families than these two are not for services
        if named.startswith("@"):
            address = "\0" + named[1:]
        elif named.startswith("/"):
            address = named
        watchdog = None
        usec = environ.get("WATCHDOG_USEC", "")
        if usec.isdecimal() and environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            watchdog = int(usec) / 1e6 or None
        return cls(address, watchdog)

    def _say(self, *assignments: str) -> bool:
        if self._address is None:
            return True
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
                s.setblocking(False)
                s.sendto("\n".join(assignments).encode(errors="replace"), self._address)
        except OSError:
            return False
        return True

    def starting(self, timeout_seconds: float, status: str) -> bool:
        """Not ready yet; give up on us only when we are silent for so long from now on."""
        return self._say(_extend(timeout_seconds), _status(status))

    def ready(self, status: str) -> bool:
        """The service can do its work (the first time, and after each reload)."""
        return self._say("READY=1", _status(status))

    def status(self, text: str) -> bool:
        """One line for `systemctl status`."""
        return self._say(_status(text))

    def reloading(self) -> bool:
        """A reload has begun; `ready` ends it. The time is what Type=notify-reload asks for."""
        usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
        return self._say("RELOADING=1", f"MONOTONIC_USEC={usec}")

    def stopping(self, timeout_seconds: float, status: str) -> bool:
        """The service is going down in order, and needs at most so long for it from now on."""
        return self._say("STOPPING=1", _extend(timeout_seconds), _status(status))

    def watchdog(self) -> bool:
        """The loop that does the work came round."""
        return self._say("WATCHDOG=1")


def _extend(seconds: float) -> str:
    return f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}"


def _status(text: str) -> str:
    line = "".join(c if c.isprintable() else " " for c in text)
    return "STATUS=" + (
        line if len(line) <= _MOST_CHARACTERS else line[: _MOST_CHARACTERS - 1] + "…"
    )
